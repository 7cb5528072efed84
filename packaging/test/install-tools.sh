#!/bin/bash
# Installs what the test of the packages needs on Debian, if it is missing.
set -euo pipefail
missing=()
for entry in debootstrap:debootstrap systemd-nspawn:systemd-container ip:iproute2 pgrep:procps strace:strace; do
    command -v "${entry%%:*}" >/dev/null || missing+=("${entry#*:}")
done
[ "${#missing[@]}" -gt 0 ] || exit 0
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -q >/dev/null
apt-get install -q -y --no-install-recommends "${missing[@]}" >/dev/null
