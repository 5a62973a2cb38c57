# Two commands on a fresh machine: `make demo` shows the main job, `make test` checks everything.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := results/demo
CONFORMANCE := .venv-conformance
# Where the wheel is installed alone, without extras.
WHEEL_VENV := .venv-wheel
PIP := -m pip install --quiet --disable-pip-version-check -c constraints.txt
# Four workers also on two cores: slow tests wait for other processes. RLlib's algorithms on all kinds of foreign
# environments are left to test-conformance (tests/agents has those that differ), and so is torch's C++ compiler.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 4 --max-worker-restart 0 --dist loadfile \
	--ignore tests/conformance/test_foreign_envs.py --ignore tests/conformance/test_inductor.py

.DEFAULT_GOAL := help
.PHONY: help demo test test-distributed check lint format docs coverage bench bench-quick test-conformance wheel clean

help:  ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# pip and the pins of constraints.txt: torch is pinned to one version so that no resolver picks a larger build.
$(STAMP): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) torch
	$(BIN)/python $(PIP) -e '.[all]'
	touch $@

demo: $(STAMP)  ## train two learners and replay a day of traffic: table and figure in results/demo
	$(BIN)/marca simulate --seeds 0 --requests 1500 --iterations 45 --out $(DEMO)

test: $(STAMP) lint  ## lint, types, import contracts and all tests that need no other processes on ray
	$(PYTEST) -m "not distributed"

test-distributed: $(STAMP)  ## the tests that start, kill and restore processes on ray, about eight minutes
	$(PYTEST) -m distributed

check: $(STAMP) lint  ## the quick tier: lint and the fast tests, under three minutes
	$(PYTEST) -m "not slow and not distributed"

lint: $(STAMP)  ## ruff, mypy, import contracts, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell

format: $(STAMP)  ## sort imports and format the code
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs: $(STAMP)  ## build the documentation site into site/, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

coverage: $(STAMP)  ## run all tests and report the share of lines that they run
	$(PYTEST) --cov --cov-report=term --cov-report=xml

bench: $(STAMP)  ## the whole benchmark suite and its report; hours, continues where it was interrupted
	OMP_NUM_THREADS=1 $(BIN)/marca bench run all --address local
	$(BIN)/marca bench report

# From nothing: shows that every experiment works.
BENCH_CHECK := results/bench-check
bench-quick: $(STAMP)  ## small runs of all experiments and their report, about three minutes
	rm -rf $(BENCH_CHECK)
	OMP_NUM_THREADS=1 $(BIN)/marca bench run all --quick --out $(BENCH_CHECK)
	$(BIN)/marca bench report --out $(BENCH_CHECK) --to $(BENCH_CHECK)/report

$(CONFORMANCE)/.installed: setup.cfg pyproject.toml constraints.txt
	test -x $(CONFORMANCE)/bin/python || $(PYTHON) -m venv $(CONFORMANCE)
	$(CONFORMANCE)/bin/python $(PIP) torch
	$(CONFORMANCE)/bin/python $(PIP) -e '.[conformance]'
	touch $@

test-conformance: $(CONFORMANCE)/.installed  ## other libraries on our environments, in a virtual environment of their own
	OMP_NUM_THREADS=1 $(CONFORMANCE)/bin/python -m pytest tests/conformance

wheel: $(STAMP)  ## build sdist and wheel, install the wheel without extras, import and run it
	rm -rf dist $(WHEEL_VENV)
	$(BIN)/python -m build --quiet --outdir dist
	$(PYTHON) -m venv $(WHEEL_VENV)
	$(WHEEL_VENV)/bin/python $(PIP) torch
	$(WHEEL_VENV)/bin/python $(PIP) dist/*.whl
	cd $(WHEEL_VENV) && bin/python -I ../tests/installed_wheel.py

clean:  ## remove virtual environments and everything that was built
	rm -rf $(VENV) $(CONFORMANCE) $(WHEEL_VENV) build dist site *.egg-info
