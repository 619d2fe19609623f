# Two commands on a fresh machine: `make demo` and `make test`. Both need Python >= 3.10, pip and a package registry.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-fast test-lowest lint audit lock format docs pretrained clean

demo: $(STAMP)
	$(BIN)/deri demo --out runs/demo

# The built-in models and their calibrations anew, in src/deri/models/pretrained. Takes about three hours on two cores
# (deri-sim 80 minutes, deri-open 40, the twin that it is calibrated by 40), 15 GB of disk, and for deri-open and for
# calibrations the recordings of PTB-XL: make pretrained PTBXL=folder.
pretrained: $(STAMP)
	$(BIN)/python tools/known_texts.py
	$(BIN)/python tools/pretrained.py deri-sim $(if $(PTBXL),--ptb-xl "$(PTBXL)")
	@test -n "$(PTBXL)" || { echo "deri-open needs PTB-XL: make pretrained PTBXL=folder (deri download ptb-xl)"; exit 1; }
	$(BIN)/python tools/pretrained.py deri-open --ptb-xl "$(PTBXL)"

# A process per core (four at most) that takes whole files of tests, with one thread of torch each.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(STAMP)
	$(PYTEST) --slow

test-fast: $(STAMP)
	$(PYTEST)

lint: $(STAMP)
	$(BIN)/ruff check src tests benchmarks tools
	$(BIN)/ruff format --check src tests benchmarks tools
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site in build/docs, offline, warnings as errors.
docs: $(STAMP)
	$(BIN)/python tools/docs.py build/docs

format: $(STAMP)
	$(BIN)/ruff check --fix src tests benchmarks tools
	$(BIN)/ruff format src tests benchmarks tools

PIP := python -m pip install --quiet --disable-pip-version-check

# torch first and pinned: a plain `torch` can pull gigabytes of GPU libraries that nothing here needs. With LOCKED=1 what
# is installed has the hashes of requirements.lock: Python 3.11, CPU, Linux on x86-64. The rest by uv, which takes half a
# minute where pip takes four; by pip where there is no uv, it reaches no index, or pip has another one than PyPI.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
ifdef LOCKED
	$(BIN)/$(PIP) --require-hashes --no-deps -r requirements.lock
	$(BIN)/$(PIP) --no-deps -e .
else
	$(BIN)/$(PIP) -c constraints.txt torch
	{ test -z "$$PIP_INDEX_URL$$($(BIN)/python -m pip config get global.index-url 2>/dev/null)" && $(BIN)/$(PIP) "uv>=0.6" && \
	  $(BIN)/uv pip install --quiet --native-tls --python $(BIN)/python \
	  -c constraints.txt -e ".[dev,docs,all]"; } || $(BIN)/$(PIP) -c constraints.txt -e ".[dev,docs,all]"
endif
	touch $(STAMP)

# What looks at environments from outside of them.
TOOLS := build/tools
$(TOOLS)/.installed:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/$(PIP) "pip-audit>=2.7" "pip-licenses>=5.0" "uv>=0.6"
	touch $@

# Known vulnerabilities and licences of what is installed.
audit: $(STAMP) $(TOOLS)/.installed
	$(TOOLS)/bin/python tools/audit.py $(TOOLS) $(VENV)

# WHEELS: a folder or page with torch for CPUs, where the package index has that for GPUs alone.
lock: $(TOOLS)/.installed
	$(TOOLS)/bin/uv pip compile pyproject.toml --extra dev --extra docs --extra all -c constraints.txt \
	  --python-version 3.11.7 --generate-hashes --no-annotate --no-header --quiet $(if $(WHEELS),--find-links $(WHEELS)) \
	  -o requirements.lock

# The quick tests with the oldest versions that pyproject.toml accepts, but torch: that of constraints.txt. Without peft,
# whose own dependencies ask for a newer transformers; uv begins with the newest click and would end at transformers 5.
LOWEST := build/lowest
test-lowest: $(TOOLS)/.installed
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/$(PIP) -c constraints.txt torch
	$(TOOLS)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct \
	  -e ".[formats,offline,serve,track]" "transformers<5"
	$(TOOLS)/bin/uv pip freeze --python $(LOWEST)/bin/python | grep == > $(LOWEST)/kept.txt
	$(TOOLS)/bin/uv pip install --quiet --python $(LOWEST)/bin/python -c $(LOWEST)/kept.txt pytest pytest-timeout \
	  pytest-xdist hypothesis wfdb pyedflib sierraecg httpx schemathesis nltk pycocoevalcap import-linter \
	  sacrebleu rouge-score
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

clean:
	rm -rf $(VENV) runs build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
