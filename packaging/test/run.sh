#!/bin/bash
# The package on three machines with Debian 12, its real systemd and its server: run.sh [CASE...], all cases unless some are
# named (packaging/test/cases). Needs root. What is downloaded is kept in target/package-test; nothing else is left. Where this
# machine cannot run it, it prints "not run: REASON" and ends with 77, which .ci/run tells from a failure.
#
# Each machine is a container in a network namespace of its own; a fourth namespace holds the switch between them.
set -euo pipefail
cd "$(dirname "$0")/../.."
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"
. packaging/test/machines.sh
. packaging/test/cluster.sh

check_machine

cases=("$@")
[ "${#cases[@]}" -gt 0 ] || mapfile -t cases < <(ls packaging/test/cases | sed 's/\.sh$//')
deb=$(ls -t "${CARGO_TARGET_DIR:-target}"/debian/rejoin_*_"$(dpkg --print-architecture)".deb | head -n 1)

mkdir -p target/package-test
work=$(mktemp -d target/package-test/run.XXXXXX)
work=$(realpath "$work")
trap 'end_machines; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

make_layers
begin_network
for n in 1 2 3; do boot "$n"; done
failed=0
for case in "${cases[@]}"; do
    began=$SECONDS
    # A case runs in a shell of its own, so that its first failed command ends it and only it. Not as a condition: there a
    # failed command ends nothing.
    set +e
    (
        set -eEuo pipefail
        trap 'echo "failed: line $LINENO: $BASH_COMMAND" >&2' ERR
        PS4='+ ${SECONDS}s '
        set -x
        . "packaging/test/cases/$case.sh"
    ) >"$work/$case.log" 2>&1
    result=$?
    set -e
    if [ "$result" -eq 0 ]; then
        echo "ok      $case ($((SECONDS - began)) s)"
        grep -a '^figure: ' "$work/$case.log" | sed 's/^figure: /        /' || true
    else
        echo "FAILED  $case ($((SECONDS - began)) s)"
        tail -n 40 "$work/$case.log"
        failed=$((failed + 1))
        # What the machines say is what a reader of the failure needs; later cases need the cluster that this one broke.
        for n in 1 2 3; do
            echo "--- machine $n"
            on "$n" journalctl --no-pager -o cat -n 30 -u mariadb -u rejoin-finish || true
        done
        break
    fi
done
echo "$((${#cases[@]})) cases, $failed failed"
[ "$failed" -eq 0 ]
