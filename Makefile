# All that is needed is Python 3.11 or newer, git and make; the rest is set up by the first target that needs it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Without byte code every Airflow process compiles all of Airflow again.
unexport PYTHONDONTWRITEBYTECODE
unexport PYTHONPATH

# The machine's own uv, or a private one: plain pip takes minutes for Airflow, uv seconds.
UV := $(or $(shell command -v uv),.uv/bin/uv)
UV_VERSION := 0.13.9
# The first of these that the package and Airflow run on.
PYTHON = $(or $(shell for python in python3 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null \
	&& command -v "$$python" && break; done),$(error Python 3.11 to 3.14 is needed, as python3, python3.13, .12 or .11))
BIN := .venv/bin

.PHONY: help venv format lint test browser-test docs fuzz demo system-test system-test-distributed matrix bench bench-dataset bench-load bench-gallery package requirements clean

help: ## Show what there is
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' Makefile | expand -t 25

venv: .venv/installed ## Set up .venv with everything pinned, and the package editable

.uv/bin/uv:
	$(PYTHON) -m venv --clear .uv || { echo "Python's venv module is needed (Debian: python3-venv), or uv."; exit 1; }
	.uv/bin/pip install --quiet uv==$(UV_VERSION)

.venv/installed: requirements-dev.txt pyproject.toml | $(UV)
	test -x $(BIN)/python || $(UV) venv --quiet --clear --python $(PYTHON) .venv
	$(UV) pip sync --quiet --python $(BIN)/python --compile-bytecode requirements-dev.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable '.[emulator]'
	touch $@

format: venv ## Format the code and sort imports
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

lint: venv ## Linters and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict -p airflow_provider_ideogram -p dev

# Coverage starts before pytest, whose plugins include the package's own. The browser tests run in a process of their
# own, since Playwright keeps an event loop running in it.
test browser-test docs: export AIRFLOW_HOME := $(CURDIR)/.airflow-test
test browser-test: export AIRFLOW__CORE__LOAD_EXAMPLES := False
test: lint docs ## Linters, types, documentation and all tests, with branch coverage
	if test -x /usr/bin/chromium; then $(BIN)/python -m pytest tests/browser; fi
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses=auto --dist=worksteal --ignore=tests/browser
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

browser-test: venv | /usr/bin/chromium ## Look at the gallery and the connection form in Chromium (SCREENSHOTS=folder)
	$(BIN)/python -m pytest tests/browser

/usr/bin/chromium:
	apt-get update && apt-get install --yes --no-install-recommends chromium \
		|| { echo "Chromium is needed as $@ (Debian, as root: apt-get install chromium)."; exit 1; }

docs: venv ## Build the documentation site in docs/_build/html, without the network
	rm -rf docs/_build docs/_reference
	$(BIN)/sphinx-build -c docs -q -n -W --keep-going . docs/_build/html

# Atheris has wheels for some Pythons and machines only, so it is none of the pinned set.
.fuzz/installed: | .venv/installed
	$(UV) pip install --quiet --python $(BIN)/python --only-binary :all: --target .fuzz/lib 'atheris>=3,<4' \
		|| { mkdir -p .fuzz; echo "There is no Atheris for this Python: Hypothesis draws the examples alone."; }
	touch $@

fuzz: export AIRFLOW_HOME := $(CURDIR)/.airflow-test
fuzz: venv .fuzz/installed ## Fuzz what reads answers, datasets, images and connections for 10 minutes (SECONDS=..., SEED=...)
	PYTHONPATH=.fuzz/lib exec $(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),600) --seed $(or $(SEED),1)

demo: venv ## Make a night's images on a real Airflow, with a local API and a local S3
	exec $(BIN)/python -m dev.demo

system-test: venv ## Make 1,000 images under kill -9 and faults of every kind (IMAGES=..., SEED=...), and compare the books
	exec $(BIN)/python -m tests.system

system-test-distributed: venv ## The same on Celery, Redis and PostgreSQL, whose machines and servers die (IMAGES=..., SEED=...)
	exec $(BIN)/python -m tests.system.distributed

matrix: venv | $(UV) ## Tests and an end-to-end DAG on Airflow 2.11 to 3.3 (VERSIONS="2.11 lowest"), into docs/versions.md
	exec $(BIN)/python -m dev.matrix --uv $(UV) $(VERSIONS)

bench: .venv-bench/installed ## Measure polling, noticing, parsing, the way to S3 and real Airflow (ARGS="polls --loads 20000")
	.venv-bench/bin/python -m benchmarks $(ARGS)

bench-dataset: venv ## Measure a dataset of 5,000 prompts on real Airflow (ARGS="--prompts 500")
	exec $(BIN)/python -m benchmarks.dataset $(ARGS)

bench-load: .venv-bench/installed ## Run 24 hours of nightly work in fast motion, and watch memory, files and sockets (ARGS="--hour-seconds 60")
	exec .venv-bench/bin/python -m benchmarks.load $(ARGS)

bench-gallery: .venv-bench/installed | /usr/bin/chromium ## Measure how long the gallery of 2,000 images takes to open
	exec .venv-bench/bin/python -m benchmarks.gallery

# What is compared with, and what draws the plots, beside what .venv has.
.venv-bench/installed: benchmarks/requirements.txt pyproject.toml | $(UV)
	test -x .venv-bench/bin/python || $(UV) venv --quiet --clear --python $(PYTHON) .venv-bench
	$(UV) pip sync --quiet --python .venv-bench/bin/python --compile-bytecode benchmarks/requirements.txt
	$(UV) pip install --quiet --python .venv-bench/bin/python --no-deps --editable '.[emulator]'
	touch $@

package: venv | $(UV) ## Build wheel and sdist, and try the wheel with nothing but Airflow
	rm -rf dist
	$(BIN)/python -m build >/dev/null
	$(BIN)/twine check --strict dist/*
	$(UV) venv --quiet --clear --python $(PYTHON) .venv-package
	$(UV) pip install --quiet --python .venv-package/bin/python --compile-bytecode --constraints requirements-dev.txt dist/*.whl
	$(BIN)/python -m dev.package_check

requirements: | $(UV) ## Pin the newest versions in requirements-dev.txt
	$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 \
		--no-emit-index-url --no-header --no-annotate \
		--extra emulator --extra parquet --output-file requirements-dev.txt pyproject.toml requirements-dev.in
	$(UV) pip compile --quiet --universal --python-version 3.11 \
		--no-emit-index-url --no-header --no-annotate --constraints requirements-dev.txt \
		--extra emulator --extra parquet --output-file benchmarks/requirements.txt pyproject.toml requirements-dev.in benchmarks/requirements.in

clean: ## Remove everything that make made
	rm -rf .venv .venv-bench .venv-package .venv-matrix .fuzz .uv .airflow-test demo-output docs/_build docs/_reference dist build .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
