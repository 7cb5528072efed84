#!/bin/bash
# Installs what building and testing rejoin needs on Debian: the server, Galera, the tools of the other SST methods,
# sysbench, filesystems that share bytes, promtool, a browser, and a C compiler. Only what is missing, and
# silently if nothing is. Names what is missing, and the command to install it, before it asks for a password. Leaves no
# new service running or enabled, and nothing in the temporary directory.
set -euo pipefail

programs=(
    mariadbd:mariadb-server mariadb-backup:mariadb-backup rsync:rsync socat:socat sysbench:sysbench
    mkfs.xfs:xfsprogs mkfs.btrfs:btrfs-progs gcc:gcc make:make pkg-config:pkg-config setpriv:util-linux promtool:prometheus
    chromium:chromium fincore:util-linux-extra
)

have() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1; }

have_galera() {
    local lib
    for lib in "${WSREP_PROVIDER:-}" /usr/lib/galera/libgalera_smm.so /usr/lib/galera-4/libgalera_smm.so \
        /usr/lib64/galera-4/libgalera_smm.so /usr/lib64/galera/libgalera_smm.so; do
        if [ -n "$lib" ] && [ -e "$lib" ]; then return 0; fi
    done
    return 1
}

missing=()
for entry in "${programs[@]}"; do
    have "${entry%%:*}" || missing+=("${entry#*:}")
done
have_galera || missing+=(galera-4)
# The compiler alone cannot link: the headers of the C library are only recommended by its package.
[ -e /usr/include/stdio.h ] || missing+=(libc6-dev)

# Install nothing if the build cannot start. Under sudo PATH differs, and this check has already passed.
cargo=${CARGO:-cargo}
if [ "${REJOIN_DEPS_SUDO:-}" != 1 ] && ! have "$cargo"; then
    {
        echo "missing: $cargo (Rust). Debian's is too old; install rustup as the user who builds, and begin a new shell:"
        echo "    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
        [ "${#missing[@]}" -eq 0 ] || echo "missing too, and installed by the next run: ${missing[*]}"
    } >&2
    exit 1
fi
[ "${#missing[@]}" -gt 0 ] || exit 0

if ! have apt-get; then
    echo "missing: ${missing[*]}; this script knows how to install them on Debian only" >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    {
        echo "missing: ${missing[*]}"
        echo "To install them type, as root: $(realpath "$0")"
        echo "(it runs apt-get install --no-install-recommends, and leaves no service running or enabled)"
    } >&2
    have sudo || exit 1
    echo "Now doing that with sudo, which may ask for your password." >&2
    exec sudo --preserve-env=DEBIAN_FRONTEND,http_proxy,https_proxy REJOIN_DEPS_SUDO=1 "$0" "$@"
fi

# An already installed server belongs to the machine's owner: its service is not touched.
server_is_new=no
[[ " ${missing[*]} " == *" mariadb-server "* ]] && server_is_new=yes
rsync_is_new=no
[[ " ${missing[*]} " == *" rsync "* ]] && rsync_is_new=yes
prometheus_is_new=no
[[ " ${missing[*]} " == *" prometheus "* ]] && prometheus_is_new=yes

policy=/usr/sbin/policy-rc.d
saved=
log=$(mktemp)
restore() {
    rm -f "$log" "$policy"
    if [ -n "$saved" ]; then mv "$saved" "$policy"; fi
}
if [ -e "$policy" ] || [ -L "$policy" ]; then
    saved="$policy.rejoin-$$"
    mv "$policy" "$saved"
fi
trap restore EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
# Package scripts call this to ask whether they may start a service: 101 means no.
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

run() {
    if ! "$@" >"$log" 2>&1 </dev/null; then
        echo "failed: $*" >&2
        tail -n 40 "$log" >&2
        exit 1
    fi
}
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
run apt-get update -q
run apt-get install -q -y --no-install-recommends -o Dpkg::Options::=--force-confold "${missing[@]}"

# Packages enable their service even without systemctl: by links for systemd, and for an older init.
disable() {
    if have systemctl; then
        systemctl disable --quiet "$1.service" >/dev/null 2>&1 || true
    elif have deb-systemd-helper; then
        # It refuses callers other than package scripts.
        DPKG_MAINTSCRIPT_PACKAGE=$1 deb-systemd-helper disable "$1.service" >/dev/null 2>&1 || true
    fi
    if have update-rc.d; then update-rc.d "$1" disable >/dev/null 2>&1 || true; fi
    if compgen -G "/etc/systemd/system/*.wants/$1.service" >/dev/null; then
        echo "the service $1 is still enabled: rm /etc/systemd/system/*.wants/$1.service" >&2
    fi
}
if [ "$server_is_new" = yes ]; then disable mariadb; fi
if [ "$rsync_is_new" = yes ]; then disable rsync; fi
if [ "$prometheus_is_new" = yes ]; then disable prometheus; fi
