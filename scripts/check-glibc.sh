#!/bin/bash
# Fails if the program needs a newer C library than docs/packages.md states, or another library.
set -euo pipefail
cd "$(dirname "$0")/.."
program=$1

stated=$(sed -n 's/.*glibc \([0-9.]*\) or newer.*/\1/p' docs/packages.md | head -n 1)
[ -n "$stated" ] || { echo "docs/packages.md states no version of glibc" >&2; exit 1; }
needed=$(objdump -T "$program" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
needed=${needed#GLIBC_}
[ -n "$needed" ] || { echo "objdump found no version of glibc in $program" >&2; exit 1; }
if [ "$(printf '%s\n' "$stated" "$needed" | sort -V | tail -n 1)" != "$stated" ]; then
    echo "$program needs glibc $needed; docs/packages.md states $stated. First of what needs it:" >&2
    objdump -T "$program" | grep -F "GLIBC_$needed" | head -n 5 >&2
    exit 1
fi
others=$(objdump -p "$program" | sed -n 's/^ *NEEDED *//p' | grep -vE '^(libc|libm|libgcc_s|ld-linux[-a-z0-9_]*)\.so\.[0-9]+$' || true)
[ -z "$others" ] || { echo "$program needs other libraries:" $others >&2; exit 1; }
echo "$program needs glibc $needed (stated: $stated)"
