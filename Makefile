# Two commands on a fresh machine: `make demo` and `make test`. Both need Python >= 3.10, pip and a package registry.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-fast lint format docs pretrained clean

demo: $(STAMP)
	$(BIN)/deri demo --out runs/demo

# The built-in models and their calibrations anew, in src/deri/models/pretrained. Takes about three hours on two cores
# (deri-sim 80 minutes, deri-open 40, the twin that it is calibrated by 40), 15 GB of disk, and for deri-open and for
# calibrations the recordings of PTB-XL: make pretrained PTBXL=folder.
pretrained: $(STAMP)
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

# torch first and pinned: a plain `torch` can pull gigabytes of GPU libraries that nothing here needs.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,docs,all]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) runs build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
