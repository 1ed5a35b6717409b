# Two commands for a newcomer: `make demo` and `make test`. Both set up .venv on their own.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SHELL := /bin/bash

.PHONY: demo test check format clean

$(VENV)/ready: pyproject.toml scripts/setup_env.py
	$(PYTHON) scripts/setup_env.py $(VENV)
	@touch $@

demo: $(VENV)/ready
	$(BIN)/keel demo $(ARGS)

test: $(VENV)/ready
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

check: $(VENV)/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyrefly check
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

format: $(VENV)/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache build dist
