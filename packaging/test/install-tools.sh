#!/bin/bash
# Installs what building and testing the packages needs on Debian, if it is missing.
set -euo pipefail
tools=(debootstrap:debootstrap systemd-nspawn:systemd-container ip:iproute2 pgrep:procps strace:strace lintian:lintian rpm:rpm)
missing=()
for entry in "${tools[@]}"; do
    command -v "${entry%%:*}" >/dev/null || missing+=("${entry#*:}")
done
[ "${#missing[@]}" -gt 0 ] || exit 0
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -q >/dev/null || true
if ! apt-get install -q -y --no-install-recommends "${missing[@]}" >/dev/null; then
    echo "cannot install ${missing[*]}"
    exit 1
fi
