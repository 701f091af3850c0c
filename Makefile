# Every task of a developer; `make` lists them. On a fresh machine each does its own set-up.
#
#   make run ARGS="--config gatepost.yaml"    arguments of `gatepost up`
#   make test T="tests/unit -k address"       which tests, and other arguments of pytest
#   make setup PYTHON=/opt/python3.12         the interpreter that .venv is made with

BIN := .venv/bin
T := tests
# Most tests wait for processes and clocks, so there are more of them at a time than cores.
WORKERS := 4
# Which tests, by their marks: `make test` leaves out what takes minutes, `make check` nothing.
MARKS := and not slow
ARGS :=
PYTHON :=

export PYTHON
# The tests start programs by name: ours first, and Postfix's, which live where only root looks.
export PATH := $(CURDIR)/$(BIN):$(PATH):/usr/sbin

# The tests' nats-servers sync every write. In memory no test waits for the disk behind another.
MEMORY := $(shell df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > 6000000 { print $$6 }')
ifneq ($(MEMORY),)
export PYTEST_DEBUG_TEMPROOT := $(MEMORY)
endif

.DEFAULT_GOAL := help
# Targets are tasks, in the order written; there is nothing to do side by side.
.NOTPARALLEL:

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

.PHONY: setup
setup: ## Make .venv from requirements.lock, if it is not up to date
	@tools/make-venv

.PHONY: run
run: setup ## Run everything on this machine (ARGS="--config FILE --data DIR")
	@exec $(BIN)/gatepost up $(ARGS)

.PHONY: test
test: setup programs ## Run the tests, but for the slowest (T="tests/unit -k address")
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile -m "not timed $(MARKS)" $(T)
	@$(BIN)/python -m pytest -m "timed $(MARKS)" $(T) || test $$? = 5 # 5: none of these is timed

.PHONY: check
check: MARKS :=
check: lint proto-check container-image test ## Everything that CI runs

.PHONY: bench
bench: setup ## Compare with other mail servers; root only (ARGS="--short")
	@tools/bench-programs
	@$(BIN)/python -m bench $(ARGS)

.PHONY: lint
lint: setup ## Format, style, types, walls between the services, protos
	@echo "lint: ruff format" && $(BIN)/ruff format --check --quiet
	@echo "lint: ruff check" && $(BIN)/ruff check --quiet --output-format concise
	@echo "lint: mypy" && $(BIN)/mypy
	@echo "lint: import-linter" && $(BIN)/lint-imports --no-logo
	@echo "lint: buf" && $(BIN)/buf lint

.PHONY: format
format: setup ## Format the code and apply the safe corrections
	@$(BIN)/ruff check --fix --quiet; $(BIN)/ruff format

.PHONY: proto
proto: setup ## Generate the Python code from proto/
	@tools/generate-proto

.PHONY: proto-check
proto-check: setup ## Fail if the committed code is not what proto/ gives
	@echo "proto-check" && tools/generate-proto --check

.PHONY: lock
lock: setup ## Write requirements.lock anew (ARGS="--upgrade" for the newest)
	@tools/lock $(ARGS)

.PHONY: chart
chart: setup ## Write the chart's schema of `config:`, its README and its dashboards anew
	@$(BIN)/python tools/chart-schema
	@$(BIN)/python tools/chart-readme
	@$(BIN)/python tools/chart-dashboards

.PHONY: images
images: ## Build the image (BASE=IMAGE to build it on another one, BUILDER=podman)
	@tools/build-image

.PHONY: container-image
container-image: ## Build the image that the container tests run, if this machine can
	@tools/container-image

.PHONY: cluster-test
cluster-test: setup ## Try it on the cluster of the current kubeconfig (ARGS=--help)
	@tools/test-helm
	@$(BIN)/python -m tests.cluster $(ARGS)

.PHONY: chaos
chaos: setup ## Break a running Gatepost in many ways and count the mail (ARGS="--seconds 3600")
	@$(BIN)/python -m tests.chaos $(ARGS)

.PHONY: programs
programs: setup ## Install the programs that the tests need (mail servers, clients, Prometheus, Helm)
	@tools/test-programs
	@tools/test-helm
