# `demo` and `test` are for users; the other targets are for developers.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LAVA := lava-nc==0.10.0
# Folder of MNIST; tests that need it are skipped if it is absent.
export LMU_DEPLOY_DATA ?= $(abspath ../shared/data)

# Tests start many processes, which would compile every module again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test coverage lint docs dist format venv clean

demo: venv  ## train, convert, deploy everywhere, and print the path of the report
	$(BIN)/lmu-deploy demo

test: venv  ## the whole suite
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

coverage: venv  ## the whole suite, with the share of lines that it runs
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term

lint: venv  ## style, types, import contracts, sizes, results pages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/count_modules.py
	$(BIN)/python tools/operator_table.py --check
	$(BIN)/python tools/readme_figures.py
	$(BIN)/python benchmarks/results.py --check

docs: venv  ## the site, in site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

dist: venv  ## source distribution and wheel, in dist/
	rm -rf dist
	$(BIN)/python -m build

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

venv: $(VENV)/.installed

# lava-nc declares Python <3.11 but runs on later versions with a patched import (targets/lava/compat.py),
# so it is installed separately and without its declared requirements. A leftover *.egg-info in the
# checkout would hide entry points that pyproject.toml has gained since.
$(VENV)/.installed: pyproject.toml constraints.txt
	rm -rf *.egg-info
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install -c constraints.txt torch
	$(BIN)/python -m pip install -c constraints.txt -e ".[all,dev,docs]"
	$(BIN)/python -m pip install --no-deps --ignore-requires-python $(LAVA)
	touch $@

clean:
	rm -rf $(VENV) build dist site *.egg-info demo-report .coverage*
