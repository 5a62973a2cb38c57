# Two commands on a fresh machine: `make demo` shows the main job, `make test` checks everything.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := results/demo

.PHONY: demo test lint clean

# pip and the pins of constraints.txt: torch is pinned to one version so that no resolver picks a larger build
$(STAMP): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]'
	touch $@

demo: $(STAMP)
	$(BIN)/marca train --algo AWRQMixer --preset demo --out $(DEMO)/awrq-mixer
	$(BIN)/marca train --algo JointDRQN --preset demo --out $(DEMO)/joint-drqn
	$(BIN)/marca simulate --seeds 0 --checkpoint $(DEMO)/awrq-mixer --single-checkpoint $(DEMO)/joint-drqn --out $(DEMO)

test: $(STAMP) lint
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build *.egg-info
