# Every target makes the environment that it needs; nothing has to be installed or activated beforehand.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
# pip leaves the C++ to `make native`, which compiles again only what has changed.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) \
	--config-settings wheel.cmake=false --editable
CPP = $(shell find native -name "*.cpp" -o -name "*.h" -o -name "*.inl")
MAKEFLAGS += --no-print-directory

.PHONY: help demo test test-fast test-oldest native stub sanitize lint format docs pictures readme reproduce tango tasks guarantee bench clean
.DEFAULT_GOAL := demo

help:  ## this list
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | sort | awk -F '\t' '{ printf "%-12s %s\n", $$1, $$2 }'

demo: $(VENV)/demo native  ## train on the built-in data, show a table and a figure
	$(BIN)/ziggurat demo --out runs/demo

# One thread per worker: two workers that spin for the same cores would take many times as long.
test: $(VENV)/dev native  ## all tests
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2

test-fast: $(VENV)/dev native  ## the unit tests that take no time, in a minute
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 tests/unit -m "not slow"

# A new environment has the newest versions. These tests read, write, train and parse with the oldest that we allow.
# Their own deprecations are no errors of ours; random models of questions come out otherwise there, with a tie in one.
OLDEST_TESTS := tests/unit/cli tests/unit/data tests/unit/encoder tests/unit/small tests/flow/test_cli.py \
	tests/flow/test_refusals.py tests/flow/test_bad_rows.py tests/flow/test_notes.py tests/flow/test_terminal.py \
	tests/flow/test_task_options.py tests/flow/test_round_trips.py tests/flow/test_tokenizer_parity.py \
	tests/flow/test_training.py tests/flow/test_adapting.py tests/flow/training/test_resume.py \
	--ignore tests/unit/encoder/test_span_architectures.py -W "ignore:Deprecated in:DeprecationWarning"
test-oldest: native  ## what depends most on other packages, with the oldest versions that pyproject.toml allows
	$(MAKE) VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt .venv-oldest/dev
	OMP_NUM_THREADS=1 .venv-oldest/bin/pytest --numprocesses 2 $(OLDEST_TESTS)

# $(call compile,NAME,OPTIONS): in build/NAME. A warning is an error here, though not for those who install.
define compile
$(BIN)/cmake -S . -B build/$(1) -DPython_EXECUTABLE=$(abspath $(BIN))/python -DCMAKE_COMPILE_WARNING_AS_ERROR=ON \
	-DZIGGURAT_EMULATED=ON $(2) --log-level=WARNING
$(BIN)/cmake --build build/$(1) --parallel 4
endef

ifneq ($(shell command -v $${CXX:-c++}),)
native: $(VENV)/build  ## the compiled engine, beside its Python sources; seconds after an edit
	$(call compile,native,-DZIGGURAT_IN_PLACE=ON)
else
native:
	@echo "No C++ compiler (CXX or c++): going on without the compiled engine."
endif

STUB := src/ziggurat/native/_core.pyi
stub: native $(VENV)/dev  ## the types of the compiled engine, from its bindings; a test compares them
	$(BIN)/python -m nanobind.stubgen --quiet --module ziggurat.native._core --output-file $(STUB)
	$(BIN)/ruff format --quiet $(STUB)

sanitize: sanitize-address,undefined sanitize-thread  ## tests of the compiled engine with sanitisers: ASan and UBSan, then TSan

# Python itself is not instrumented: the runtimes are loaded before it, what it leaks is not ours, and the C++ library
# comes along because ASan looks for its exceptions at once. TSan needs addresses that are not random.
RUNTIME = $(shell $${CXX:-c++} -print-file-name=lib$(1).so)
sanitize-address%: PRELOAD = $(call RUNTIME,asan):$(call RUNTIME,stdc++)
sanitize-thread: PRELOAD = $(call RUNTIME,tsan)
sanitize-%: $(VENV)/dev
	$(call compile,$*,-DCMAKE_BUILD_TYPE=Debug -DZIGGURAT_SANITIZE=$*)
	rm -rf build/$*/package && cp -R src build/$*/package && rm -f build/$*/package/ziggurat/native/_core*.so
	$(BIN)/cmake --install build/$* --prefix build/$*/package
	$(shell setarch --addr-no-randomize true 2> /dev/null && echo setarch --addr-no-randomize) \
		env PYTHONPATH=$(abspath build/$*/package) PYTHONMALLOC=malloc OPENBLAS_NUM_THREADS=1 LD_PRELOAD="$(PRELOAD)" \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 TSAN_OPTIONS=die_after_fork=0 OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest --capture=sys -p no:cacheprovider tests/unit/native tests/flow/native

lint: $(VENV)/dev  ## style, types
	$(BIN)/clang-format --dry-run --Werror $(CPP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/dev  ## correct the style
	$(BIN)/clang-format -i $(CPP)
	$(BIN)/ruff check --fix --quiet
	$(BIN)/ruff format --quiet

# The examples run on a tiny model in a temporary folder: seconds.
docs: $(VENV)/dev $(VENV)/docs native  ## the documentation in site/; fails for a broken link or example
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/flow/test_documentation.py tests/unit/house/test_site.py

pictures: $(VENV)/dev  ## the drawings of the documentation
	$(BIN)/python -m scripts.rooms
	$(BIN)/python -m scripts.pictures

clean:  ## everything that was made, trained models in runs/ included
	rm -rf .venv .venv-oldest runs build dist site src/ziggurat/native/_core*.so .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# `make reproduce DATA=sst2`: one data set; hours for all of them on 2 cores. What is finished is not done again. What is in
# DATA_FOLDER is said in docs/reproduction.md.
DATA_FOLDER ?= ../shared/data
JOBS ?= 2
reproduce: DATA ?= rte mrpc yelp_polarity ag_news sst2
reproduce: $(VENV)/dev native  ## the papers' methods on the papers' data, rows in results/, table in docs/
	$(BIN)/python -m reproduction.reproduce --jobs $(JOBS) $(addprefix $(DATA_FOLDER)/,$(DATA))
	$(BIN)/python -m reproduction.tables

# `make tango DATA=ag_news`: after `make reproduce` of the same data.
tango: DATA ?= mrpc yelp_polarity ag_news sst2
tango: $(VENV)/dev native  ## cascades: TangoBERT's tables in our terms, rows in results/, tables in docs/
	$(BIN)/python -m reproduction.tango $(addprefix $(DATA_FOLDER)/,$(DATA))
	$(BIN)/python -m reproduction.tables

tasks: $(VENV)/dev native  ## pruning and exits for similarity scores and questions, rows in results/, tables in docs/
	$(BIN)/python -m reproduction.tasks $(DATA_FOLDER)/stsb $(DATA_FOLDER)/xquad_en
	$(BIN)/python -m reproduction.tables

guarantee: $(VENV)/dev  ## 1,000 times: certify an operating point on a pool of known risk; fails where promises do
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.proof.guarantee --out results/guarantee.jsonl

# `make bench MODEL=runs/news DATA=news/test.jsonl`; without them the demo model, trained where it is not there yet.
MODEL ?= runs/demo/model
bench: DATA ?= stdlib-docs
bench: $(VENV)/bench native $(MODEL)  ## beside transformers, ONNX Runtime and OpenVINO, and by itself: rows in results/, tables in docs/
	$(BIN)/ziggurat compare $(MODEL) --data $(DATA) --out results/peers.jsonl
	$(BIN)/python -m benchmarks.engine $(MODEL) $(DATA)
	$(BIN)/python -m benchmarks.tables performance

runs/demo/model: | $(VENV)/bench
	$(BIN)/ziggurat train --train stdlib-docs --recipe demo --out $@

readme: $(VENV)/dev  ## the results table of the README, from results/
	$(BIN)/python -m benchmarks.tables readme

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/build $(VENV)/demo $(VENV)/dev $(VENV)/docs: $(VENV)/%: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	$(INSTALL) '.[$*]'
	touch $@

$(VENV)/bench: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	$(INSTALL) '.[demo,bench]'
	touch $@
