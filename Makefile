# Two commands matter: `make demo` and `make test`. Both do all set-up themselves.
# Every path is relative and every tool runs as `python -m`, so a folder with spaces works.

SHELL := /bin/bash
.DEFAULT_GOAL := help
PY := .venv/bin/python
BASE_PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONPATH :=
# Telemetry of every dependency is off (governance/telemetry.py says the same to child processes).
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := 1
export BENTOML_DO_NOT_TRACK := True
export MLFLOW_DISABLE_TELEMETRY := true
export GX_ANALYTICS_ENABLED := false
export EVIDENTLY_DISABLE_TELEMETRY := 1
export RAY_USAGE_STATS_ENABLED := 0
export FEAST_USAGE := False

.PHONY: help setup demo up down test check prove bench clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed 's/:.*## /\t/' | expand -t 10

# One stamp per (pyproject, constraints): a changed pin installs again, an unchanged one costs nothing.
STAMP := .venv/.ready-$(shell cat pyproject.toml deploy/constraints.txt deploy/setup.sh | cksum | cut -d' ' -f1)

$(STAMP):
	@BASE_PYTHON="$(BASE_PYTHON)" bash deploy/setup.sh dev
	@rm -f .venv/.ready-*; touch "$@"

setup: $(STAMP)  ## virtual environment with everything, from deploy/constraints.txt

# Before the set-up, what all of it takes; later runs find the stamp, and `auricle demo` speaks for itself.
TOTALS := demo: in all about 9 GB of disk, 3 GB of it fetched from PyPI as packages (nothing else is fetched), and 10 to 20 minutes on two cores

demo:  ## the main job once round: corpus, pipeline, package, service, transcripts
	@[ -e "$(STAMP)" ] || echo "$(TOTALS)"
	@$(MAKE) --no-print-directory "$(STAMP)"
	@exec $(PY) -m pipelines.cli demo

up: $(STAMP)  ## service and MLflow UI in the background
	@exec $(PY) -m pipelines.cli up

down:  ## stop what `make up` started
	@if [ -x $(PY) ]; then exec $(PY) -m pipelines.cli down; fi

check: $(STAMP)  ## formatting, lint, types, import law
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(PY) -c "import sys; from importlinter.cli import lint_imports_command; sys.argv=['lint-imports']; lint_imports_command()"

test: $(STAMP) check  ## set-up, then every test (at most 15 minutes)
	@OMP_NUM_THREADS=1 $(PY) -m pytest -m "not proof" -n 2 --dist loadfile

prove: $(STAMP)  ## long proofs and benchmarks; writes benchmarks/results/
	@$(PY) -m benchmarks.prove

bench: $(STAMP)  ## the short benchmarks only
	@$(PY) -m benchmarks.prove --short

clean:  ## remove what the pipeline made (not your corpora, not the ledger)
	@rm -rf data/manifests data/tokens data/features data/feast data/priors data/frames data/models data/reports data/code data/cache
