# Each target sets up what it needs: a virtual environment from the lock file, once.
VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONPATH := $(CURDIR)

.PHONY: demo test test-packages test-slow fuzz bench lint format lock clean

demo: $(VENV)/.runtime
	snakemake --cores all --rerun-incomplete --quiet host reason
	@python -m voxmill.evaluation results

# Without the tests that take more than a minute each; `make test-slurm` and `make test-slow` run them.
test: $(VENV)/.dev lint test-packages
	python -m pytest -n 2 --dist loadfile -m "not slow"

# Where root and Debian or Ubuntu; else the tests that need them skip, and say why.
test-packages:
	-@tests/install.sh slurm
	-@tests/install.sh aarch64

test-slow: $(VENV)/.dev
	python -m pytest -m slow --ignore tests/slurm

# Damaged and hostile files of every kind, drawn anew each time: CASES of each, some hours at 5000.
fuzz: $(VENV)/.dev
	VOXMILL_FUZZ_CASES=$(or $(CASES),5000) python -m pytest tests/fuzz

lint: $(VENV)/.dev
	ruff check .
	ruff format --check .
	mypy
	lint-imports --no-cache
	snakefmt --check Snakefile rules
	snakemake --lint

format: $(VENV)/.dev
	ruff check --fix .
	ruff format .
	snakefmt Snakefile rules

$(VENV)/.venv:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.runtime: requirements.lock | $(VENV)/.venv
	$(PIP) install --quiet -r requirements.lock
	python -m voxmill.engine.build
	touch $@

$(VENV)/.dev: requirements-dev.lock requirements-readers.lock $(VENV)/.runtime
	$(PIP) install --quiet -r requirements-dev.lock
	$(PIP) install --quiet --no-deps -r requirements-readers.lock
	touch $@

# The lock files anew, from a fresh environment with the newest versions that requirements*.txt admit.
lock:
	rm -rf .lock && $(PYTHON) -m venv .lock
	.lock/bin/python -m pip install --quiet -r requirements.txt
	.lock/bin/python -m pip freeze | sed 's/+cpu$$//' > requirements.lock
	.lock/bin/python -m pip install --quiet -r requirements-dev.txt
	.lock/bin/python -m pip freeze | sed 's/+cpu$$//' | grep -vxFf requirements.lock \
	  > requirements-dev.lock
	rm -rf .lock

# Voxels a second and peak memory of every backend and of the peers; ten to fifteen minutes on an idle machine.
bench: $(VENV)/.runtime
	$(PIP) install --quiet --no-deps -r benchmarks/requirements.txt
	python benchmarks/engine.py --output results/benchmarks --longest 40 --timeout 150

include make/slurm.mk
include make/docs.mk

clean:
	rm -rf results logs .snakemake .cache site
