# Homeport's commands. `make` alone lists them. Needs Python 3.11 or newer; the rest is installed when it is missing.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .venv/bin
VENV := .venv/.installed
DATA_DIR ?= .homeport
MINUTES ?= 20
SEED ?= 1
# Files of tests side by side; ARGS=-n0 runs them one by one, as a debugger needs it.
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder
SCRIPTS := $(addprefix scripts/,ensure-venv ensure-docker stop-docker sample-image install-agent lib.sh docker-files.sh) .ci/run

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "Homeport runs containers on Docker Engine. Where none answers, 'up' and 'test' install and start one (as root on"
	@echo "Debian or Ubuntu). It stays up afterwards; 'down' stops it if make started it and nothing else runs in it."

$(VENV): pyproject.toml
	@scripts/ensure-venv

.PHONY: engine
engine:
	@scripts/ensure-docker

.PHONY: up
up: $(VENV) engine ## Run a control plane and an agent here, with a sample web container (Ctrl-C ends them)
	@scripts/sample-image
	@exec $(BIN)/homeport up --data-dir $(DATA_DIR) --sample $(ARGS)

.PHONY: down
down: ## Stop what 'make up' started: daemons, containers, dockerd; the data stay in .homeport
	@"$${PYTHON:-python3}" scripts/down.py $(DATA_DIR)
	@scripts/stop-docker

.PHONY: test
test: $(VENV) engine ## Run all tests but the slow ones
	@$(BIN)/pytest $(PARALLEL) -m 'not slow' --durations=10 $(ARGS)

.PHONY: test-unit
test-unit: $(VENV) ## Run the tests that need no Docker
	@$(BIN)/pytest $(PARALLEL) -m 'not engine and not e2e and not slow' $(ARGS)

.PHONY: test-e2e
test-e2e: $(VENV) engine ## Run the tests with real daemons on a real Engine
	@$(BIN)/pytest $(PARALLEL) -m 'e2e and not slow' $(ARGS)

.PHONY: test-slow
test-slow: $(VENV) engine ## Run the tests that take minutes: a real systemd, image builds, thousands of random services
	@$(BIN)/pytest -m slow --durations=10 $(ARGS)

SEEDS ?= 1000
.PHONY: simulate
simulate: $(VENV) ## Run whole clusters on virtual time, with faults, one for each of SEEDS=1000 seeds
	@$(BIN)/python -m tests.simulation $(SEEDS) $(ARGS)

.PHONY: chaos
chaos: $(VENV) engine ## Break real daemons and Engines under load, and account for everything; MINUTES=20 SEED=1
	@$(BIN)/python -m tests.chaos --minutes $(MINUTES) --seed $(SEED) --out chaos.json $(ARGS)

.PHONY: lint
lint: $(VENV) ## Check style, types, imports between packages, and shell scripts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/shellcheck --external-sources $(SCRIPTS)

.PHONY: format
format: $(VENV) ## Format the code and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: bench
bench: $(VENV) engine ## Measure, and write bench/results.json
	@$(BIN)/pip install --quiet --editable '.[bench]'
	@$(BIN)/python -m bench $(ARGS)
	@$(BIN)/python -m bench.peers.page
	@$(BIN)/python -m bench.fleet.page

.PHONY: hotpaths
hotpaths: $(VENV) ## Count the instructions of the hot paths, and fail if one costs 20 % more than recorded
	@$(BIN)/python -m bench.hotpaths $(ARGS)

.PHONY: peers
peers: $(VENV) engine ## Measure beside Docker Swarm and moto, and write docs/peers.md (ten minutes)
	@$(BIN)/pip install --quiet --editable '.[bench]'
	@$(BIN)/python -m bench peers
	@$(BIN)/python -m bench.peers.page

.PHONY: clean
clean: ## Remove .venv and caches; the data in .homeport stay
	rm -rf .venv .venv.lock .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
