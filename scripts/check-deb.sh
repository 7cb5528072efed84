#!/bin/bash
# Runs lintian on the packages. Errors fail; warnings are only shown.
set -euo pipefail
cd "$(dirname "$0")/.."
lintian --fail-on error --suppress-tags-from-file packaging/lintian-not-for-us "${CARGO_TARGET_DIR:-target}"/debian/rejoin_*.deb
