# Two commands on a fresh machine: `make demo` shows the main job, `make test` checks everything.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := results/demo
CONFORMANCE := .venv-conformance

.PHONY: demo test bench bench-quick test-conformance lint clean

# pip and the pins of constraints.txt: torch is pinned to one version so that no resolver picks a larger build
$(STAMP): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]'
	touch $@

# trains the two learners that it compares (kept in results/policies), then replays the embedded day
demo: $(STAMP)
	$(BIN)/marca simulate --seeds 0 --requests 1500 --iterations 45 --out $(DEMO)

test: $(STAMP) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --max-worker-restart 0 --dist loadfile

# the whole suite on all cores, then its report; hours: it goes on where it was interrupted
bench: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/marca bench run all --address local
	$(BIN)/marca bench report

# small runs of the whole suite and their report, from nothing: they show that every experiment works
BENCH_CHECK := results/bench-check
bench-quick: $(STAMP)
	rm -rf $(BENCH_CHECK)
	OMP_NUM_THREADS=1 $(BIN)/marca bench run all --quick --out $(BENCH_CHECK)
	$(BIN)/marca bench report --out $(BENCH_CHECK) --to $(BENCH_CHECK)/report

# other libraries on our environments, in a virtual environment of their own
$(CONFORMANCE)/.installed: setup.cfg pyproject.toml constraints.txt
	test -x $(CONFORMANCE)/bin/python || $(PYTHON) -m venv $(CONFORMANCE)
	$(CONFORMANCE)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(CONFORMANCE)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[conformance]'
	touch $@

test-conformance: $(CONFORMANCE)/.installed
	OMP_NUM_THREADS=1 $(CONFORMANCE)/bin/python -m pytest tests/conformance

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(CONFORMANCE) build *.egg-info
