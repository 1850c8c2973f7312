# The commands for people; .ci/run uses the same ones.
#
#   make run     everything on this machine: PostgreSQL, RabbitMQ, Posthaste
#   make run ARGS="--port 0"
#   make test    all tests, on real servers
#   make crash   the longer proof: kills and hangs under load, one after the other
#   make check   formatting, lints, documentation

CARGO ?= cargo
ARGS ?=

.PHONY: help run test crash check setup

help:
	@sed -n 's/^#   //p' Makefile

# PostgreSQL, RabbitMQ and a linker, from Debian's packages, when they are missing.
setup:
	@scripts/setup

run: setup
	$(CARGO) run --release --locked -- dev $(ARGS)

test:
	@scripts/setup tests
	$(CARGO) test --locked

crash:
	@scripts/setup tests
	$(CARGO) test --locked --test it -- --nocapture --test-threads=1 --include-ignored crash:: hang::

check:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --locked --no-deps
