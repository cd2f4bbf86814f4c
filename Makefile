# Everything one does here; `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:

# Build products and downloads stay out of the tree.
export BELLWETHER_CACHE ?= $(HOME)/.cache/bellwether
export CARGO_TARGET_DIR ?= $(BELLWETHER_CACHE)/target

# Build OpenSSL from source only if its headers are missing: it takes minutes.
OPENSSL := $(shell pkg-config --exists openssl 2>/dev/null && echo yes || (echo '\#include <openssl/ssl.h>' | cc -E - >/dev/null 2>&1 && echo yes))
FEATURES := $(if $(OPENSSL),,--features vendored-openssl)
PROGRAM := $(CARGO_TARGET_DIR)/debug/bellwether
RELEASE := $(CARGO_TARGET_DIR)/release/bellwether
SQL_TESTS := --manifest-path tests/sql/Cargo.toml

# The whole workspace decides the features of libraries, so that no command compiles them a second time (bench/Cargo.toml).
BUILD := cargo build --workspace --bin bellwether $(FEATURES)

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 17
	@echo
	@echo 'build products: $(CARGO_TARGET_DIR)$(if $(FEATURES),; OpenSSL is built from source)'

# --- Run

.PHONY: build
build: ## Build the program
	$(BUILD)

.PHONY: demo
demo: ## Build and run the demo in the terminal; q quits
	@echo 'Building the program; the first build takes some minutes.'
	@$(BUILD) --profile demo
	@echo 'Starting the demo: an embedded broker, three simulated apps, six hours of history, then live traffic.'
	@'$(CARGO_TARGET_DIR)/demo/bellwether' demo

.PHONY: record
record: build ## Record the demo's screen as docs/demo.svg
	scripts/record-demo '$(PROGRAM)'

# --- Deploy

.PHONY: release
release: ## Build the program for production, with its commit
	cargo build --release --locked --workspace --bin bellwether $(FEATURES)

.PHONY: packages
packages: ## Build the wheel, the npm and Debian packages, the SBOM and licences from a release build, and install each
	@scripts/setup packaging
	@[ -x '$(RELEASE)' ] || $(MAKE) --no-print-directory release
	scripts/packages build '$(RELEASE)' '$(CARGO_TARGET_DIR)/packages'
	scripts/packages test '$(CARGO_TARGET_DIR)/packages'

.PHONY: sbom
sbom: ## Write the SBOM and the list of licences of a debug build
	@scripts/setup packaging
	@$(BUILD) --quiet
	@mkdir -p '$(CARGO_TARGET_DIR)/sbom'
	'$(BELLWETHER_CACHE)/packaging/bin/python' scripts/sbom '$(PROGRAM)' '$(CARGO_TARGET_DIR)/sbom'

.PHONY: chart
chart: ## Check the Helm chart: lint, templates, schemas of Kubernetes, refused values
	@scripts/setup kubernetes
	@$(BUILD) --quiet
	deploy/test/helm '$(PROGRAM)'

.PHONY: deploy-tests
deploy-tests: packages ## Start what deploy/ has: systemd, container, the wiring of compose, runbook; check access and the chart
	@scripts/setup services containers kubernetes
	scripts/broker with deploy/test/systemd '$(CARGO_TARGET_DIR)/packages'
	scripts/broker with deploy/test/container '$(RELEASE)'
	deploy/test/wiring '$(RELEASE)'
	deploy/test/wiring '$(RELEASE)' s3
	deploy/test/runbook '$(RELEASE)'
	deploy/test/access '$(RELEASE)'
	deploy/test/helm '$(RELEASE)'

# --- Check

.PHONY: setup
setup: ## Install what building and testing need
	@scripts/setup

.PHONY: check
check: setup lint test ## Run everything that CI runs: lint and test

# What fails in seconds comes first.
.PHONY: lint
lint: ## Check format, spelling, dependencies, clippy and rustdoc
	cargo fmt --all --check
	cargo fmt $(SQL_TESTS) --check
	@scripts/lint spelling
	@scripts/lint deploy
	@scripts/lint dependencies
	@scripts/lint exceptions | tail -n 1
	cargo clippy --workspace --all-targets $(FEATURES) -- -D warnings
	cargo clippy --quiet --locked $(SQL_TESTS) -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps $(FEATURES)

.PHONY: advisories
advisories: ## Check dependencies for known vulnerabilities
	@scripts/lint advisories

.PHONY: exceptions
exceptions: ## List unsafe code and lint exceptions
	@scripts/lint exceptions

# Many tests wait for processes, so one more than there are cores runs at a time.
export RUST_TEST_THREADS ?= $(shell echo $$(( $$(nproc 2>/dev/null || echo 2) + 1 )))

.PHONY: test
test: setup ## Run every test on a real Kafka broker, and check the generated pages
	scripts/broker with cargo test --workspace $(FEATURES)
	@$(MAKE) --no-print-directory generated sql

.PHONY: sql
sql: ## Run the .slt files: what every view and SQL function answers
	@$(BUILD) --quiet
	cargo run --quiet --locked $(SQL_TESTS) -- check '$(PROGRAM)'

.PHONY: clients
clients: setup ## Test only the README's first events: Python, TypeScript, Go
	scripts/broker with cargo test --workspace $(FEATURES) --test main clients

.PHONY: generated
generated: ## Fail if a generated page differs from what the program prints
	@$(BUILD) --quiet
	@scripts/generated check '$(PROGRAM)'

.PHONY: generate
generate: ## Write the generated pages, and the answers in the .slt files
	@$(BUILD) --quiet
	@scripts/generated write '$(PROGRAM)'
	@cargo run --quiet --locked $(SQL_TESTS) -- write '$(PROGRAM)'

.PHONY: snapshots
snapshots: ## Write the snapshots of messages, titles and pages; read the diff
	INSTA_UPDATE=always cargo test --workspace $(FEATURES) --test main -- messages evidence

# --- Longer suites; `make test` runs a short form of each

.PHONY: torture
torture: setup ## Kill a worker KILLS times (1000), and deliverers, at random moments; SEED=n repeats the same moments
	BELLWETHER_KILLS=$(or $(KILLS),1000) scripts/broker with \
	  cargo test --workspace $(FEATURES) --test main -- crash::kill deliver::torture --nocapture
	PROPTEST_CASES=$(or $(CASES),5000) cargo test -p bellwether-deliver --lib planner

.PHONY: properties
properties: ## Run the property tests on other inputs, CASES=n each (2000); SEED=n repeats the same inputs
	PROPTEST_RNG_SEED=$(or $(SEED),$(shell date +%s)) PROPTEST_CASES=$(or $(CASES),2000) \
	  cargo test --workspace $(FEATURES) --lib --test detectors --test contract

.PHONY: simulate
simulate: ## Simulate ingest and aggregate with faults: SEEDS=n seeds (2000), or only SEED=n
	SEEDS='$(or $(SEEDS),2000)' SEED='$(SEED)' cargo test --workspace $(FEATURES) --test main simulation::$(if $(SEED),every_seed) -- --nocapture

# One release build serves all parts.
BENCH = cargo build --release --workspace --bin bellwether --bin bellwether-bench $(FEATURES) && \
	mkdir -p '$(CARGO_TARGET_DIR)/bench' && scripts/broker with '$(CARGO_TARGET_DIR)/release/bellwether-bench' \
	$(if $(QUICK),--quick) --scratch '$(CARGO_TARGET_DIR)/bench' --json '$(CARGO_TARGET_DIR)/bench/$(1).json' $(2)

.PHONY: bench
bench: ## Measure speed and memory on a real broker; QUICK=1 is shorter, PARTS='decode whole' selects parts
	@$(if $(PARTS),,scripts/peers fetch)
	$(call BENCH,bench,$(PARTS))

.PHONY: bench-peers
bench-peers: ## Compare with other stream processors
	@scripts/peers fetch
	$(call BENCH,peers,peers)

# The dev profile optimises the detectors: `bellwether-detection` needs no second build. The rules of a fleet also run SQL, so a
# hundred fleets take half an hour of CPU time with the release profile, and many times as much without.
DETECTION = $(CARGO_TARGET_DIR)/debug/bellwether-detection

.PHONY: privacy
privacy: ## Measure redaction on generated values, and write the tables of docs/privacy.md
	@scripts/setup privacy
	BELLWETHER_WRITE=1 cargo test --locked -p bellwether-redact --test main measured -- --nocapture

.PHONY: exports
exports: ## Install evaluation tools, and load exports with them
	@scripts/exports fetch
	@BELLWETHER_EXPORTS=all cargo test --locked -p bellwether-evalsets --test main tools -- --nocapture

.PHONY: sampling
sampling: ## Measure the sample for review on real runs, and write its tables in docs/evals.md
	BELLWETHER_WRITE=1 cargo test --workspace $(FEATURES) --test main -- late::sampled

.PHONY: bench-detection
bench-detection: ## Measure how well detection works, and compare with peers; QUICK=1 is shorter, SEEDS=n
	cargo build --workspace --bin bellwether-detection --bin bellwether-fleet $(FEATURES)
ifdef QUICK
	'$(DETECTION)' run --quick $(if $(SEEDS),--seeds $(SEEDS))
	'$(CARGO_TARGET_DIR)/debug/bellwether-fleet' --seeds 4 --faults 2
else
	@scripts/detection-peers fetch
	@mkdir -p '$(CARGO_TARGET_DIR)/bench'
	'$(DETECTION)' export '$(CARGO_TARGET_DIR)/bench/series.json'
	'$(DETECTION)' run $(if $(SEEDS),--seeds $(SEEDS)) --page docs/detection.md --pictures docs \
	  --json '$(CARGO_TARGET_DIR)/bench/detection.json' \
	  $$(scripts/detection-peers run '$(CARGO_TARGET_DIR)/bench/series.json' '$(CARGO_TARGET_DIR)/bench/detection-peers' | sed 's/^/--peers /')
	cargo build --release --workspace --bin bellwether-fleet --bin bellwether-detection $(FEATURES)
	'$(CARGO_TARGET_DIR)/release/bellwether-detection' gates $(if $(SEEDS),--seeds $(SEEDS)) --page docs/gates.md
	'$(CARGO_TARGET_DIR)/release/bellwether-fleet' $(if $(SEEDS),--seeds $(SEEDS)) --page docs/detection.md
endif
