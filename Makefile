# Two commands do everything on a fresh machine with Python 3.11 or newer:
#
#   make compare     train the Transformer and its rivals side by side; the last line is the path of the report
#   make test        every check of this project
#
# Each makes its own virtual environment in .venv and installs what it needs.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Options of the comparison, for example:  make compare ARGS="--suite full --only language_model"
ARGS   ?=
# A build of PyTorch for second opinions, for example:  make test ORACLE=torch     (tests that need it skip without it)
ORACLE ?=

.PHONY: compare test gradcheck detection false-alarms mutants lint clean

compare: $(VENV)/compare
	@$(BIN)/baselines-np compare $(ARGS)

test: $(VENV)/test
	@OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

gradcheck: $(VENV)/compare
	@$(BIN)/python -m transformer_np.gradcheck

# The measured claims about the gradient checker: which planted bugs it finds, beside PyTorch and SciPy (a page of the tutorials is
# written anew), and how often it calls something right wrong.
detection: $(VENV)/test
	@$(PIP) install "$(or $(ORACLE),torch)"
	@$(BIN)/python benchmarks/gradcheck_detection.py

false-alarms: $(VENV)/test
	@OPENBLAS_NUM_THREADS=1 $(BIN)/python benchmarks/gradcheck_false_alarms.py --processes 2 $(ARGS)

mutants: $(VENV)/test
	@$(BIN)/python tests/mutants $(ARGS)

lint: $(VENV)/test
	@$(PIP) install "ruff>=0.6" "mypy>=1.11"
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/compare: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; this is " + sys.version)'
	@echo "Installing into $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --editable ".[compare]"
	@touch $@

$(VENV)/test: $(VENV)/compare
	@$(PIP) install --editable ".[test]"
	@if [ -n "$(ORACLE)" ]; then $(PIP) install "$(ORACLE)" || echo "No $(ORACLE) here: its tests will skip."; fi
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
