# nightorders. `make help` lists what can be done.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LEVEL ?=
KEEP ?=
AUTO ?=
KUBECONTEXT ?=
NAMESPACE ?=
CRASH ?=
DIR ?= scenarios/open
ONLY ?=
PROVE ?=
JOBS ?=
ARGS ?=
INSTALLED := $(VENV)/.installed
.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(INSTALLED): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "nightorders needs Python 3.11 or newer; set PYTHON=python3.x")'
	@echo "installing Python packages into $(VENV) (about half a minute, once)"
	@$(PYTHON) -m venv $(VENV) || { echo "no venv module: install it (Debian: apt-get install python3-venv)"; exit 1; }
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: setup
setup: $(INSTALLED) ## Install what the project needs into .venv

.PHONY: cluster-binaries
cluster-binaries: $(INSTALLED)
	@$(BIN)/python -m tools.cluster build

.PHONY: demo
demo: $(INSTALLED) ## Break a release on a throw-away cluster and watch it being repaired (LEVEL=L1..L4, AUTO=1, KEEP=1)
	@$(BIN)/python -m demo $(if $(LEVEL),--level $(LEVEL)) $(if $(AUTO),--auto) $(if $(KEEP),--keep)

.PHONY: demo-down
demo-down: $(INSTALLED) ## Remove the cluster that `make demo KEEP=1` left running
	@$(BIN)/python -m demo --down

.PHONY: test
test: $(INSTALLED) ## Run everything that this machine can run, and name what it cannot
	@$(BIN)/python -m tools.tiers all

.PHONY: test-unit
test-unit: $(INSTALLED) ## Run the fast tests only (no cluster)
	@$(BIN)/python -m tools.tiers fast

.PHONY: mutants
mutants: $(INSTALLED) ## Seed bugs into the safety rules; each must make a test fail
	@$(BIN)/python -m tools.mutants

.PHONY: lint
lint: $(INSTALLED) ## Style, types, direction of imports, structure
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --quiet --check . && $(BIN)/mypy && $(BIN)/lint-imports --no-logo && $(BIN)/python -m tools.structure

.PHONY: generate
generate: $(INSTALLED) ## Write CRDs, action roles, reference pages and the chart's templates from their sources
	@$(BIN)/python -m tools.generate && $(BIN)/python -m tools.chart

.PHONY: verify
verify: $(INSTALLED) ## Fail if a generated file differs from the models
	@$(BIN)/python -m tools.generate --check && $(BIN)/python -m tools.chart --check && echo "verify: every generated file is as the models say"

.PHONY: crash
crash: $(INSTALLED) ## Kill the operator at every write of a run and compare the end with a run without a fault (CRASH="--slice", "--resume", …)
	@$(BIN)/python -m tests.crash $(CRASH)

.PHONY: scenarios
scenarios: $(INSTALLED) ## Break a cluster in many ways and score the operator (DIR=…, ONLY=id, PROVE=1 to prove the scenarios, JOBS=n, ARGS="…")
	@$(BIN)/python -m tools.scenarios $(if $(PROVE),prove,run --out build/scenarios.json) "$(DIR)" $(foreach id,$(ONLY),--only $(id)) $(if $(JOBS),--jobs $(JOBS)) $(ARGS)

.PHONY: bench
bench: $(INSTALLED) ## Measure latency, requests and memory against the floor of the same cluster
	@$(BIN)/python -m tests.benchmarks

.PHONY: install
install: $(INSTALLED) ## Install into the cluster of KUBECONTEXT=… at L1, after showing the roles
	@$(BIN)/python -m tools.install install --context "$(KUBECONTEXT)" $(if $(IMAGE),--image $(IMAGE)) $(if $(YES),--yes)

.PHONY: uninstall
uninstall: $(INSTALLED) ## Remove everything of ours from the cluster of KUBECONTEXT=…
	@$(BIN)/python -m tools.install uninstall --context "$(KUBECONTEXT)" $(if $(YES),--yes)

.PHONY: lock
lock: ## Lock the dependencies again (needs uv)
	@UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile -q pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url -o requirements/runtime.txt
	@UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile -q pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url -c requirements/runtime.txt -o requirements/dev.txt

.PHONY: clean
clean: ## Remove the virtual environment and caches of this checkout
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
