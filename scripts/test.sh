#!/bin/bash
# Runs all tests and ends with one line that sums them up: "N passed, N failed, N skipped". The exit code is cargo's.
#
#   test.sh            the whole suite, on real servers
#   test.sh --quick    all tests that need no server
#
# A test that cannot run here, because it needs root, namespaces or loop devices, prints a line that begins with
# "skipped:", and counts as skipped.
set -uo pipefail
cd "$(dirname "$0")/.."

# Two at a time by default: tests with servers take about one processor each.
threads=${TEST_THREADS:-2}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

run() {
    cargo test --no-fail-fast "$@" </dev/null 2>&1 | tee -a "$log"
    local status=${PIPESTATUS[0]}
    [ "$status" -eq 0 ] || code=$status
}

code=0
if [ "${1:-}" = --quick ]; then
    shift
    run -p rejoin-formats -p rejoin-protocol -p rejoin-cli "$@" -- --test-threads="$(nproc)"
    # Excluded: tests that create a datadir, and those that compare option files with the server's own program.
    run -p rejoin-transfer --lib --test first_process --test peer "$@" -- --test-threads="$(nproc)" \
        --skip datadir::real_tests --skip server::options::tests
    run -p rejoin-lab --lib "$@" -- --test-threads="$(nproc)"
else
    run --workspace "$@" -- --test-threads="$threads"
fi

skipped=$(grep -c '^skipped: ' "$log")
awk -v skipped="$skipped" '/^test result:/ {
        for (i = 1; i < NF; i++) {
            if ($(i + 1) == "passed;") passed += $i
            if ($(i + 1) == "failed;") failed += $i
        }
    }
    END { printf "%d passed, %d failed, %d skipped\n", passed - skipped, failed, skipped }' "$log"
exit "$code"
