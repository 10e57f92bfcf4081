# make run | test | lint | bench | prove: nothing else to remember.

PYTHON ?= python3
BIN := .venv/bin
UV_VERSION := 0.13.8
# The environment belongs to this checkout; a shared cache would tie it to the machine's layout.
UV := UV_PROJECT_ENVIRONMENT=.venv UV_COMPILE_BYTECODE=1 $(BIN)/uv
# One more than two cores keep busy: tests often wait for PostgreSQL, a browser or the disk.
PYTEST_WORKERS ?= 3

# Where nothing compiled is kept, every start compiles everything again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run test lint bench prove clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/run.stamp ## Start with demo data on SQLite (http://127.0.0.1:8787)
	@exec $(BIN)/counterfoil demo

test: .venv/dev.stamp ## Run every test, on SQLite and PostgreSQL
	@tests/install-peers
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadgroup

lint: .venv/dev.stamp ## Format, style, types, floors, and generated documents
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m counterfoil.describe --check docs/data-model.md
	$(BIN)/python -m counterfoil.cli.describe --check docs/cli.md
	$(BIN)/python -m counterfoil.cli.describe_access --check docs/access.md

bench: .venv/dev.stamp ## Measure; prints a table, asserts nothing
	$(BIN)/python -m benchmarks

prove: .venv/dev.stamp ## Compare the books with a model over 50,000 made-up steps: some 20 minutes
	COUNTERFOIL_PROVE_STEPS=25000 $(BIN)/python -m pytest -n $(PYTEST_WORKERS) tests/promises/test_books.py

clean: ## Forget the environment and the caches; ./var stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .tools

.venv/uv.stamp:
	$(PYTHON) -c 'import sys; sys.exit("Counterfoil needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv==$(UV_VERSION)'
	@touch $@

.venv/run.stamp: .venv/uv.stamp pyproject.toml uv.lock
	$(UV) sync --frozen --no-dev --inexact --quiet
	@touch $@

.venv/dev.stamp: .venv/uv.stamp pyproject.toml uv.lock
	$(UV) sync --frozen --inexact --quiet
	@touch $@ .venv/run.stamp
