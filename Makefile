# Two commands: `make demo` runs the pipeline, `make test` the tests. Both set up first.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
# Told to every program: nothing is sent home.
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: setup servers demo demo-openai share-demo rescore compare faults locks licences test test-slow test-all lint types clean prune

setup: $(INSTALLED)

# --no-deps: the lock is complete, and some packages name others that would pull in CUDA. pip compares the hashes; torch has
# none, for which build is taken depends on the index.
$(INSTALLED): requirements/torch.txt requirements/cpu.txt requirements/share.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps -r requirements/torch.txt
	$(BIN)/python -m pip install --quiet --no-deps -r requirements/cpu.txt -r requirements/share.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

# The pipeline on params.yaml's data, the demo as shipped. It asks the language models about a sample of the test rows
# (run.pilot_rows); `make demo FULL=1` about all of them.
demo: setup
	$(if $(FULL),dvc exp run --set-param run.pilot_rows=null,dvc repro)
	@echo && tillmap summary
	@echo "Predictions: data/predictions/ARM.parquet   metrics: metrics/   pictures: plots/*.png"

# The openai arm against a server on this machine, with SmolLM2 behind it: no key, no cost.
demo-openai: setup
	$(BIN)/python tests/demo_openai.py

# Push to a folder, clone afresh, pull, score again, fetch a named model: on a small copy, with the language models off.
share-demo: setup
	$(BIN)/python tests/demo_share.py

# Where no model and no GPU is: pulls what the stages from postprocess on need and reruns just these, or refuses.
# make rescore SET="postprocess.min_similarity=0.4 evaluate.resamples=500"
rescore: setup
	TILLMAP_ONLY="postprocess vote review evaluate" dvc exp run --pull --allow-missing $(addprefix --set-param ,$(SET)) evaluate

# The experiments side by side: the params in which they differ, and the arms' scores.
SHOWN_ELSEWHERE := (catalogue|ingest|stratify|index|retrieve|prompts|base_model|train_linear|train_llama|train_openai|infer|postprocess|evaluate|scores|costs)\.
OF_MERGED := cascade\.(trial\.|calls|llm_seconds|usd|estimated|(prompt|cached|completion)_tokens|rows|seconds|peak|threshold|coverage|expected|to_|max_usd|llm).*
FILES := data/|metrics/|models/|plots
compare: setup
	dvc exp show --only-changed --drop \
	  '$(SHOWN_ELSEWHERE)|$(OF_MERGED)|$(FILES)|.*\.(low|high|supergroup|group)$$|Created|State|Executor'

# The tests push to an SSH server, too, where there is one. Needs root where it is to be installed.
SSHD := $(shell PATH="$$PATH:/usr/sbin:/usr/local/sbin" command -v sshd)
servers:
	$(if $(SSHD),,apt-get update -qq && apt-get install -y -qq --no-install-recommends openssh-server)

# kill -9 and a full disk in every stage, many times; `make test-all` does it a few times.
faults: setup
	$(BIN)/python tests/faults/break_stages.py

# The hashes of the locks anew, after a version in one was changed. Needs uv.
PINS := s/^\([^ \#]*==[^ ;\\]*\).*/\1/p
locks:
	for lock in cpu gpu share; do \
	  sed -n '$(PINS)' requirements/$$lock.txt | \
	  uv pip compile - --quiet --no-deps --no-annotate --generate-hashes --python-version 3.11 \
	    --custom-compile-command 'make locks' --output-file requirements/$$lock.txt || exit 1; \
	done

# The table in docs/licences.md anew, from what is installed.
LOCKED = $(shell sed -n 's/^\([^ \#]*\)==.*/\1/p' requirements/torch.txt requirements/cpu.txt requirements/share.txt)
licences: setup
	sed -i '/^|/d' docs/licences.md
	$(BIN)/pip-licenses --packages $(LOCKED) | grep -v '^|  ' >> docs/licences.md

# Some minutes; it runs the pipeline once, small. What it leaves out (servers, more kills, a full disk, SmolLM2, every
# documented command) is marked slow; `make test-all` runs both.
test: setup
	$(BIN)/python -m pytest

test-slow: setup servers
	$(BIN)/python -m pytest -m slow

test-all: setup servers
	$(BIN)/python -m pytest -m ""

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: setup
	$(BIN)/mypy

# Resume state that nobody used for 30 days: batches, checkpoints.
prune: setup
	$(BIN)/tillmap prune

# Everything the pipeline wrote; the cache and the environment stay.
clean:
	rm -rf data models plots
