# `make run` does the main job, `make test` tests it. Both set up what they need first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help run test peers check lessons clean

help: ## what can be asked for
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

run: $(VENV)/ready-report ## set up and compare containers with virtual machines (writes report.html)
	@tools/debian-packages run
	$(BIN)/onggi compare --report report.html

test: $(VENV)/ready-dev check ## set up everything that the tests need, and run them all
	@tools/debian-packages test
	$(BIN)/python -m pytest

peers: ## install the engines and registries that ours is compared with; without them those tests skip
	@tools/debian-packages peers

check: $(VENV)/ready-dev ## format, lint, types and the walls between the packages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lessons: $(VENV)/ready-dev ## build the notebooks of both languages from their sources
	$(BIN)/python -m classroom.lessons.build

# One stamp for each set of extras; a change of pyproject.toml installs again.
$(VENV)/ready-%: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

clean: ## remove the virtual environment and everything built
	rm -rf $(VENV) build dist report.html
