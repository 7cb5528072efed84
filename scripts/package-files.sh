#!/bin/bash
# Collects in packaging/built the files of the packages besides the program: manual pages, completions, package scripts,
# changelog, licences. `make deb` and `make rpm` run it after the build.
set -euo pipefail
cd "$(dirname "$0")/.."

out=packaging/built
rm -rf "$out"
mkdir -p "$out/debian" "$out/rpm" "$out/doc"
${CARGO:-cargo} run -q -p rejoin-manual -- "$out"

gzip -9n "$out"/man/*
gzip -9nc "$out/THIRD-PARTY-LICENCES" >"$out/doc/THIRD-PARTY-LICENCES.gz"
gzip -9nc CHANGELOG.md >"$out/doc/changelog.gz"
install -m 644 docs/*.md "$out/doc/"

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# In Debian's form, beside the project's own changelog. The date comes from the source, so that builds are reproducible.
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}
gzip -9n >"$out/debian/changelog.gz" <<TEXT
rejoin ($version-1) unstable; urgency=medium

  * See /usr/share/doc/rejoin/changelog.gz.

 -- The rejoin authors <rejoin-sst@users.noreply.github.com>  $(LC_ALL=C date -u -R -d "@$epoch")
TEXT

# Both kinds of packages print the same warning.
{ printf '#!/bin/sh\nset -e\n'; cat packaging/warn-if-configured.sh; cat <<'TEXT'
case "$1" in
    remove | deconfigure)
        rejoin_warn_if_configured || true
        if [ -d /run/systemd/system ]; then
            systemctl disable --now rejoin-serve.service rejoin-archive.service rejoin-fingerprint.timer rejoin-metrics.timer >/dev/null 2>&1 || true
        fi
        ;;
esac
exit 0
TEXT
} >"$out/debian/prerm"
{ cat packaging/warn-if-configured.sh; cat <<'TEXT'
# 0: the last version is removed; 1: an upgrade.
if [ "$1" = 0 ]; then
    rejoin_warn_if_configured || true
    systemctl disable --now rejoin-serve.service rejoin-archive.service rejoin-fingerprint.timer rejoin-metrics.timer >/dev/null 2>&1 || true
fi
exit 0
TEXT
} >"$out/rpm/preun"
install -m 755 packaging/debian/postinst packaging/debian/postrm "$out/debian/"
chmod 755 "$out/debian/prerm"
