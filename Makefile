# make demo: the main job on the embedded data. make test: the CPU suite. Both need only
# Python 3.10 or newer; everything else goes into .venv.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt

.PHONY: demo test coverage engines lint docs audit clean
.DEFAULT_GOAL := help

.PHONY: help
help:
	@echo "make demo   train, sparsify, quantize, export, verify and build the digits engine"
	@echo "make test   run the CPU test suite"
	@echo "make coverage  the same, and which lines no test runs"
	@echo "make engines  every reference architecture, in each of its forms, through NVIDIA's compiler"
	@echo "make lint   ruff and mypy"
	@echo "make audit  known vulnerabilities of what is installed, over the network"
	@echo "make docs   the documentation as a site, in site/"

demo: $(VENV)/.train $(VENV)/.rtx
	$(BIN)/trt-qat run engines/digits-int8-24.toml

# Each process takes a stretch of the files, and whoever is done takes half of what another has left.
test: $(VENV)/.dev $(VENV)/.rtx
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

# For a part of the tests: coverage run -m pytest tests/lint, then the other two.
# The second run: what only several processes do, and tests that are slow therefore (a minute).
coverage: $(VENV)/.dev $(VENV)/.rtx
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n auto --maxprocesses 4 --dist worksteal
	$(BIN)/coverage run -m pytest -m slow tests/pipeline/test_ranks.py -k "leave_the_run or says_it_once"
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --precision=1 --fail-under=95

# Most of the time goes into exports: a network a worker, which exports it once.
engines: $(VENV)/.dev $(VENV)/.rtx
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadgroup -m "" \
	  tests/engine/build/test_references.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Asks the advisory service of PyPI about every version in constraints.txt; CI may have no way to it.
audit: $(VENV)/.python
	@awk '!/^#/ && NF == 1 { print FILENAME ": " $$1 " has no reason"; exit 1 }' audit-allow.txt
	$(PIP) pip-audit
	$(BIN)/pip-audit --no-deps --disable-pip -r constraints.txt \
	  $$(awk '!/^#/ && NF { print "--ignore-vuln", $$1 }' audit-allow.txt)

# Warnings are errors: a link that leads nowhere, a name without a docstring.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) runs site

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "trt-qat needs Python 3.10 or newer as '$(PYTHON)'; apt install python3, or name" \
	       "another with: make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments; apt install python3-venv" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# torch first and by its exact version: asked for by a range, pip may take a build for CUDA.
$(VENV)/.torch: constraints.txt | $(VENV)/.python
	$(PIP) torch==2.13.0
	@touch $@

$(VENV)/.train: pyproject.toml constraints.txt | $(VENV)/.torch
	$(PIP) -e '.[train]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.torch
	$(PIP) -e '.[train,dev]'
	@touch $@

$(VENV)/.docs: pyproject.toml constraints.txt | $(VENV)/.dev
	$(PIP) -e '.[docs]'
	@touch $@

# NVIDIA's TensorRT for RTX, under NVIDIA's licence, where there is a wheel for this platform. Where
# there is none, or no way to it, the stage that builds and its tests are skipped with the reason.
$(VENV)/.rtx: pyproject.toml constraints.txt | $(VENV)/.torch
	@$(PIP) -e '.[rtx]' || echo "TensorRT for RTX could not be installed: no engine is built here" >&2
	@touch $@
