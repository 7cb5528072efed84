# rejoin: what there is to run. `make demo` and `make test` are all one needs.

CARGO        ?= cargo
PREFIX       ?= /usr
DESTDIR      ?=
FUZZ_SECONDS ?= 60
ROUNDS       ?= 20
METHOD       ?= rejoin
MEGABYTES    ?= 400
CHURN        ?= 0,0.2,1,4
CHANGED      ?= 0,0.1,1,10,100
BENCH_MEGABYTES ?= 2500
# COLD=1: nothing of the donor's files is in the page cache.
COLD         ?=
REPEAT       ?= 3
DDL_EVERY    ?= 50
# Where cargo puts what it builds.
TARGET       := $(or $(CARGO_TARGET_DIR),target)

.PHONY: all build release deps demo test check joins storm storm-can-fail bench figures moment cluster mtr install uninstall fuzz clean

all: release

build: deps
	$(CARGO) build --workspace

release:
	$(CARGO) build --release -p rejoin-cli

# What the servers and tests need: installs only what is missing, and quietly does nothing otherwise.
deps:
	@scripts/install-deps.sh

# Three real nodes: one is lost, much is written, it comes back by what changed, from another donor, though the transfer is cut.
demo: deps
	$(CARGO) build --release -p rejoin-cli -p rejoin-lab
	$(TARGET)/release/lab demo --megabytes $(MEGABYTES)

# Everything, and one line with the sum at the end. A second series of the server is unpacked for the tests that need it;
# where that fails, they do, and say why.
test: build
	-@scripts/unpack-mariadb-11.8.sh $(TARGET)/mariadb-11.8
	@scripts/test.sh

check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --workspace --no-deps --quiet

# ROUNDS joins in a row, from every state of the joiner, under load and DDL.
joins: deps
	$(CARGO) build --release -p rejoin-cli -p rejoin-lab
	$(TARGET)/release/lab joins --method $(METHOD) --rounds $(ROUNDS)

# Full transfers while two nodes write and change tables; is every joiner equal to both? ROUNDS=100 takes most of an hour.
# CASE=plain,binlog,undo,import,temporary,encrypted for some of the cases, DDL_EVERY=0 for writes alone.
STORM = storm --rounds $(ROUNDS) $(if $(CASE),--case $(CASE))
storm: deps
	$(CARGO) build --release -p rejoin-cli -p rejoin-lab
	$(TARGET)/release/lab $(STORM) --ddl-every $(DDL_EVERY) --method $(METHOD)

# The same scenario must find wrong joiners where there are some: with the mariabackup method, which lets replication go
# on while it ends, and with a test build of our own that does the same. Fails when every joiner was right.
# Under denser DDL mariabackup mostly notices and fails: that is no wrong joiner.
storm-can-fail: ROUNDS = 6
storm-can-fail: CASE = plain
storm-can-fail: deps
	$(CARGO) build --release -p rejoin-lab
	$(TARGET)/release/lab $(STORM) --ddl-every 400 --method mariabackup --expect-wrong
	$(CARGO) build --release -p rejoin-cli --features unpaused --target-dir $(TARGET)/unpaused
	$(TARGET)/release/lab $(STORM) --ddl-every 50 --method rejoin --binary $(TARGET)/unpaused/release/rejoin --expect-wrong

# The same full transfer by each method, idle and under write load, REPEAT times in turn: a table with medians. The figures
# are the machine's: let nothing else run meanwhile.
bench: deps
	$(CARGO) build --release -p rejoin-cli -p rejoin-lab
	$(TARGET)/release/lab bench --megabytes $(BENCH_MEGABYTES) --repeat $(REPEAT) $(if $(COLD),--cold)

# What a node that was away receives, by how many rows were changed meanwhile and how many were rewritten before, by each
# method: a table. CHURN and CHANGED are lists; the whole of both takes more than an hour.
figures: deps
	$(CARGO) build --release -p rejoin-cli -p rejoin-lab
	$(TARGET)/release/lab figures --churn $(CHURN) --changed $(CHANGED)

# What 20,000 tables and a MyISAM table of 1 GiB cost in the settled moment.
moment: deps
	$(CARGO) build --release -p rejoin-cli -p rejoin-lab
	$(TARGET)/release/lab moment

# The server's own Galera tests with this method; downloads the tests of the installed version. MTR_TESTS="suite.name ..." for some.
mtr: deps
	$(CARGO) build --release -p rejoin-cli
	REJOIN_BIN=$(TARGET)/release/rejoin ci-mtr/run.sh $(MTR_TESTS)

# A cluster to play with, until Enter.
cluster: deps
	$(CARGO) build --release -p rejoin-cli -p rejoin-lab
	$(TARGET)/release/lab cluster --method $(METHOD)

# The server looks for SST programs in <basedir>/bin first, which is /usr/bin for packages.
# Brought up to date first; where there is no cargo (root on a server, say), what was built before serves.
install:
	if command -v $(CARGO) >/dev/null; then $(CARGO) build --release -p rejoin-cli; fi
	install -d "$(DESTDIR)$(PREFIX)/bin"
	install -m 755 $(TARGET)/release/rejoin "$(DESTDIR)$(PREFIX)/bin/rejoin"
	ln -sfn rejoin "$(DESTDIR)$(PREFIX)/bin/wsrep_sst_rejoin"

uninstall:
	rm -f "$(DESTDIR)$(PREFIX)/bin/wsrep_sst_rejoin" "$(DESTDIR)$(PREFIX)/bin/rejoin"

# Every fuzz target for FUZZ_SECONDS. Needs a nightly toolchain and cargo-fuzz.
fuzz:
	cd fuzz && for target in $$($(CARGO) +nightly fuzz list); do \
		$(CARGO) +nightly fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS) || exit 1; done

clean:
	$(CARGO) clean
