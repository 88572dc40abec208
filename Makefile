# `make` alone lists what there is. The work is in cargo and in .ci/.

.DEFAULT_GOAL := help
SCENARIO ?= burst
.PHONY: help run test soak setup fmt lint doc load autobahn fuzz clean-data

help: ## This list
	@printf '\n  \033[1mSongflight\033[0m  the backend for apps that make songs with AI\n\n'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  \033[36mmake %-12s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf '\n  Start with \033[1mmake run\033[0m, then open http://127.0.0.1:8080\n\n'

run: setup ## Build and start everything; nothing needs to be configured (Ctrl-C stops it)
	@cargo build --release
	@exec target/release/songflight serve

test: ## Format check, lints, all tests; with timings
	@.ci/test

soak: ## The simulation over ever new worlds, until one breaks a law or you stop it (Ctrl-C)
	@SIM_SOAK=1 cargo test --quiet --test sim no_world -- --nocapture

setup: ## Install what is missing: the Postgres programs, a C compiler
	@.ci/setup --quiet

fmt: ## Format the code
	@cargo fmt --all

lint: ## Format check and clippy, warnings are errors
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets -- -D warnings

doc: ## Build the code's documentation and say where it is
	@cargo doc --no-deps --document-private-items
	@echo "target/doc/songflight/index.html"

load: setup ## Measure, and check what every client sees: make load SCENARIO=mixed (else burst, 10 s)
	@cargo build --release --workspace --quiet
	@mkdir -p target/load
	@target/release/songflight-loadtest run $(SCENARIO) --json target/load/$(notdir $(SCENARIO)).json \
		--html target/load/$(notdir $(SCENARIO)).html

autobahn: ## The WebSocket against Autobahn's fuzzing client (needs Python 2.7; about 2 min)
	@tests/autobahn/run

fuzz: ## Odd input for every parser, SECONDS=60 each (needs a C++ compiler)
	@SECONDS_EACH=$(or $(SECONDS),60) tests/fuzz/run

clean-data: ## Remove the development database, key and assets
	@.ci/clean-data
