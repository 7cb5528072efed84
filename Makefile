# Targets of rejoin. Start with `make demo` and `make test`; use `make quick` during development.

CARGO        ?= cargo
PREFIX       ?= /usr
DESTDIR      ?=
FUZZ_SECONDS ?= 60
ROUNDS       ?= 20
SEED         ?= 1
METHOD       ?= rejoin
MEGABYTES    ?= 400
CHURN        ?= 0,0.2,1,4
CHANGED      ?= 0,0.1,1,10,100
BENCH_MEGABYTES ?= 2500
# COLD=1: the nodes' files are not in the page cache.
COLD         ?=
BENCH_CASE   ?=
# LINK=125 LATENCY=40: transfers pass a link of 125 MB/s with a round trip of 40 ms.
LINK         ?=
LATENCY      ?=
BY_ROWS      ?=
REPEAT       ?= 3
DEEP_MEGABYTES ?= 100
DDL_EVERY    ?= 50
# cargo's target directory.
TARGET       := $(or $(CARGO_TARGET_DIR),target)

.PHONY: all build release deps programs demo test quick check joins storm storm-can-fail outages chaos strangers scale throttle redo-table bench figures grid deep-ist cold moment cluster mtr install uninstall deb rpm package-files package-test package-test-files image image-test fuzz clean

all: release

build: deps
	$(CARGO) build --workspace

release:
	$(CARGO) build --release -p rejoin-cli

# Installs the packages that servers and tests need, if they are missing.
deps:
	@scripts/install-deps.sh

# Builds the program for the scenarios below.
programs: deps
	$(CARGO) build --release -p rejoin-cli -p rejoin-lab

# Three real nodes: one is lost, the others write a lot, and it gets the changes from another donor although the transfer is interrupted.
demo: programs
	$(TARGET)/release/lab demo --megabytes $(MEGABYTES)

# All tests, with one summary line at the end. A second series of the server is unpacked for the tests that need it;
# if that fails, those tests fail with the reason.
test: build
	-@scripts/unpack-mariadb-11.8.sh $(TARGET)/mariadb-11.8
	@scripts/test.sh

# All tests that need no server: under two minutes after the build.
quick:
	@scripts/test.sh --quick

check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --workspace --no-deps --quiet

# ROUNDS joins in a row, from every state of the joiner, under load and DDL.
joins: programs
	$(TARGET)/release/lab joins --method $(METHOD) --rounds $(ROUNDS)

# Full transfers while two nodes write and change tables; every joiner must equal both. ROUNDS=100 takes most of an hour.
# CASE=plain,binlog,undo,import,temporary,encrypted,mariabackup,logical,remembered selects cases, DDL_EVERY=0 does writes only.
STORM = storm --rounds $(ROUNDS) $(if $(CASE),--case $(CASE))
storm: programs
	$(TARGET)/release/lab $(STORM) --ddl-every $(DDL_EVERY) --method $(METHOD)

# Nodes that were away until no gcache reaches back return by an archive of write-sets, while two others write and change
# tables; all must be equal. CASE=plain,tls,dynamic,large,restart,two,everything selects cases. ROUNDS=100 takes two hours.
outages: programs
	$(TARGET)/release/lab outages --rounds $(ROUNDS) $(if $(CASE),--case $(CASE)) --seed $(SEED)

# Shows that the same scenario detects wrong joiners: with the mariabackup method, which does not pause replication at its
# end, and with a test build of ours that does the same. Fails if every joiner was correct.
# Under denser DDL mariabackup usually notices and fails, which does not count as a wrong joiner.
storm-can-fail: ROUNDS = 6
storm-can-fail: CASE = plain
storm-can-fail: deps
	$(CARGO) build --release -p rejoin-lab
	$(TARGET)/release/lab $(STORM) --ddl-every 400 --method mariabackup --expect-wrong
	$(CARGO) build --release -p rejoin-cli --features unpaused --target-dir $(TARGET)/unpaused
	$(TARGET)/release/lab $(STORM) --ddl-every 50 --method rejoin --binary $(TARGET)/unpaused/release/rejoin --expect-wrong

# ROUNDS joins of three real nodes, each with one fault at a random instant: donor or joiner, its program, its server or its
# whole host is killed, terminated, suspended or cut off, or its disk is full. Needs root. SEED selects the faults; a failed
# round leaves its logs in /tmp/rejoin-chaos.
chaos: programs
	$(TARGET)/release/lab chaos --rounds $(ROUNDS) --seed $(SEED)

# Six transfers while 400 clients connect to the joiner's port repeatedly and all processors are busy.
strangers: programs
	$(TARGET)/release/lab strangers

# The same transfer by each method: to an empty node, idle and under write load, where nothing has changed, and where 40 % of the
# pages have, REPEAT times in turn. A table with medians and with what limited each (disk, link, processors), also in
# target/bench.json and, as a picture, target/bench.svg. BENCH_CASE=full,loaded,same,changed selects cases, LINK=125 has transfers pass a link of 125 MB/s (needs root),
# LATENCY=40 beside it gives that a round trip of 40 ms.
# The figures depend on the machine, so run nothing else meanwhile.
# BY_ROWS=1 measures definitions and rows instead of files: snapshot=logical beside the method mysqldump, mariadb-dump, and LOAD DATA.
bench: programs
	$(TARGET)/release/lab bench --megabytes $(BENCH_MEGABYTES) --repeat $(REPEAT) $(if $(COLD),--cold) \
		$(if $(BENCH_CASE),--case $(BENCH_CASE)) $(if $(LINK),--link $(LINK)) $(if $(LATENCY),--latency $(LATENCY)) \
		$(if $(BY_ROWS),--by-rows,--json $(TARGET)/bench.json --svg $(TARGET)/bench.svg)

# What an archive of write-sets costs a node, and what it gains one that was away: each a ratio in one run, REPEAT times in turn.
deep-ist: programs
	$(TARGET)/release/lab deep-ist --megabytes $(DEEP_MEGABYTES) --repeat $(REPEAT)

# A table of how much a returning node receives by each method, by the share of rows that were changed while it was away
# and rewritten before. CHURN and CHANGED are lists; all of both take more than an hour. LINK and LATENCY as for `make bench`.
figures: programs
	$(TARGET)/release/lab figures --churn $(CHURN) --changed $(CHANGED) \
		$(if $(LINK),--link $(LINK)) $(if $(LATENCY),--latency $(LATENCY))

# What delta and compress choose by themselves beside each fixed choice: four links by four shares of pages that differ, as many
# turns as MINUTES allow. A table, also in target/grid.json. Needs root.
MINUTES ?= 35
GRID_MEGABYTES ?= 200,600,1000,1000
grid: programs
	$(TARGET)/release/lab figures --grid --minutes $(MINUTES) --grid-megabytes $(GRID_MEGABYTES) --json $(TARGET)/grid.json

# What neither host reads because it has not changed: bytes and seconds, with and without memory, and by rsync.
# COLD_MEGABYTES=5000,10000,20000 HOT_MEGABYTES=1000 has three sizes with the same table that changes.
COLD_MEGABYTES ?= 2000
HOT_MEGABYTES ?=
cold: programs
	$(TARGET)/release/lab cold --megabytes $(COLD_MEGABYTES) --repeat $(REPEAT) $(if $(HOT_MEGABYTES),--hot-megabytes $(HOT_MEGABYTES))

# The cost of 20,000 tables and a MyISAM table of 1 GiB at the consistency point.
moment: programs
	$(TARGET)/release/lab moment

# The cost of the number of tables and of the bytes: pause of replication, memory, processor time, page cache, seconds.
# TABLES=1000,20000,100000 sets the numbers, SCALE_MEGABYTES=1000,5000,20000 adds sizes in few tables.
TABLES ?= 1000,20000
SCALE_MEGABYTES ?=
scale: programs
	$(TARGET)/release/lab scale --tables $(TABLES) $(if $(SCALE_MEGABYTES),--megabytes $(SCALE_MEGABYTES)) $(if $(COLD),--cold)

# What clients of a donor under 80 % load feel of a transfer, with adaptive-throttle and without, and what it costs. Run nothing
# else meanwhile. MEGABYTES=8000 on a fast disk.
throttle: MEGABYTES = 4000
throttle: programs
	$(TARGET)/release/lab throttle --megabytes $(MEGABYTES) --repeat $(REPEAT)

# What redo costs on the wire and in recovery, beside rsync and mariabackup; transfers below a limit. Needs root (networks of
# its own). REDO_CASES=rows,full,tables,link,limit for some. The whole takes some hours.
REDO_CASES ?= rows,full,tables,link,limit
redo-table: programs
	$(TARGET)/release/lab redo-table --case $(REDO_CASES)

# The server's own Galera tests with this method; downloads the tests of the installed version. MTR_TESTS="suite.name ..." selects some.
mtr: deps
	$(CARGO) build --release -p rejoin-cli
	REJOIN_BIN=$(TARGET)/release/rejoin ci-mtr/run.sh $(MTR_TESTS)

# A cluster to play with, until Enter.
cluster: programs
	$(TARGET)/release/lab cluster --method $(METHOD)

# The server searches for SST programs in <basedir>/bin first, which is /usr/bin for packages.
# The program is rebuilt first; without cargo (for example as root on a server) the existing build is installed.
install:
	if command -v $(CARGO) >/dev/null; then $(CARGO) build --release -p rejoin-cli; fi
	install -d "$(DESTDIR)$(PREFIX)/bin"
	install -m 755 $(TARGET)/release/rejoin "$(DESTDIR)$(PREFIX)/bin/rejoin"
	ln -sfn rejoin "$(DESTDIR)$(PREFIX)/bin/wsrep_sst_rejoin"

uninstall:
	rm -f "$(DESTDIR)$(PREFIX)/bin/wsrep_sst_rejoin" "$(DESTDIR)$(PREFIX)/bin/rejoin"

# Packages with the program, its documents and units: docs/packages.md. They are written to target/debian and
# target/generate-rpm. The build gets the commit that --version prints, with a suffix if the source was changed since.
COMMIT ?= $(if $(wildcard .git),$(shell git describe --always --dirty=+changes --abbrev=12 --exclude '*'))
TOOLS  := target/tools/bin

package-files:
	@scripts/install-package-tools.sh
	REJOIN_COMMIT=$(COMMIT) $(CARGO) build --release -p rejoin-cli
	scripts/package-files.sh
	scripts/check-glibc.sh $(TARGET)/release/rejoin

deb: package-files
	$(TOOLS)/cargo-deb --no-build --dbgsym -p rejoin-cli
	@if command -v lintian >/dev/null; then scripts/check-deb.sh; else echo 'lintian is not installed: the package was not checked'; fi

rpm: package-files
	scripts/split-debug.sh $(TARGET)/release/rejoin packaging/built
	$(TOOLS)/cargo-generate-rpm -p crates/cli --payload-compress zstd
	$(TOOLS)/cargo-generate-rpm -p crates/cli --payload-compress zstd --variant debuginfo \
		--metadata-overwrite packaging/built/debuginfo.toml
	@if command -v rpm >/dev/null; then scripts/check-rpm.sh; fi

# A container image with the program, linked statically, and nothing else: target/image/rejoin.tar. See docs/kubernetes.md.
image:
	@REJOIN_COMMIT=$(COMMIT) scripts/image.sh

# Real servers with the program of that image, under rejoin's name and under another method's.
image-test: image build
	-@scripts/unpack-mariadb-11.8.sh $(TARGET)/mariadb-11.8
	REJOIN_BIN=$(CURDIR)/target/image/rejoin $(CARGO) test -p rejoin-lab --test servers -- under_the_name_of_rsync
	REJOIN_BIN=$(CURDIR)/target/image/rejoin $(CARGO) test -p rejoin-lab --test servers -- joins::

# Tests the packages: lintian, rpm, then the .deb on three Debian 12 machines, real systemd in containers, with Debian's server. Needs root.
package-test: package-test-files
	packaging/test/run.sh $(CASES)

# What that tests. Without lintian and rpm the packages are built all the same; what else is missing stops the test itself.
package-test-files:
	-@packaging/test/install-tools.sh
	$(MAKE) deb rpm

# Runs every fuzz target for FUZZ_SECONDS. Needs a nightly toolchain and cargo-fuzz.
fuzz:
	cd fuzz && for target in $$($(CARGO) +nightly fuzz list); do \
		$(CARGO) +nightly fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS) || exit 1; done

clean:
	$(CARGO) clean
