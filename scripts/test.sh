#!/bin/bash
# Runs all tests and ends with one line that sums them up: "N passed, N failed, N skipped". The exit code is 0 if no test
# failed.
#
#   test.sh            the whole suite, on real servers
#   test.sh --quick    all tests that need no server
#
# A test that cannot run here, because it needs root, namespaces or loop devices, prints a line that begins with
# "skipped:", and counts as skipped.
#
# A test that failed is run a second time, alone, and counts as passed if it passes then; a line before the totals names
# it. Nodes that differ are never given a second chance, and neither is anything with TEST_RETRY=0
# (docs/decisions/0034-one-second-try.md).
set -uo pipefail
cd "$(dirname "$0")/.."

# Two at a time by default: tests with servers take about one processor each.
threads=${TEST_THREADS:-2}
log=$(mktemp)
second=$(mktemp)
trap 'rm -f "$log" "$second"' EXIT

run() {
    cargo test --no-fail-fast "$@" </dev/null 2>&1 | tee -a "$log"
    local status=${PIPESTATUS[0]}
    [ "$status" -eq 0 ] || code=$status
    # 101 is also what cargo ends with when tests failed.
    [ "$status" -eq 0 ] || [ "$status" -eq 101 ] || only_tests=0
}

# Each failed test: the arguments of its program, a tab, its name, a tab, "differs" if its output says so.
failed_tests() {
    awk '/^test [^ ]+ \.\.\. FAILED$/ { failed[$2] = "" }
        /^---- [^ ]+ stdout ----$/ { name = $2 }
        /^failures:$/ { name = "" }
        name != "" && /differ|not what the donor read|but the donor recorded|not as long on both|changed: / {
            failed[name] = "differs"
        }
        /^error: test failed, to rerun pass `/ {
            split($0, parts, "`")
            for (test in failed) printf "%s\t%s\t%s\n", parts[2], test, failed[test]
            delete failed
        }' "$log"
}

code=0
only_tests=1
if [ "${1:-}" = --quick ]; then
    shift
    run -p rejoin-formats -p rejoin-protocol -p rejoin-report -p rejoin-cli "$@" -- --test-threads="$(nproc)"
    # Excluded: tests that create a datadir, and those that compare option files with the server's own program.
    run -p rejoin-transfer --lib --test first_process --test peer "$@" -- --test-threads="$(nproc)" \
        --skip datadir::real_tests --skip server::options::tests
    run -p rejoin-lab --lib "$@" -- --test-threads="$(nproc)"
else
    run --workspace "$@" -- --test-threads="$threads"
fi

list=$(failed_tests)
again=0
# Only where every failure is that of a named test: no program that a signal ended, no build, no example in the docs.
named=$(grep -c . <<<"$list")
failed=$(awk '/^test result:/ { for (i = 1; i < NF; i++) if ($(i + 1) == "failed;") sum += $i } END { print sum + 0 }' "$log")
programs=$(grep -c '^test result: FAILED' "$log")
ended=$(grep -cE '^error: ((test|doctest) failed, to rerun|could not compile)' "$log")
if [ "$named" -ne "$failed" ] || [ "$programs" -ne "$ended" ]; then
    only_tests=0
fi
if [ "$named" -gt 0 ] && [ "$only_tests" -eq 1 ] && [ "${TEST_RETRY:-1}" != 0 ]; then
    while IFS=$'\t' read -r target name differs; do
        [ -z "$differs" ] || continue
        echo "running again, alone: $name"
        # shellcheck disable=SC2086 # the target is several arguments
        if cargo test $target -- --exact "$name" --test-threads=1 </dev/null 2>&1 | tee "$second" &&
            grep -q '^test result: ok\. 1 passed' "$second" && ! grep -q '^skipped: ' "$second"; then
            again=$((again + 1))
            lines+="passed at the second try: $name"$'\n'
        fi
    done <<<"$list"
    [ "$again" -ne "$named" ] || code=0
fi

printf '%s' "${lines:-}"
skipped=$(grep -c '^skipped: ' "$log")
awk -v skipped="$skipped" -v again="$again" '/^test result:/ {
        for (i = 1; i < NF; i++) {
            if ($(i + 1) == "passed;") passed += $i
            if ($(i + 1) == "failed;") failed += $i
        }
    }
    END { printf "%d passed, %d failed, %d skipped\n", passed - skipped + again, failed - again, skipped }' "$log"
exit "$code"
