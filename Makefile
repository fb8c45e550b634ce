# Every target works from a bare clone with Python 3.11 to 3.13, make and git; it makes an environment of its own.
# `make PYTHON=/path/to/python3.12 …` chooses the interpreter; it is asked for only when the environment is made.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

FITS := import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON = $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c '$(FITS)' >/dev/null 2>&1 && echo $$p && break; done)

# Three files at a time, for on two cores tests of daemons wait two fifths of the time, and by their names: by their
# numbers of tests, the few that take minutes would come last, alone. `make TESTS=.venv/bin/pytest test` takes one.
TESTS = $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: demo test sweep check bench soak clean

demo: $(STAMP)
	@$(BIN)/wattswarm demo

test: $(STAMP)
	$(TESTS)

# Seeds of simulated swarms: twenty of every small scenario, one of every big one.
sweep: $(STAMP)
	$(BIN)/wattswarm-netsim sweep every --seeds 1..20 --jobs 2

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.sizes
	$(MAKE) --no-print-directory sweep
	$(TESTS)

bench: $(STAMP)
	$(BIN)/python -m bench

soak: $(STAMP)
	WATTSWARM_SOAK=1 $(BIN)/pytest tests/sel/test_same_state.py --timeout 0

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# Each stamp is the last thing written, so that what was interrupted half-way is never taken for whole.
$(STAMP): pyproject.toml | $(VENV)/.made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $@

$(VENV)/.made:
	@test -n "$(PYTHON)" || { \
		echo "wattswarm needs Python 3.11, 3.12 or 3.13 on the PATH, with its venv module" \
			"(Debian and Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@
