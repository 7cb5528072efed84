#!/bin/bash
# Checks the RPM as rpm itself reads it: its digests, scripts that a shell takes, an option file that an upgrade keeps, a C
# library no newer than docs/packages.md states, and the same program, units, pages and documents as in the .deb, if that is there.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
rpm=$(ls -t "$target"/generate-rpm/rejoin-[0-9]*.rpm | head -n 1)

query() { rpm -qp --nosignature "$@" "$rpm"; }
fail() { echo "$rpm: $*" >&2; exit 1; }

rpm -K --nosignature "$rpm" >/dev/null || fail "its digests are wrong"
for script in POSTIN PREUN POSTUN; do
    query --qf "%{$script}" | sh -n || fail "no shell takes its script $script"
done
query --configfiles | grep -qx /etc/my.cnf.d/rejoin.cnf || fail "the option file is not marked"
newest=$(query --requires | sed -n 's/^libc\.so\.6(GLIBC_\([0-9.]*\)).*/\1/p' | sort -V | tail -n 1)
[ -n "$newest" ] || fail "it does not require the C library"
grep -q "glibc $newest or newer" docs/packages.md || fail "it requires glibc $newest, which docs/packages.md does not state"

deb=$(ls -t "$target"/debian/rejoin_*.deb 2>/dev/null | head -n 1 || true)
[ -n "$deb" ] || exit 0
# The link to the program is made by the RPM's script.
common() { grep -E '^/usr/(bin/rejoin|lib/systemd/system/.+|share/man/.+|share/doc/rejoin/(docs|contrib)/.+)$' | grep -v '/$' | sort; }
diff <(dpkg-deb --fsys-tarfile "$deb" | tar -t | sed 's/^\.//' | common) <(query --list | common) ||
    fail "not the same files as in $deb"
