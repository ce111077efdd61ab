# `make demo` runs the pipeline, `make test` runs the tests. Both install what they need first.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
# A machine with an NVIDIA GPU gets its own lock, any other those for CPUs. `make setup GPU=` takes the latter there, too.
GPU := $(shell command -v nvidia-smi)
LOCKS := $(if $(GPU),gpu,torch cpu) share
# No telemetry, from any program
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: setup environment servers demo demo-openai share-demo rescore compare faults fuzz locks licences audit test test-slow test-all pytest-pipeline pytest-library lint types clean prune

setup: $(INSTALLED)

# The programs of an environment hold its path, so it does not work once the project was moved or copied.
environment:
	@made=$$(sed -n 's/^command = .* -m venv //p' $(VENV)/pyvenv.cfg 2>/dev/null); \
	if [ -n "$$made" ] && [ ! "$$made" -ef $(VENV) ]; then \
	  echo "$(VENV) was made as $$made and does not work here; run \`rm -rf $(VENV) && make setup\`" >&2; exit 1; fi

# --no-deps: the locks are complete, and some packages depend on others that would pull in CUDA. pip checks the hashes of
# the locks. torch.txt has none, because torch's build depends on the package index, and is installed apart for that.
$(INSTALLED): $(LOCKS:%=requirements/%.txt) pyproject.toml | environment
	$(PYTHON) -m venv $(VENV)
	for lock in $(LOCKS); do $(BIN)/python -m pip install --quiet --no-deps -r requirements/$$lock.txt || exit 1; done
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

# The pipeline with params.yaml, by default on the demo catalogue. Language models are asked about a sample of the test
# rows (run.pilot_rows), with `make demo FULL=1` about all of them.
demo: setup
	$(if $(FULL),dvc exp run --set-param run.pilot_rows=null,dvc repro)
	@echo && tillmap summary
	@echo "Predictions: data/predictions/ARM.parquet   metrics: metrics/   charts: plots/*.png"
	@echo "The report, for any browser: $(CURDIR)/report/index.html"

# The openai arm with a local server in place of OpenAI, which answers with SmolLM2. Needs no key and costs nothing.
demo-openai: setup
	$(BIN)/python tests/demo_openai.py

# Pushes a small project to a folder, clones it, pulls, scores again and fetches a named model. No language models.
share-demo: setup
	$(BIN)/python tests/demo_share.py

# Pulls what the stages from postprocess on need, and runs only these. For a machine without models and GPU. Example:
# make rescore SET="postprocess.min_similarity=0.4 evaluate.resamples=500"
rescore: setup
	dvc pull stratify retrieve candidates prompts infer postprocess cascade audit
	dvc pull $(patsubst %,data/usage/train_%.json,linear rerank llama openai)
	TILLMAP_ONLY="postprocess evaluate" dvc exp run --allow-missing $(addprefix --set-param ,$(SET)) evaluate

# Compares experiments: the params that differ, and the scores of the arms
SHOWN_ELSEWHERE := (catalogue|ingest|stratify|index|retrieve|candidates|lookup|prompts|base_model|train_linear|train_rerank|train_llama|train_openai|infer|postprocess|audit|evaluate|scores|costs)\.
OF_MERGED := cascade\.(trial\.|calls|llm_seconds|usd|estimated|(prompt|cached|completion)_tokens|rows|seconds|peak|threshold|coverage|expected|to_|max_usd|llm).*
FILES := data/|metrics/|models/|plots
compare: setup
	dvc exp show --only-changed --drop \
	  '$(SHOWN_ELSEWHERE)|$(OF_MERGED)|$(FILES)|.*\.(low|high|supergroup|group)$$|Created|State|Executor'

# The SSH server that some tests push to, and the browser that others open. Installing them needs root.
SSHD := $(shell PATH="$$PATH:/usr/sbin:/usr/local/sbin" command -v sshd)
BROWSER := $(shell command -v chromium || command -v google-chrome)
MISSING := $(if $(SSHD),,openssh-server) $(if $(BROWSER),,chromium)
servers:
	$(if $(strip $(MISSING)),apt-get update -qq && apt-get install -y -qq --no-install-recommends $(MISSING))

# Breaks every stage and command: 200 kills, full and slow disks, too little memory, a clock that jumps. As root, on a disk
# in memory. `make faults FAULTS="--kills 20 --no-models"` is a small one, FAULTS=--help lists the options.
faults: setup
	$(BIN)/python tests/faults/fault_campaign.py $(FAULTS)

# Damages 1,000 files of each kind of input and artifact, and reads them; `make test-all` does so with fewer.
fuzz: setup
	FUZZ_MAX_SECONDS=10 $(BIN)/python tests/fuzz/campaign.py $(KINDS)

# Updates the hashes in the locks, after a version was changed there. Needs uv.
PINS := s/^\([^ \#]*==[^ ;\\]*\).*/\1/p
locks:
	for lock in cpu gpu share; do \
	  sed -n '$(PINS)' requirements/$$lock.txt | \
	  uv pip compile - --quiet --no-deps --no-annotate --generate-hashes --python-version 3.11 \
	    --custom-compile-command 'make locks' --output-file requirements/$$lock.txt || exit 1; \
	done

# Updates the table in docs/licences.md from the installed packages.
LOCKED = $(shell sed -n 's/^\([^ \#]*\)==.*/\1/p' requirements/torch.txt requirements/cpu.txt requirements/share.txt)
licences: setup
	sed -i '/^|/d' docs/licences.md
	$(BIN)/pip-licenses --packages $(LOCKED) | grep -v '^|  ' >> docs/licences.md

# Looks up the locked versions among the known vulnerabilities. Needs the network, and an environment of its own, because
# the auditor's packages are not tillmap's.
audit:
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip install --quiet pip-audit==2.10.1
	for lock in torch cpu share gpu; do \
	  $(VENV)-audit/bin/pip-audit --strict --disable-pip --no-deps -r requirements/$$lock.txt || exit 1; \
	done

# The fast tests, with one small run of the pipeline. `make test-slow` runs the tests that are marked slow (servers, kills,
# full disks, SmolLM2, the documented commands), `make test-all` runs both.
test: SELECT := not slow
test-slow: SELECT := slow
test-all: SELECT := slow or not slow
test: setup
test-slow test-all: setup servers
test test-slow test-all:
	@echo "The tests run in two halves, side by side. Each half is shown when it has ended."
	@$(MAKE) --jobs 2 --output-sync=target --no-print-directory pytest-pipeline pytest-library SELECT="$(SELECT)"

pytest-pipeline:
	$(BIN)/python -m pytest --durations 10 -m "pipeline and ($(SELECT))"

pytest-library:
	$(BIN)/python -m pytest --durations 10 -m "not pipeline and ($(SELECT))"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: setup
	$(BIN)/mypy

# Deletes resume state that was not used for 30 days.
prune: setup
	$(BIN)/tillmap prune

# Deletes everything that the pipeline wrote. The cache, the environment and what people decided are kept.
clean:
	rm -rf models plots report $(filter-out data/corrections% data/decisions%,$(wildcard data/*))
