# Everything runs in .venv; nothing needs root. `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Most of what a test does is to wait: for a disk, a server, a process. A file's tests share what
# they are run on, so they stay together.
JOBS ?= 4
TORTURE_ROUNDS ?= 200
TORTURE_SCALE ?= 1
FUZZ_SECONDS ?= 60
PARSERS ?= $(notdir $(wildcard tests/fuzz/corpus/*))

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export TORTURE_ROUNDS TORTURE_SCALE

# A stamp is named after what it depends on: the Python, and the content of pyproject.toml.
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)
KEY := $(shell cksum < pyproject.toml | tr -c '0-9\n' '-')
MADE := $(VENV)/made-by-$(VERSION)
DEMO := $(VENV)/demo-$(KEY)
DEV := $(VENV)/dev-$(KEY)
FIELD := $(VENV)/field-$(KEY)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help check demo test test-all test-rest lint types screenshots messages torture torture-slice fuzz venv clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) \
		| while IFS='|' read -r target text; do printf '  %-13s %s\n' "$$target" "$$text"; done

demo: $(DEMO) ## back up, break and restore an example shop
	@$(BIN)/python example_project/demo.py

test: $(DEV) ## run the tests, on real servers; rare cases and torture apart
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-all: export TESTS = all
test-all: $(FIELD) test ## the same and the rare cases, on each PostgreSQL at hand

test-rest: export TESTS = rest
test-rest: test ## what `make test-all` has beyond `make test`, without the projects of others

lint: $(DEV) ## style, and which module may import which
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

types: $(DEV) ## types, strictly
	@$(BIN)/mypy

screenshots: $(DEV) ## make the pictures of the documentation anew
	@mkdir -p $(VENV)/screenshots
	@SCREENSHOTS=$(VENV)/screenshots $(BIN)/python -m pytest -q tests/e2e/test_browser.py
	@for picture in docs/images/*.png; do cp "$(VENV)/screenshots/$${picture##*/}" "$$picture"; done

messages: $(DEV) ## bring the Spanish texts up to date, and compile them
	@$(BIN)/python -m tests.translations

torture: $(DEV) ## long random trials; TORTURE_SEED repeats one
	@$(BIN)/python -m pytest -m torture --timeout 3600 $(ARGS)

torture-slice: TORTURE_ROUNDS := 4
torture-slice: TORTURE_SCALE := 0.02
torture-slice: $(DEV) ## a few minutes of every one of them, with a new seed each time
	@$(BIN)/python -m pytest -m torture --timeout 900 -n $(JOBS) --dist loadfile \
		--no-loadscope-reorder $(ARGS)

fuzz: $(DEV) ## look for inputs that reach new code, FUZZ_SECONDS for each parser; PARSERS names some
	@$(BIN)/python -m pip install --quiet --group fuzz
	@for name in $(PARSERS); do \
		DJANGO_SETTINGS_MODULE=tests.settings \
			$(BIN)/python -m tests.fuzz.guided $$name $(FUZZ_SECONDS) || exit; \
	done

venv: $(DEV) ## make .venv with all tools

clean: ## remove .venv and what tools leave
	@rm -rf $(VENV) .tox build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache \
		.ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Debian and Ubuntu split these off; one line brings them all.
check:
	@missing=; \
	$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || missing="$$missing Python with venv (as $(PYTHON));"; \
	command -v gpg >/dev/null || missing="$$missing gpg;"; \
	if [ -n "$$missing" ]; then \
		echo "Missing:$${missing%;}. Install with:" >&2; \
		echo "  sudo apt-get install -y make python3-venv gnupg" >&2; \
		exit 1; \
	fi; \
	if ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
		echo "Python 3.11 or newer is needed; $(PYTHON) is $(VERSION)." >&2; \
		echo "Name another one: make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; \
		exit 1; \
	fi

$(MADE): | check
	@echo "Making $(VENV) with Python $(VERSION)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@touch $@

$(DEMO): $(MADE) | check
	@echo "Installing what the demo needs"
	@$(BIN)/python -m pip install --quiet --editable .
	@rm -f $(VENV)/demo-* && touch $@

$(DEV): $(MADE) | check
	@echo "Installing what the tests need"
	@$(BIN)/python -m pip install --quiet --editable '.[postgresql]' --group dev
	@rm -f $(VENV)/dev-* $(VENV)/demo-* && touch $@ $(DEMO)

$(FIELD): $(DEV) | check
	@echo "Installing the projects of others that are tried"
	@$(BIN)/python -m pip install --quiet --editable '.[postgresql]' --group dev --group field
	@rm -f $(VENV)/field-* && touch $@
