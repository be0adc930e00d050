# The two commands of the README, and what they stand on. Everything happens in a virtual environment of our own.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# Where downloaded kernels and made scenes stay between runs, outside the repository (see tests/lab/fetch.py).

.PHONY: demo test lowest lab lab-all campaign bench docs check map clean

$(VENV)/base: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/test: $(VENV)/base
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]' 'setuptools>=68' wheel
	touch $@

$(VENV)/lab: $(VENV)/test
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test,lab]'
	touch $@

# The backtrace of the bundled sample and everything behind its corrected frame; on a terminal, then the prompt.
demo: $(VENV)/base
	@$(BIN)/orcdbg demo -e bt -e 'bt --why 6'
	@if [ -t 0 ] && [ -t 1 ]; then $(BIN)/orcdbg demo; fi

check: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports --no-logo
	$(BIN)/python -m tests.house
	$(BIN)/python -m tests.bounded_walks

# Every module, package by package, with the question it answers: the first line of its docstring.
map:
	@$(PYTHON) -m tests.map

test: check
	$(BIN)/pytest -m 'not lab' -n auto --dist worksteal

# The same with each dependency at the lowest version that setup.cfg allows; for the oldest Python, which all of them support.
lowest:
	mkdir -p build
	$(PYTHON) tests/lowest.py > build/lowest.txt
	PIP_CONSTRAINT=$(CURDIR)/build/lowest.txt $(MAKE) test VENV=.venv-lowest

# Debian packages the lab runs on; installed when this user may, else named by the tests that skip for want of them.
# `make lab SCENES='6.1 and entries'` runs a part, chosen as pytest's -k does. Tests are shared out by files, since those of a
# file mostly look at the same guests, in the files' order: the longest are among the first.
SCENES ?=
SHARED := -n auto --dist loadfile --no-loadscope-reorder
lab: $(VENV)/lab
	@tests/lab/packages.sh
	$(if $(SCENES),ORCDBG_LAB_KERNELS=all )$(BIN)/pytest -v $(SHARED) -m lab tests/lab -k '$(SCENES)'

# All kinds of boots, which a seed would choose three from, and more functions to step through.
lab-all: $(VENV)/lab
	@tests/lab/packages.sh
	ORCDBG_LAB_BOOTS=all ORCDBG_LAB_FUNCTIONS=40 $(BIN)/pytest -v $(SHARED) -m lab tests/lab

# Busy guests stopped at random and single words of damage, for long: so many seconds with each load of each kernel.
SECONDS ?= 60
campaign: $(VENV)/lab
	@tests/lab/packages.sh
	ORCDBG_LAB_CAMPAIGN=$(SECONDS) $(BIN)/pytest -v -s -m lab tests/lab/test_campaign.py -k '$(SCENES)'

bench: $(VENV)/lab
	@tests/lab/packages.sh
	$(BIN)/python -m benchmarks

docs: $(VENV)/base
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[docs]'
	$(BIN)/sphinx-build -q -W -b html docs build/html
	$(BIN)/sphinx-build -q -W -b man docs build/man

clean:
	rm -rf $(VENV) .venv-lowest build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
