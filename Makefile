# Every target works from a bare clone with Python 3.11 to 3.13, make and git; it makes an environment of its own.

PYTHON := $(shell for p in python3.11 python3.12 python3.13 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	&& echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check bench soak clean

demo: $(STAMP)
	$(BIN)/wattswarm demo

test: $(STAMP)
	$(BIN)/pytest

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.sizes
	$(BIN)/pytest

bench: $(STAMP)
	$(BIN)/python -m bench

soak: $(STAMP)
	WATTSWARM_SOAK=1 $(BIN)/pytest tests/sel/test_same_state.py --timeout 0

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "wattswarm needs Python 3.11, 3.12 or 3.13 on the PATH" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --editable . --group dev
	touch $@
