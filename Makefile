# What there is to run; each target does its own set-up. Everything but what measures is built in
# one profile with the same flags, so that no target rebuilds what another has built. Only the crates to
# which the tests add features, and what depends on them, are built twice: with them and without.

# Tests wait more than they compute: five for each core. RUST_TEST_THREADS=1 make test says otherwise.
TEST_THREADS = $(or $(RUST_TEST_THREADS),$(shell expr 5 \* $$(getconf _NPROCESSORS_ONLN)))

export PATH := $(PATH):$(if $(CARGO_HOME),$(CARGO_HOME),$(HOME)/.cargo)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test interop loom prove soak two-versions fuzz check build dist install deploy-check first-answer bench peers instructions records load overload descriptors

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Not by `cargo run`: for one package alone it would build the dependencies with fewer features.
demo: ## the gateway, an upstream and a few calls; DEMO_ONCE=1 ends after them
	@scripts/setup.sh
	@echo "building; the first time takes some minutes"
	@cargo build --locked --workspace --bins
	@$(or $(CARGO_TARGET_DIR),target)/debug/demo

test: ## set-up, then every test
	@scripts/setup.sh --tests
	RUST_TEST_THREADS=$(TEST_THREADS) cargo test --locked

interop: ## set-up, then clients that are not ours; see interop/README.md
	@scripts/setup.sh --interop
	interop/run.sh

loom: ## the policies under every interleaving of a few threads; see tests/loom
	@scripts/setup.sh
	cargo test --locked --manifest-path tests/loom/Cargo.toml --target-dir $(or $(CARGO_TARGET_DIR),target)/loom

prove: ## set-up, then kills, cuts and fail-overs under load, for three minutes, and a ledger of requests and rows
	@scripts/setup.sh --tests
	scripts/prove.sh

soak: ## set-up, then the proofs of the record and of fleets at full length, in about a quarter of an hour
	@scripts/setup.sh --tests
	@scripts/oha.sh
	scripts/soak.sh

two-versions: ## this version and an earlier one share their stores, forwards and back; BEFORE=COMMIT
	@scripts/setup.sh --tests
	scripts/two-versions.sh $(BEFORE)

fuzz: ## each fuzz target, until it has run an hour in all (HOURS=1); see fuzz/README.md
	@scripts/setup.sh --fuzz
	fuzz/run.sh

check: ## what CI denies: formatting, warnings, broken documentation, licences and bans
	@scripts/setup.sh
	cargo fmt --check
	cargo fmt --check --manifest-path tests/loom/Cargo.toml
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
	scripts/deny.sh

build: ## the gateway, optimised: target/release/portcullis, its symbols in portcullis.debug
	@scripts/setup.sh
	scripts/release.sh

dist: ## what is released, in dist/: archive, Debian package, symbols, SBOM, licences, checksums
	@scripts/setup.sh --dist
	scripts/dist.sh

PREFIX = /usr/local
install: ## the gateway with its manual, completions and unit in DESTDIR and PREFIX (/usr/local)
	@[ -n "$(BINARY)" ] || { scripts/setup.sh && scripts/release.sh; }
	scripts/install.sh $(or $(BINARY),$(or $(CARGO_TARGET_DIR),target)/release/portcullis) "$(DESTDIR)" $(PREFIX)

first-answer: ## from the archive in dist/ to the first 200, on a bare Debian
	@scripts/setup.sh --dist
	scripts/first-answer.sh

deploy-check: ## every file of deploy/, by the tools of the systems that it is for
	@scripts/setup.sh --deploy
	deploy/check/run.sh

descriptors: ## conf/gateway.binpb from conf/gateway.proto
	@scripts/setup.sh
	cargo run --locked --quiet --example descriptors

bench: ## side by side with a bare Pingora; see bench/README.md
	@scripts/setup.sh --bench
	bench/run.sh
	bench/grpc.sh

peers: ## beside NGINX, HAProxy, Envoy, Traefik, Caddy and a bare Pingora; see bench/README.md
	@scripts/setup.sh --bench --peers
	bench/peers.sh

instructions: ## counts them for each request, under valgrind, and compares; see bench/README.md
	@scripts/setup.sh --instructions
	@scripts/gungraun.sh
	bench/instructions.sh

records: ## what each mode of the record costs, and how fast a journal is shipped; see bench/README.md
	@scripts/setup.sh --bench --tests
	bench/records.sh

load: ## what limits, bulkheads and circuits do under load; see bench/README.md
	@scripts/setup.sh --bench
	@scripts/oha.sh
	bench/load.sh

overload: ## an upstream that sixteen times as many clients want as it can take; see bench/README.md
	@scripts/setup.sh --bench
	bench/overload.sh
