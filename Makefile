# One door. `make demo` and `make test` are all that a newcomer needs; both install what is missing.
#
# Building needs no root. What makes namespaces and containers does: it is run through sudo unless you are root already.

SHELL := /bin/bash
.DEFAULT_GOAL := help
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/local/sbin:/usr/sbin:/sbin

SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
BIN := target/debug
PREFIX ?= /usr

# Tests that make namespaces run as root; cargo itself does not.
RUNNER := $(if $(SUDO),CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER='sudo -E' CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER='sudo -E')

.PHONY: help deps build demo demo-down test check fmt fmt-check clippy walls doc bench release install clean

help:                   ## Show this
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:[^#]*## /\t/' | expand -t 14

deps:                   ## Install the packages that are missing, and say why
	@./scripts/deps.sh

build: deps             ## Build every program (debug)
	cargo build --workspace --bins

demo: build             ## An ECS cluster on two instances of a VPC in a box, driven with the AWS CLI; KEEP=1 leaves it running
	$(SUDO) env KEEP="$(KEEP)" $(BIN)/demo

demo-down: build        ## Remove what a demo has left running
	$(SUDO) $(BIN)/demo down

test: build             ## All tests, those in namespaces, with a private containerd, the AWS CLI, boto3 and moto included
	$(RUNNER) cargo test --workspace --no-fail-fast

check: fmt-check clippy walls doc ## Format, lints, the walls between crates, documentation

fmt:                    ## Format
	cargo fmt --all

fmt-check:              ## Is it formatted?
	cargo fmt --all --check

clippy: deps            ## Lints, warnings are errors
	cargo clippy --workspace --all-targets -- -D warnings

# They hold design: one crate compiles the EC2 client, one the ECS client, and only the agent joins two siblings.
walls:                  ## The walls between the crates
	./scripts/walls.sh

doc: deps               ## Documentation, warnings are errors
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --quiet

bench: release          ## Benchmarks, release build (BENCH=node for one)
	cargo build --release -p vpcbox
	$(RUNNER) cargo bench --workspace $(if $(BENCH),--bench $(BENCH),--benches)

release: deps           ## Build the programs that are installed (release)
	cargo build --release -p berth -p berth-containerd --bins

install: release        ## Install programs, unit and documents under $(PREFIX)
	install -D -m 0755 target/release/berth $(DESTDIR)$(PREFIX)/bin/berth
	install -D -m 0755 target/release/berth-logger $(DESTDIR)$(PREFIX)/bin/berth-logger
	install -D -m 0644 systemd/berth.service $(DESTDIR)$(PREFIX)/lib/systemd/system/berth.service
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/doc/berth README.md CHANGELOG.md
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/doc/berth/docs docs/*.md docs/iam-policy.json

clean: ## Remove what was built
	cargo clean
