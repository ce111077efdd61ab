# Two commands: `make demo` runs the pipeline, `make test` the tests. Both set up first.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
# Told to every program: nothing is sent home.
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: setup demo demo-openai compare test lint types clean

setup: $(INSTALLED)

# --no-deps: the lock is complete, and some packages name others that would pull in CUDA.
$(INSTALLED): requirements/cpu.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps -r requirements/cpu.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

demo: setup
	dvc repro
	@echo && cat plots/table.txt
	@echo && echo "Predictions: data/predictions/ARM.parquet   metrics: metrics/   plots: plots/*.png"

# The openai arm against a server on this machine, with SmolLM2 behind it: no key, no cost.
demo-openai: setup
	$(BIN)/python tests/demo_openai.py

# The experiments side by side: the params in which they differ, and the arms' scores.
SHOWN_ELSEWHERE := (catalogue|ingest|stratify|index|retrieve|prompts|base_model|train_llama|train_openai|infer|postprocess|evaluate|scores|costs)\.
FILES := data/|metrics/|models/|plots
compare: setup
	dvc exp show --only-changed --drop \
	  '$(SHOWN_ELSEWHERE)|$(FILES)|.*\.(low|high|supergroup|group)$$|Created|State|Executor'

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

# Everything the pipeline wrote; the cache and the environment stay.
clean:
	rm -rf data models plots
