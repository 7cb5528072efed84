#!/bin/bash
# Runs all tests and ends with one line that sums them up: "N passed, N failed". The exit code is cargo's.
set -uo pipefail
cd "$(dirname "$0")/.."

# Two at a time by default: tests with servers take about one processor each.
threads=${TEST_THREADS:-2}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

cargo test --workspace --no-fail-fast "$@" -- --test-threads="$threads" </dev/null 2>&1 | tee "$log"
code=${PIPESTATUS[0]}

awk '/^test result:/ {
        for (i = 1; i < NF; i++) {
            if ($(i + 1) == "passed;") passed += $i
            if ($(i + 1) == "failed;") failed += $i
        }
    }
    END { printf "%d passed, %d failed\n", passed, failed }' "$log"
exit "$code"
