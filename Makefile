# What can be done here. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# Build products and everything fetched stay out of the tree.
export BELLWETHER_CACHE ?= $(HOME)/.cache/bellwether
export CARGO_TARGET_DIR ?= $(BELLWETHER_CACHE)/target

# OpenSSL is built from source only where its headers are absent: that costs minutes.
OPENSSL := $(shell pkg-config --exists openssl 2>/dev/null && echo yes || (echo '\#include <openssl/ssl.h>' | cc -E - >/dev/null 2>&1 && echo yes))
FEATURES := $(if $(OPENSSL),,--features vendored-openssl)
PROGRAM := $(CARGO_TARGET_DIR)/debug/bellwether

# A test is built along with the program because Cargo then gives libraries the features that tests need: otherwise the
# query engine would be compiled once for `make demo` and once more for `make test`. This one is the smallest.
BUILD := cargo build --workspace --bin bellwether --test contract $(FEATURES)

.PHONY: help
help: ## Lists what can be done
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12
	@echo
	@echo 'build products: $(CARGO_TARGET_DIR)$(if $(FEATURES),; OpenSSL is built from source)'

.PHONY: build
build: ## Builds the program
	$(BUILD)

.PHONY: demo
demo: ## Builds, then shows it all in the terminal; q leaves
	@echo 'Building the program; the first time this takes some minutes.'
	@$(BUILD)
	@echo 'Starting the demo: an embedded broker, three simulated apps, six hours of history, then live traffic.'
	@'$(PROGRAM)' demo

.PHONY: setup
setup: ## Brings what building and testing need and is not there yet
	@scripts/setup

.PHONY: test
test: setup ## All that CI runs: format, every test on a real Kafka broker, generated pages
	cargo fmt --all --check
	scripts/broker with cargo test --workspace $(FEATURES)
	@$(MAKE) --no-print-directory generated

.PHONY: torture
torture: setup ## Kills a worker KILLS times (1000) at random moments; SEED=n draws the same moments again
	BELLWETHER_KILLS=$(or $(KILLS),1000) scripts/broker with \
	  cargo test --workspace $(FEATURES) --test main crash::kill -- --nocapture

.PHONY: generated
generated: ## Fails where a generated page is not as the program prints it
	@$(BUILD) --quiet
	@scripts/generated check '$(PROGRAM)'

.PHONY: generate
generate: ## Writes the generated pages
	@$(BUILD) --quiet
	@scripts/generated write '$(PROGRAM)'

.PHONY: lint
lint: ## Format, clippy, documentation; licences, unused dependencies and spelling where their tools are
	cargo fmt --all --check
	cargo clippy --workspace --all-targets $(FEATURES) -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps $(FEATURES)
	@for tool in 'deny check' machete typos; do \
	  name=$${tool%% *}; \
	  case $$name in typos) probe=typos ;; *) probe="cargo-$$name" ;; esac; \
	  if ! command -v $$probe >/dev/null; then echo "skipped: $$probe is not installed (cargo install --locked $${probe/typos/typos-cli})"; \
	  elif [ $$name = typos ]; then typos; else cargo $$tool; fi || exit 1; \
	done

.PHONY: check
check: lint test ## Everything: lint and test

.PHONY: clients
clients: setup ## The README's first events only: Python, TypeScript, Go
	scripts/broker with cargo test --workspace $(FEATURES) --test main clients

.PHONY: simulate
simulate: ## Simulates ingest and aggregate with faults; SEEDS=N runs N seeds (2000), SEED=N replays one
	SEEDS='$(or $(SEEDS),2000)' SEED='$(SEED)' cargo test --workspace $(FEATURES) --test main simulation::$(if $(SEED),every_seed) -- --nocapture

# The release build is one for all parts; QUICK=1 is a short version of each, PARTS names some of them.
BENCH = cargo build --release --workspace --bin bellwether --bin bellwether-bench $(FEATURES) && \
	mkdir -p '$(CARGO_TARGET_DIR)/bench' && scripts/broker with '$(CARGO_TARGET_DIR)/release/bellwether-bench' \
	$(if $(QUICK),--quick) --scratch '$(CARGO_TARGET_DIR)/bench' --json '$(CARGO_TARGET_DIR)/bench/$(1).json' $(2)

.PHONY: bench
bench: ## Measures all of it on a real broker; QUICK=1 for a short version, PARTS='decode whole' for some of it
	@$(if $(PARTS),,scripts/peers fetch)
	$(call BENCH,bench,$(PARTS))

.PHONY: bench-peers
bench-peers: ## Measures it side by side with other stream processors
	@scripts/peers fetch
	$(call BENCH,peers,peers)

# Built with the optimisation that the profile of development gives to these two crates: nothing else is compiled anew.
DETECTION = $(CARGO_TARGET_DIR)/debug/bellwether-detection
FLEET = $(CARGO_TARGET_DIR)/debug/bellwether-fleet

.PHONY: bench-detection
bench-detection: ## Measures how well regressions and drift are found, beside peers; QUICK=1 for a short version, SEEDS=n
	cargo build -p bellwether-bench-detection --bin bellwether-detection
	cargo build -p bellwether-bench --bin bellwether-fleet
ifdef QUICK
	'$(DETECTION)' run --quick $(if $(SEEDS),--seeds $(SEEDS))
	'$(FLEET)' --seeds 4 --faults 2
else
	@scripts/detection-peers fetch
	@mkdir -p '$(CARGO_TARGET_DIR)/bench'
	'$(DETECTION)' export '$(CARGO_TARGET_DIR)/bench/series.json'
	'$(DETECTION)' run $(if $(SEEDS),--seeds $(SEEDS)) --page docs/detection.md --pictures docs \
	  --json '$(CARGO_TARGET_DIR)/bench/detection.json' \
	  $$(scripts/detection-peers run '$(CARGO_TARGET_DIR)/bench/series.json' '$(CARGO_TARGET_DIR)/bench/detection-peers' | sed 's/^/--peers /')
	'$(FLEET)' $(if $(SEEDS),--seeds $(SEEDS)) --page docs/detection.md
endif

.PHONY: record
record: build ## Records the demo's screen as docs/demo.svg
	scripts/record-demo '$(PROGRAM)'
