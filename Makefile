# A thin front: every target makes .venv when needed, so nothing else has to be typed.
VENV := .venv
PYTHON ?= python3
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export HF_HUB_DISABLE_TELEMETRY := 1
CORES ?= $(shell nproc)
DEMO := --configfile config.yaml config/demo.yaml

.DEFAULT_GOAL := help
.PHONY: help demo smoke test test-full test-offline test-slurm test-faults test-fresh test-lowest audit lint format bench gpu gpu-pack schema lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/ready ## the whole workflow on drawn objects: no data, no weights, no GPU
	snakemake --cores $(CORES) --resources gpu=$(CORES) $(DEMO)
	@echo "Open results/demo/report/index.html; the tables are beside it (demo, not a replication)."

smoke: $(VENV)/ready ## every rule of it, at its smallest size
	snakemake --cores $(CORES) --resources gpu=$(CORES) $(DEMO) config/smoke.yaml

test: $(VENV)/ready ## the tests
	pytest -n 2 --dist loadfile

test-full: $(VENV)/ready ## the slow tests too
	pytest -m "not cluster"

# The tests where there is no network but loopback; wants root or user namespaces.
test-offline: $(VENV)/ready ## the tests without a network
	unshare $$([ "$$(id -u)" = 0 ] || echo --map-root-user) --net sh -c 'ip link set lo up && exec pytest -n 2 --dist loadfile'

# Faults done for real, the slow ones too; prints what was tried how often, what was lost and what was torn.
test-faults: $(VENV)/ready ## faults done for real, the slow ones too
	pytest tests/faults -m "not cluster"

# The wheel in an environment of its own, and in a fresh Debian, which wants root and mmdebstrap: README.md's first commands,
# the Containerfile's steps.
test-fresh: $(VENV)/ready ## wheel, container and README on a fresh Debian
	pytest tests/packaging -m "not cluster" -rs

# The tests with the lowest versions that pyproject.toml allows, in .venv-lowest.
test-lowest: $(VENV)/ready ## the tests with the lowest versions that are allowed
	uv venv --quiet --clear --python $(VENV)/bin/python .venv-lowest
	uv pip install --quiet --resolution lowest-direct --python .venv-lowest/bin/python --group dev -e .[slurm]
	PATH="$(CURDIR)/.venv-lowest/bin:$$PATH" pytest -n 2 --dist loadfile

# Known vulnerabilities of the locked versions; asks PyPI about each of them.
audit: $(VENV)/ready ## known vulnerabilities of the locked versions
	uvx pip-audit -r requirements.lock --no-deps --disable-pip

# Many jobs of a real Snakemake: on pretended devices, and on a real SLURM, which this installs where apt-get may.
test-slurm: $(VENV)/ready ## many jobs of a real Snakemake, some under a real SLURM
	python -m tests.workflow.slurm install
	pytest -m cluster -rs tests/workflow

lint: $(VENV)/ready ## what CI checks without running anything
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	snakefmt --check Snakefile workflow/Snakefile workflow/rules
	python -m tests.workflow.lint

format: $(VENV)/ready ## what ruff and snakefmt mend by themselves
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow/Snakefile workflow/rules

schema: $(VENV)/ready ## the JSON Schema of config.yaml anew
	dfeat schema --out workflow/schemas/config.schema.json

bench: $(VENV)/ready ## benchmarks against peers
	python -m bench

# The tests marked gpu and `bench gpu`, in nine minutes at most, on a machine with torch, a card and little else: no network,
# no Snakemake. .venv is taken where it is, else this machine's Python with what gpu-pack packed.
OUT ?= results/make-gpu
gpu: ## tests and benchmark on a machine with a card
	$(PYTHON) -m tools.gpu --out $(OUT) $(GPU_OPTIONS)

# The wheels that such a machine lacks, into .wheels; GPU_LACKS="package ..." names others than the default ones.
GPU_PYTHON ?= 3.12
gpu-pack: ## the wheels that such a machine lacks
	$(PYTHON) -m tools.gpu.wheels --python $(GPU_PYTHON) $(GPU_LACKS)

$(VENV)/ready: uv.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	pip install --quiet uv
	UV_PROJECT_ENVIRONMENT=$(VENV) uv sync --quiet --frozen --inexact --all-extras --compile-bytecode --python $(VENV)/bin/python
	touch $@

# The versions that pyproject.toml allows, locked: uv.lock for uv, requirements.lock for whatever else installs.
lock: $(VENV)/ready ## uv.lock and requirements.lock anew
	uv lock
	uv export --quiet --frozen --all-extras --all-groups --no-hashes --no-emit-project --no-header --no-annotate -o requirements.lock

clean: ## remove results and Snakemake's records
	rm -rf results .snakemake
