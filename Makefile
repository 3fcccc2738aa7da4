# Every target makes the environment that it needs; nothing has to be installed or activated beforehand.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint format readme reproduce bench clean
.DEFAULT_GOAL := demo

demo: .venv/demo  ## train on the built-in data, show a table and a figure
	$(BIN)/ziggurat demo --out runs/demo

# One thread per worker: two workers that spin for the same cores would take many times as long.
test: .venv/dev  ## all tests
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2

lint: .venv/dev  ## style, types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: .venv/dev
	$(BIN)/ruff check --fix --quiet
	$(BIN)/ruff format --quiet

clean:  ## everything that was made, trained models in runs/ included
	rm -rf .venv runs build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# `make reproduce DATA=sst2`: one data set; hours for all of them on 2 cores. What is finished is not done again.
DATA_FOLDER ?= ../shared/data
reproduce: DATA ?= rte mrpc yelp_polarity ag_news sst2
reproduce: .venv/dev  ## the papers' methods on the papers' data, rows in results/, table in docs/
	$(BIN)/python tools/reproduce.py $(addprefix $(DATA_FOLDER)/,$(DATA))
	$(BIN)/python tools/reproduction_table.py

# `make bench MODEL=runs/news DATA=news/test.jsonl`; without them the demo model, trained where it is not there yet.
MODEL ?= runs/demo/model
bench: DATA ?= stdlib-docs
bench: .venv/bench $(MODEL)  ## our engine beside transformers, ONNX Runtime and OpenVINO; adds rows to results/peers.jsonl
	$(BIN)/ziggurat bench $(MODEL) --data $(DATA) --peers --out results/peers.jsonl

runs/demo/model: | .venv/bench
	$(BIN)/ziggurat train --train stdlib-docs --recipe demo --out $@

readme: .venv/dev  ## the results table of the README, from results/
	$(BIN)/python tools/readme_table.py

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/demo: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) --editable '.[demo]'
	touch $@

.venv/bench: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) --editable '.[demo,bench]'
	touch $@

.venv/dev: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) --editable '.[dev]'
	touch $@
