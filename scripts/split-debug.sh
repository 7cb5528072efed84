#!/bin/bash
# Splits a program: split-debug.sh PROGRAM DIR writes DIR/rejoin without symbols and line tables, and DIR/rejoin.debug with
# them, which a debugger finds by the build id.
set -euo pipefail
program=$1 dir=$2

id=$(readelf -n "$program" | sed -n 's/.*Build ID: //p')
[ -n "$id" ] || { echo "$program has no build id" >&2; exit 1; }
objcopy --only-keep-debug --compress-debug-sections "$program" "$dir/rejoin.debug"
objcopy --strip-all "$program" "$dir/rejoin"
objcopy --add-gnu-debuglink="$dir/rejoin.debug" "$dir/rejoin"
# The path where debuggers search for it; the package's metadata cannot contain it earlier.
cat >"$dir/debuginfo.toml" <<TEXT
assets = [{ source = "../../$dir/rejoin.debug", dest = "/usr/lib/debug/.build-id/${id:0:2}/${id:2}.debug", mode = "644" }]
TEXT
