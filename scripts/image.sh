#!/bin/bash
# Builds the container image: the program, linked statically, and nothing else. Writes target/image/rejoin.tar (an OCI
# archive) where buildah is installed, or names what is missing. Needs no registry and no base image.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
target_dir=${CARGO_TARGET_DIR:-target}
triple=$(uname -m)-unknown-linux-musl
out=target/image

missing=()
if command -v rustup >/dev/null 2>&1; then
    rustup target list --installed | grep -qx "$triple" || missing+=("rustup target add $triple")
fi
command -v musl-gcc >/dev/null 2>&1 || missing+=("apt-get install musl-tools")
command -v buildah >/dev/null 2>&1 || missing+=("apt-get install buildah")
if [ "${#missing[@]}" -gt 0 ]; then
    echo "missing; to get it:" >&2
    printf '    %s\n' "${missing[@]}" >&2
    exit 1
fi

"$cargo" build --release -p rejoin-cli --target "$triple"
mkdir -p "$out"
install -m 755 "$target_dir/$triple/release/rejoin" "$out/rejoin"
strip "$out/rejoin"
if readelf -l "$out/rejoin" | grep -q INTERP; then
    echo "$out/rejoin is not linked statically" >&2
    exit 1
fi
version=$("$out/rejoin" --version | sed -n '1s/^rejoin //p')
rm -f "$out/rejoin.tar"
buildah build --isolation chroot --layers=false --file Containerfile --build-arg PROGRAM="$out/rejoin" \
    --tag "rejoin:$version" .
# It runs with nothing else in the image.
container=$(buildah from "rejoin:$version")
trap 'buildah rm "$container" >/dev/null' EXIT
buildah run --isolation chroot "$container" -- /rejoin --version
buildah run --isolation chroot "$container" -- /rejoin copy-to /
buildah push "rejoin:$version" "oci-archive:$out/rejoin.tar:rejoin:$version"
echo "$out/rejoin.tar is the image rejoin:$version"
