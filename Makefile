# Everything a developer types. Each target sets up what it needs: a fresh clone with Python 3.11, make, git and a
# package index is enough, and no virtual environment has to be active. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Where it is set, every process of every test would compile all that it imports: a node, for half a second of its start.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready-for-stellwerk
PYTEST := $(BIN)/python -m pytest -q
# Three at a time: half of the tests wait for processes. Tests of one file stay together, with what they share. The order
# is that of tests/conftest.py, and not by the number of tests: the longest files have few.
PARALLEL := -n 3 --dist loadfile --no-loadscope-reorder

SABOTAGE ?=
STATE ?= .stellwerk/state
ARGS ?=

# Each suite has an end, so that a test which hangs is a failure with a name and not a lost afternoon.
TEST_TIMEOUT := timeout --kill-after=30 600
FAULT_TIMEOUT := timeout --kill-after=30 3600
EXTERNAL_TIMEOUT := timeout --kill-after=30 900

.PHONY: help setup demo test lint types fault external docs bench serve verify clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with everything in it (the other targets do it by themselves)

# The stamp is older than pyproject.toml when a dependency has changed. A .venv whose interpreter has gone is replaced.
$(READY): pyproject.toml
	@if ! $(BIN)/python -c '' 2>/dev/null; then \
	  python=""; \
	  for name in $${PYTHON:-} python3.11 python3 python3.12 python3.13 python3.14; do \
	    if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python="$$name"; break; fi; \
	  done; \
	  if [ -z "$$python" ]; then echo "Python 3.11 or newer is needed; name it: make PYTHON=/path/to/python3.11" >&2; exit 1; fi; \
	  echo "making $(VENV) with $$($$python --version)"; \
	  "$$python" -m venv --clear $(VENV) || { echo "python3-venv is missing? (Debian: apt-get install python3-venv)" >&2; exit 1; }; \
	fi
	@echo "installing Stellwerk and its tools into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip uv
	@# uv is fast but does not read pip's configuration: where an index is known to pip only, pip does it.
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -e . --group dev \
	  || $(BIN)/python -m pip install --quiet --disable-pip-version-check -e . --group dev
	@touch $@

demo: $(READY) ## 300 orders through six Workers while the node is killed twice (SABOTAGE=double-charge|lost-order|early-ack)
	@$(BIN)/python examples/order-pipeline/demo.py $(if $(SABOTAGE),--sabotage $(SABOTAGE)) $(ARGS)

test: $(READY) ## every test but the long and the foreign ones, at most 4 minutes (ARGS="-k name" for some of them)
	@$(TEST_TIMEOUT) $(PYTEST) $(PARALLEL) -m "not fault and not external and not benchmark" $(ARGS) tests

lint: $(READY) ## formatting, lint rules and import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports

types: $(READY) ## mypy --strict over sources and tests
	@$(BIN)/mypy

fault: $(READY) ## long kill tests: nodes and isolates die by the hundred
	@$(FAULT_TIMEOUT) $(PYTEST) -m fault $(ARGS) tests

external: $(READY) ## against foreign clients and servers: wrangler's schema, the official examples (needs npm, network)
	@$(EXTERNAL_TIMEOUT) $(PYTEST) -m external -rs $(ARGS) tests

docs: $(READY) ## draw the generated tables of the documentation anew
	@$(BIN)/python -m docs.generate
	@$(BIN)/python -m stellwerk.cli.reference > docs/cli.md

bench: $(READY) ## measure beside the yardsticks, and write bench/results/ (needs wrk; ARGS="hello steps --rounds 1" for less)
	@$(BIN)/python bench/run.py $(ARGS)

serve: $(READY) ## a node on the folder STATE (default .stellwerk/state)
	@$(BIN)/stellwerk serve --state $(STATE) $(ARGS)

verify: lint types test external ## what CI runs

clean: ## remove .venv and every cache; state folders stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
