#!/bin/bash
# Installs what `make deb` and `make rpm` need: cargo-deb and cargo-generate-rpm, in the versions below, into target/tools.
# Only what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=(cargo-deb@3.8.0 cargo-generate-rpm@0.21.1)

missing=()
for tool in "${tools[@]}"; do
    grep -qs "\"${tool/@/ } " target/tools/.crates.toml || missing+=("$tool")
done
[ "${#missing[@]}" -gt 0 ] || exit 0
echo "building ${missing[*]}"
# Built without optimisation, to save build time.
CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_DEBUG=0 \
    "${CARGO:-cargo}" install -q --locked --root target/tools --target-dir target/tools/build "${missing[@]}"
rm -rf target/tools/build
