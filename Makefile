# make demo    train, prune and measure a spiking network on the embedded data; writes runs/demo/report.html
# make test    the whole test suite
# make lint    style, types and import contracts
# Each sets up its own virtual environment in .venv on first use and reuses it after.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt

.PHONY: demo test lint format slow bench wheel clean

demo: $(VENV)/.recipes
	$(BIN)/spikeprune run demo --seeds 3 --fresh

# Files are shared out over at most four processes of one thread each: small networks gain nothing by more.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

bench: $(VENV)/.dev
	$(BIN)/python -m pytest benchmarks -m slow -s

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(VENV)/.dev
	rm -rf dist
	$(BIN)/python -m build --wheel

clean:
	rm -rf $(VENV) dist build

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "spikeprune needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.recipes: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[recipes]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[dev]'
	touch $@ $(VENV)/.recipes

# The figures of results/. Needs MNIST and Fashion-MNIST; see docs/guides/data.md. The recipes take some twenty minutes on two
# cores, each study about an hour; a study's threads are fixed, since sums in another order train another network.
RECIPES := cqp-fc1-oneshot cqp-fc1-rounds cqp-mnist cqp-fashion
STUDIED := mnist fashion-mnist
.PHONY: results studies
studies: $(VENV)/.dev
	for data in $(STUDIED); do \
	  OMP_NUM_THREADS=1 $(BIN)/spikeprune study cqp --data $$data && mkdir -p results/cqp && \
	  cp runs/study-cqp-$$data/report.md results/cqp/$$data.md && cp runs/study-cqp-$$data/report.json results/cqp/$$data.json || exit 1; \
	done

results: $(VENV)/.recipes
	for recipe in $(RECIPES); do \
	  $(BIN)/spikeprune run $$recipe --seeds 3 && cp runs/$$recipe/report.md results/$$recipe.md && cp runs/$$recipe/report.json results/$$recipe.json || exit 1; \
	done
