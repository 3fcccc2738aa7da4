# Every target makes the environment that it needs; nothing has to be installed or activated beforehand.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint format readme clean
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

readme: .venv/dev  ## the results table of the README, from results/
	$(BIN)/python tools/readme_table.py

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/demo: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) --editable '.[demo]'
	touch $@

.venv/dev: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) --editable '.[dev]'
	touch $@
