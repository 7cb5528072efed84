# Machines: Debian in containers, each in a network namespace of its own. Sourced by run.sh, which sets `work`.

cache=$PWD/target/package-test
suite=bookworm
prefix="rejoin$$"
declare -A machine=()

# Ends the test where this machine cannot run it, with the exit code that .ci/run takes for that.
not_run() {
    echo "not run: $*"
    exit 77
}

check_machine() {
    [ "$(id -u)" -eq 0 ] || not_run "containers need root (sudo make package-test)"
    unshare --mount --net --pid --fork true 2>/dev/null || not_run "this machine does not permit namespaces"
    packaging/test/install-tools.sh || not_run "a tool of the test cannot be installed"
    { [ -e "$cache/$suite.done" ] && [ -e "$cache/server.done" ]; } || fetches_packages ||
        not_run "no package can be fetched from ${mirror:-a mirror of Debian $suite (set DEBIAN_MIRROR)}"
}

# Whether the mirror answers: DEBIAN_MIRROR, or the one that this host uses.
fetches_packages() {
    local file
    mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(SITE)' "Codename: $suite" 'Created-By: Packages' | head -n 1)}
    [ -n "$mirror" ] || return 1
    file=$(mktemp)
    /usr/lib/apt/apt-helper download-file "$mirror/dists/$suite/InRelease" "$file" >/dev/null 2>&1 || { rm -f "$file"; return 1; }
    rm -f "$file"
}

# A bare system, and one with the server on top; both are made once.
make_layers() {
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock 9
    if [ ! -e "$cache/$suite.done" ]; then
        echo "making a bare Debian $suite"
        rm -rf "$cache/$suite"
        debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,iproute2,procps,man-db \
            "$suite" "$cache/$suite" "$mirror" >"$cache/debootstrap.log" 2>&1 ||
            { tail -n 20 "$cache/debootstrap.log"; return 1; }
        touch "$cache/$suite.done"
    fi
    if [ ! -e "$cache/server.done" ]; then
        echo "installing the server in it"
        rm -rf "$cache/server" "$cache/server.work" "$cache/server.root"
        mkdir -p "$cache/server" "$cache/server.work" "$cache/server.root"
        mount -t overlay overlay -o "lowerdir=$cache/$suite,upperdir=$cache/server,workdir=$cache/server.work" "$cache/server.root"
        local rc=0
        systemd-nspawn -q --register=no --keep-unit --pipe -D "$cache/server.root" /bin/sh -ec '
            export DEBIAN_FRONTEND=noninteractive
            apt-get update -q
            apt-get install -q -y --no-install-recommends mariadb-server galera-4 mariadb-backup socat
            apt-get clean' >"$cache/server.log" 2>&1 </dev/null || rc=$?
        umount "$cache/server.root"
        [ "$rc" -eq 0 ] || { tail -n 20 "$cache/server.log"; return 1; }
        touch "$cache/server.done"
    fi
    flock -u 9
}

begin_network() {
    ip netns add "$prefix-switch"
    ip -n "$prefix-switch" link add name switch type bridge
    ip -n "$prefix-switch" link set switch up
    local n
    for n in 1 2 3; do
        ip netns add "$prefix-$n"
        ip -n "$prefix-$n" link add name host0 type veth peer name "port$n" netns "$prefix-switch"
        ip -n "$prefix-switch" link set "port$n" master switch up
        ip -n "$prefix-$n" link set lo up
        ip -n "$prefix-$n" address add "10.29.0.$n/24" dev host0
        ip -n "$prefix-$n" link set host0 up
    done
}

# Moves this shell into control groups of its own. Machines that share one see each other's services as theirs, and systemd
# can then stop none of them.
enter_cgroup() {
    local number controllers path
    while IFS=: read -r number controllers path; do
        local mount=/sys/fs/cgroup
        case $controllers in
            name=systemd) mount=/sys/fs/cgroup/systemd ;;
            '') [ ! -d /sys/fs/cgroup/unified ] || mount=/sys/fs/cgroup/unified ;;
            *) continue ;;
        esac
        mkdir -p "$mount$path/$1"
        echo "$BASHPID" >"$mount$path/$1/cgroup.procs"
        echo "$mount$path/$1" >>"$work/cgroups"
    done <<<"$(cat "/proc/$BASHPID/cgroup")"
}

# Starts machine N and waits until its systemd is up.
boot() {
    local n=$1
    mkdir -p "$work/$n.upper" "$work/$n.work" "$work/$n"
    mountpoint -q "$work/$n" ||
        mount -t overlay overlay -o "lowerdir=$cache/server:$cache/$suite,upperdir=$work/$n.upper,workdir=$work/$n.work" "$work/$n"
    if [ ! -e "$work/$n.prepared" ]; then
        # Without an identity systemd would take this for a first boot and enable every service.
        systemd-id128 new >"$work/$n/etc/machine-id"
        echo "n$n" >"$work/$n/etc/hostname"
        for m in 1 2 3; do echo "10.29.0.$m n$m"; done >>"$work/$n/etc/hosts"
        # The machines are fed by the cases: nothing starts before it is asked for.
        systemctl -q --root="$work/$n" disable mariadb
        cp "$deb" "$work/$n/root/rejoin.deb"
        touch "$work/$n.prepared"
    fi
    (
        enter_cgroup "$prefix-$n"
        exec systemd-nspawn -q --register=no --keep-unit -D "$work/$n" -b --machine="$prefix-$n" --hostname="n$n" \
            --network-namespace-path="/run/netns/$prefix-$n" --resolv-conf=off --console=pipe
    ) >"$work/$n.console" 2>&1 </dev/null &
    machine[$n]=$!
    echo "${machine[$n]}" >"$work/$n.pid"
    wait_until 120 up "$n" || { tail -n 20 "$work/$n.console"; return 1; }
}

leader() { pgrep -P "$(cat "$work/$1.pid")" | head -n 1; }

up() {
    [ -n "$(leader "$1")" ] || return 1
    local state
    state=$(on "$1" systemctl is-system-running 2>/dev/null || true)
    [ "$state" = running ] || [ "$state" = degraded ]
}

# Runs a command on machine N.
on() {
    local n=$1
    shift
    nsenter --target "$(leader "$n")" --mount --uts --ipc --net --pid --cgroup --root --wd=/ \
        env -i -C / PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
}

# Waits at most so many seconds until a command succeeds.
wait_until() {
    local until=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$until" ] || { echo "gave up waiting for: $*" >&2; return 1; }
        sleep 0.2
    done
}

end_machines() {
    local n pid
    for n in 1 2 3; do
        pid=$(cat "$work/$n.pid" 2>/dev/null) || continue
        # Containers end with their first process; nothing of them is needed.
        kill -KILL "$(leader "$n")" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    for n in 1 2 3; do
        mountpoint -q "$work/$n" && umount "$work/$n"
        ip netns delete "$prefix-$n" 2>/dev/null || true
    done
    ip netns delete "$prefix-switch" 2>/dev/null || true
    local cgroup
    while read -r cgroup; do
        find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done < <(sort -u "$work/cgroups" 2>/dev/null)
}
