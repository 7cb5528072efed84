#!/bin/bash
# Installs what building and testing rejoin needs on Debian: the server, Galera, the tools of the other SST methods,
# sysbench, filesystems that share bytes, and a C compiler. Only what is missing; quiet when nothing is. Leaves no
# service running or enabled that was not there before.
set -euo pipefail

programs=(
    mariadbd:mariadb-server mariadb-backup:mariadb-backup rsync:rsync socat:socat sysbench:sysbench
    mkfs.xfs:xfsprogs mkfs.btrfs:btrfs-progs gcc:gcc make:make pkg-config:pkg-config setpriv:util-linux
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
# The compiler alone does not link: its C library's headers are a recommendation.
[ -e /usr/include/stdio.h ] || missing+=(libc6-dev)
[ "${#missing[@]}" -gt 0 ] || exit 0

if ! have apt-get; then
    echo "missing: ${missing[*]}; this script knows how to install them on Debian only" >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    have sudo || { echo "missing: ${missing[*]}; run this as root" >&2; exit 1; }
    exec sudo --preserve-env=DEBIAN_FRONTEND,http_proxy,https_proxy "$0" "$@"
fi

# A server that was here before is the owner's: its service is left as it is.
server_is_new=no
[[ " ${missing[*]} " == *" mariadb-server "* ]] && server_is_new=yes
rsync_is_new=no
[[ " ${missing[*]} " == *" rsync "* ]] && rsync_is_new=yes

policy=/usr/sbin/policy-rc.d
saved=
restore() {
    rm -f "$policy"
    if [ -n "$saved" ]; then mv "$saved" "$policy"; fi
}
if [ -e "$policy" ] || [ -L "$policy" ]; then
    saved="$policy.rejoin-$$"
    mv "$policy" "$saved"
fi
trap restore EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
# Package scripts ask this whether they may start a service: 101 is no.
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

log=$(mktemp)
run() {
    if ! "$@" >"$log" 2>&1 </dev/null; then
        echo "failed: $*" >&2
        tail -n 40 "$log" >&2
        rm -f "$log"
        exit 1
    fi
}
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
run apt-get update -q
run apt-get install -q -y --no-install-recommends -o Dpkg::Options::=--force-confold "${missing[@]}"
rm -f "$log"

disable() {
    if have systemctl; then
        systemctl disable --quiet "$@" >/dev/null 2>&1 || true
    fi
}
if [ "$server_is_new" = yes ]; then disable mariadb.service; fi
if [ "$rsync_is_new" = yes ]; then disable rsync.service; fi
