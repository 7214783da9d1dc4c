# make demo | test | lint | bench | docs | check | install | clean
# Everything runs in .venv, which is made on first use and needs only Python (3.10 to 3.13) with venv.
# PYTHON=... chooses the interpreter that .venv is made from; ARGS=... is passed on to demo, test, bench and docs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --constraint constraints.txt
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
INSTALLED_DOCS := $(VENV)/.installed-docs
INSTALLED_ALL := $(VENV)/.installed-all

.PHONY: demo test lint bench docs check install clean
.DELETE_ON_ERROR:

demo: $(INSTALLED)
	$(BIN)/python examples/learn_softness.py $(ARGS)

# What .ci/run checks, in its order; the first that fails ends it.
check:
	$(MAKE) lint
	$(MAKE) docs
	$(MAKE) test

# Everything that the targets below need.
install: $(INSTALLED_ALL)

# pytest once for each configuration (Taichi allows one backend and precision a process); fails if any fails.
test: $(INSTALLED)
	$(BIN)/python tests/run_configurations.py $(ARGS)

# Style, layout, spelling and types.
lint: $(INSTALLED_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

bench: $(INSTALLED)
	$(BIN)/python benchmarks/run.py $(ARGS)

# The site of the documentation, in site/; fails at the first warning, a broken link among them.
docs: $(INSTALLED_DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)
	@echo "Open site/index.html"

clean:
	rm -rf $(VENV) out build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	@echo "Installing into $(VENV): torch, Taichi and what they need; the first time takes a few minutes."
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[test]'
	@touch $@

$(INSTALLED_DEV): $(INSTALLED)
	$(PIP) --quiet --editable '.[test,dev]'
	@touch $@

$(INSTALLED_DOCS): $(INSTALLED)
	$(PIP) --quiet --editable '.[docs]'
	@touch $@

$(INSTALLED_ALL): pyproject.toml constraints.txt
	@echo "Installing everything into $(VENV); the first time takes a few minutes."
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[test,dev,docs]'
	@touch $(INSTALLED) $(INSTALLED_DEV) $(INSTALLED_DOCS) $@
