# Everything that a developer or a machine of the CI does with this project has a target here.
# A virtual environment of the system's Python is made in .venv when it is needed.

PYTHON ?= /usr/bin/python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed

.PHONY: help run test test-boot fuzz-server check format lint types imports docs bench install-system uninstall-system clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 28

$(INSTALLED): pyproject.toml scripts/bootstrap.sh
	@sh scripts/bootstrap.sh "$(PYTHON)" "$(VENV)"
	@touch $@

run: $(INSTALLED) ## Download a file in the background, kill the service half-way, see it go on (URL=… OUT=… for your own file)
	@$(BIN)/python scripts/demo.py $(if $(URL),--url "$(URL)") $(if $(OUT),--out "$(OUT)")

test: $(INSTALLED) ## Run all tests (ARGS="tests/unit -q" for some of them)
	@sh scripts/test-packages.sh
	@$(BIN)/pytest --numprocesses 4 --dist loadfile $(ARGS)

test-boot: $(INSTALLED) ## Run the tests that boot a Debian machine with systemd (ARGS="-k logon"); takes root
	@sh scripts/test-packages.sh
	@$(BIN)/pytest tests/boot $(ARGS)

fuzz-server: $(INSTALLED) ## Send bits-server an hour's worth of strange requests (FUZZ_S=seconds for each of two tests)
	@FUZZ_S=$${FUZZ_S:-1800} $(BIN)/pytest tests/system/test_server_fuzz.py $(ARGS)

check: $(INSTALLED) lint types imports docs test test-boot ## Everything that the CI checks

format: $(INSTALLED) ## Format the code
	@$(BIN)/ruff format src tests bench examples scripts
	@$(BIN)/ruff check --fix src tests bench examples scripts

lint: $(INSTALLED)
	@$(BIN)/ruff format --check src tests bench examples scripts
	@$(BIN)/ruff check src tests bench examples scripts

types: $(INSTALLED)
	@$(BIN)/mypy

imports: $(INSTALLED)
	@$(BIN)/lint-imports

docs: $(INSTALLED)
	@$(BIN)/python scripts/generate_docs.py --check
	@$(BIN)/python scripts/generate_manual.py --check

bench: $(INSTALLED) ## Measure against curl and aria2, side by side (ARGS="--quick" for a short run)
	@sh scripts/test-packages.sh
	@$(BIN)/python -m bench $(ARGS)

install-system: ## As root: install the service for all accounts of this machine
	@sh packaging/install-system.sh

uninstall-system: ## As root: remove it again; jobs are kept
	@sh packaging/install-system.sh --uninstall

clean: ## Remove what was made here
	rm -rf $(VENV) build dist demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
