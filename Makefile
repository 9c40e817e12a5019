# Every target sets up what it needs in its own .venv; nothing is installed elsewhere.
RECIPE ?= fashion-mini
RUN    ?= runs/$(RECIPE)
BUNDLE ?= bundles/$(RECIPE)
REPORT ?= reports/$(RECIPE)
PYTHON ?= python3

VENV := .venv
BIN  := $(VENV)/bin
# One process a core, one thread each.
PYTEST := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses auto --dist loadfile
# What is rebuilt here must not be left half done.
.DELETE_ON_ERROR:
.PHONY: help distill export verify teacher test test-all check format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  RECIPE=$(RECIPE) RUN=$(RUN) BUNDLE=$(BUNDLE) REPORT=$(REPORT) PYTHON=$(PYTHON)"

distill: $(RUN)/summary.json ## train the student of RECIPE into RUN, unless it is there

export: $(BUNDLE)/manifest.json ## export RUN to BUNDLE, unless it is there

verify: $(BUNDLE)/manifest.json ## attack the exported artifact; report and evidence in REPORT (the last one is kept beside)
	@if [ -e $(REPORT)/report.json ]; then rm -rf $(REPORT).previous && mv $(REPORT) $(REPORT).previous; fi
	$(BIN)/edgeproof verify $(BUNDLE) --out $(REPORT)

$(RUN)/summary.json: | $(VENV)/main-job
	$(BIN)/edgeproof distill $(RECIPE) --out $(RUN)

$(BUNDLE)/manifest.json: $(RUN)/summary.json | $(VENV)/main-job
	$(BIN)/edgeproof export $(RUN) --out $(BUNDLE)

teacher: $(VENV)/main-job ## train the teacher of fashion-mini again (downloads Fashion-MNIST; DATA=dir if you have it)
	$(BIN)/edgeproof teach fashion-teacher --out runs/fashion-teacher --data-root $(or $(DATA),data)

test: $(VENV)/develop ## the fast tests
	$(PYTEST)

test-all: $(VENV)/develop ## the slow tests too
	$(PYTEST) -m ""

check: $(VENV)/develop ## format, lint, types, import boundaries, Python 3.10 syntax, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.10 runtime
	$(BIN)/lint-imports
	$(PYTEST) -m "not slow or check"

format: $(VENV)/develop ## format and mend what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove the environment and the caches, no runs, bundles or reports
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/python: 
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "edgeproof trains on Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/main-job: pyproject.toml | $(VENV)/python
	$(BIN)/python -m pip install --quiet --editable '.[train]'
	touch $@

$(VENV)/develop: pyproject.toml | $(VENV)/main-job
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
