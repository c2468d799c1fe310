# Two commands on a machine with nothing but Python 3.11:
#   make demo   environment, then a training from synthetic records to two exported towers
#   make test   environment, then the tests
# Beside them: test-slow (tests of minutes), lint, pictures (of the documentation), env, clean.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo test test-slow lint pictures env clean

demo: $(VENV)/run
	$(BIN)/python main.py

# Each test file stays in one process: files share what is costly to make.
test: $(VENV)/dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

test-slow: $(VENV)/dev
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/mypy

# From the run of the demo, which is made where it is not there yet.
pictures: runs/demo/result.json
	$(BIN)/python -m docs.make_pictures

runs/demo/result.json:
	$(MAKE) demo

env: $(VENV)/dev

# The stamps make an environment anew only when what it is made of has changed.
$(VENV)/run: requirements.txt constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -c constraints.txt
	touch $@

$(VENV)/dev: $(VENV)/run requirements-dev.txt requirements-beam.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt -c constraints.txt
	touch $@

clean:
	rm -rf $(VENV) runs/demo
