# The commands for people; .ci/run uses the same ones.
#
#   make run     everything on this machine: PostgreSQL, RabbitMQ, Posthaste
#   make run EXAMPLE=two-databases   another application than write-db: one of examples/
#   make run ARGS="--port 0"
#   make test    all tests, on real servers
#   make crash   a minute of faults on two instances under load, drawn from a dice with a new seed
#   make crash SECONDS=600 SEED=42
#   make hang    servers and instances that are killed and that hang, under load, one kind after the other
#   make memory  many messages of 1 MiB and of 60 MiB wait, and a restart has 256 MiB: an hour, and 40 GB of disk
#   make crash-matrix   an error, a panic, an exit, a hang and a cut at each point that the protocol names: 30 minutes
#   make bench   Posthaste against the least that its servers must do for the same job: 40 minutes
#   make bench ROWS=base,conn-256 ROUNDS=3 WINDOW=5   a part of it; DOCS=1 puts it into docs/
#   make bench AGAINST=BINARY   this build and that of another posthaste take turns: is this one as fast? It says how long that takes
#   make overload SECONDS=300   twice what it can take: what is answered, how much memory, and that nothing is lost
#   make check   formatting, lints, documentation

CARGO ?= cargo
ARGS ?=
EXAMPLE ?=

.PHONY: help run test crash hang memory crash-matrix bench overload check setup

help:
	@sed -n 's/^#   //p' Makefile

# PostgreSQL, RabbitMQ and a linker, from Debian's packages, when they are missing.
setup:
	@scripts/setup

example = $(if $(EXAMPLE),--resources examples/$(EXAMPLE)/resources.yml --configurations examples/$(EXAMPLE)/configurations)

run: setup
	$(CARGO) run --release --locked -- dev $(example) $(ARGS)

# More at once than there are cores, where those are few: most tests wait for servers.
test: export RUST_TEST_THREADS ?= $(shell echo $$(( $$(nproc) > 3 ? $$(nproc) : 3 )))
test:
	@scripts/setup tests
	$(CARGO) test --locked
	@# The last: it leaves a program that knows the crash points in target/.
	$(CARGO) test --locked --features faults --test crash_matrix

# Only what is given: the tests have defaults of their own.
DICE = $(if $(SECONDS),POSTHASTE_SECONDS=$(SECONDS)) $(if $(SEED),POSTHASTE_SEED=$(SEED))
TRIALS = $(CARGO) test --locked --test it -- --nocapture --test-threads=1 --include-ignored

crash:
	@scripts/setup tests
	$(DICE) $(TRIALS) crash::every_202_takes_effect_once_whatever_befalls

hang:
	@scripts/setup tests
	$(DICE) $(TRIALS) crash::every_202_takes_effect_once_whatever_is_killed hang::

memory:
	@scripts/setup tests
	$(TRIALS) memory::

crash-matrix:
	@scripts/setup tests
	$(CARGO) test --locked --features faults --test crash_matrix -- --nocapture --test-threads=1 --include-ignored

MEASURED = $(if $(ROWS),--rows $(ROWS)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(WINDOW),--window $(WINDOW)) $(if $(DOCS),--docs) $(if $(AGAINST),--against $(abspath $(AGAINST)))

bench:
	@scripts/setup
	$(CARGO) bench --locked --bench ratio -- $(MEASURED)

overload:
	@scripts/setup
	@# 8,000 clients; those for whom there is no file descriptor are told as not connected.
	ulimit -Sn $$(ulimit -Hn) || true; $(CARGO) bench --locked --bench ratio -- --overload $(or $(SECONDS),300)

check:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --features faults --test crash_matrix -- -D warnings
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --locked --no-deps
