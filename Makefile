# Everything sets itself up in .venv; a second run installs nothing.
PYTHON ?= python3
PIP = .venv/bin/python -m pip install --disable-pip-version-check -q -c constraints.txt
RUN = .venv/bin/python
INPUTS = setup.cfg pyproject.toml constraints.txt

.PHONY: quickstart test test-all check clean

quickstart: .venv/demo  ## prepare Iconclass, fine-tune MiniLM on it, evaluate, export, show predictions
	.venv/bin/dexml prepare iconclass
	$(RUN) train.py configs/Iconclass/quickstart.yaml
	$(RUN) utils/quickstart_report.py configs/Iconclass/quickstart.yaml

test: check  ## lint, types and the test suite
	$(RUN) -m pytest -n 2 -q -m "not heavy"

test-all: check  ## the same with the tests that take minutes
	$(RUN) -m pytest -n 2 -q

check: .venv/dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dexml needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

# torch first and alone: its build is chosen before anything else can ask for one
.venv/demo: .venv/bin/python $(INPUTS)
	$(PIP) torch
	$(PIP) -e '.[demo,report,serve]'
	touch $@

.venv/dev: .venv/demo
	$(PIP) -e '.[dev]'
	touch $@

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
