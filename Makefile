# Run from a fresh checkout with Python 3.11 or newer and nothing else; what is done is not done again.

VENV := .venv
PORT ?= 5006
PYTHONS := python3 python3.14 python3.13 python3.12 python3.11 python
# On both cores of a small machine, each with one thread. The browser's tests come by themselves: they leave an event loop behind.
PYTEST = $(VENV)/bin/python -m pytest -n 2 --dist loadfile
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: help app install test lint chromium

help:
	@echo "make app       install what the explorer needs into $(VENV) and serve it (PORT=$(PORT))"
	@echo "make install   the same without serving, and what the tests need"
	@echo "make test      run the tests, with coverage; in a real browser too where there is a chromium"
	@echo "make lint      check style and types"

app: $(VENV)/.app
	@$(VENV)/bin/toyguide app --port $(PORT)

install: $(VENV)/.app $(VENV)/.dev

test: $(VENV)/.dev chromium
	@OMP_NUM_THREADS=1 $(PYTEST) --ignore=tests/browser --cov --cov-report= --cov-fail-under=0
	@$(PYTEST) tests/browser --cov --cov-append --cov-report=term-missing:skip-covered

lint: $(VENV)/.dev
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@mkdir -p $(VENV)/mypy && ln -sfn ../../apps $(VENV)/mypy/toyguide_apps  # apps/ under the name that it is installed by
	@$(VENV)/bin/mypy

$(VENV)/bin/python:
	@for p in $(PYTHONS); do \
	  if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "Making $(VENV) with $$($$p --version)"; \
	    $$p -m venv $(VENV) && exit 0; rm -rf $(VENV); exit 1; \
	  fi; \
	done; \
	echo "toyguide needs Python 3.11 or newer; python3 here is: $$(python3 --version 2>&1)" >&2; exit 1

# torch first, alone and by its exact version, so that pip takes the build that is meant for this machine.
$(VENV)/.app: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt $(TORCH)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[app,plot]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.app
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

# The browser tests take CHROMIUM, or Debian's; without one they are skipped.
chromium:
	@if [ -n "$$CHROMIUM" ] || [ -x /usr/bin/chromium ]; then exit 0; fi; \
	as_root=$$([ "$$(id -u)" = 0 ] || echo "sudo -n"); \
	if command -v apt-get >/dev/null && $$as_root true 2>/dev/null; then \
	  echo "Installing chromium for the browser tests"; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  $$as_root apt-get update -qq </dev/null && $$as_root apt-get install -y -qq chromium </dev/null >/dev/null; \
	fi; \
	[ -x /usr/bin/chromium ] || echo "No chromium here: the browser tests are skipped (CHROMIUM=/path/to/one runs them)"
