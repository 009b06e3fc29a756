# Two commands do all the set-up:
#   make serve    environment, bundled models, workbench and API on http://127.0.0.1:8000 (no torch)
#   make test     everything the tests need, then the tests

PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
PORT   ?= 8000
SHELL  := /bin/bash

.PHONY: serve test check bench page clean $(patsubst benchmarks/%.py,bench-%,$(wildcard benchmarks/*.py))

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Each tier is installed once, and again when pyproject.toml changes.
$(VENV)/.installed-serve: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[serve]"
	@touch $@

# torch first and pinned, so that pip takes the CPU build where one is offered.
$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@

serve: $(VENV)/.installed-serve
	$(BIN)/inkstone serve --port $(PORT)

# The browser tests need Chromium; where it cannot be installed they skip and say so.
.PHONY: chromium
chromium:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-noto-cjk >/dev/null; } || \
	echo "Chromium could not be installed: the browser tests will skip." >&2

test: $(VENV)/.installed-dev chromium
	$(BIN)/python -m pytest -n 2 --dist loadgroup -q

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

# Every figure the project states comes from here, alone on the machine, please: all tables (hours; `make -k bench` goes on
# after one that failed), or one of them, as in `make bench-multi30k ARGS="--seeds 1 2 3"`.
.NOTPARALLEL:
BENCHES := $(patsubst benchmarks/%.py,bench-%,$(wildcard benchmarks/*.py))
bench: $(BENCHES)
$(BENCHES): bench-%: $(VENV)/.installed-dev
	@echo "== benchmarks/$*.py"; $(BIN)/python benchmarks/$*.py $(ARGS)

# Rebuild the workbench (needs Node.js); the built files are committed.
page:
	cd workbench && npm ci --no-audit --no-fund && npm run build

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache workbench/node_modules
