# A cluster of the machines. Sourced by run.sh.

# grep that reads all it is given: who writes to it must not die of a closed pipe.
has() { grep "$@" >/dev/null; }

# Runs SQL on machine N, as root of it.
sql() {
    local n=$1
    shift
    on "$n" mariadb --batch --skip-column-names -e "$*"
}

installed() { [ -e "$work/$1.installed" ]; }

# The package as an operator installs it. Of Debian's own file the comment signs go; two lines are ours to write: the
# provider, which Debian's file does not name, and the method.
install_rejoin() {
    local n
    for n in 1 2 3; do
        installed "$n" && continue
        on "$n" apt-get install -q -y /root/rejoin.deb
        on "$n" sed -i -E 's/^#(wsrep_on|wsrep_cluster_name|wsrep_cluster_address|binlog_format|default_storage_engine|innodb_autoinc_lock_mode|bind-address) /\1 /
            s/gcomm:.*/gcomm:\/\/n1,n2,n3/
            s/^\[galera\]/&\nwsrep_provider = \/usr\/lib\/galera\/libgalera_smm.so/' /etc/mysql/mariadb.conf.d/60-galera.cnf
        on "$n" sed -i 's/^#\[mysqld\]/[mysqld]/; s/^#wsrep_sst_method/wsrep_sst_method/' /etc/mysql/mariadb.conf.d/70-rejoin.cnf
        # Debian enables it. While systemd has the server's port open, the server's recovery step finds it taken and fails.
        on "$n" systemctl disable -q --now mariadb.socket
        touch "$work/$n.installed"
    done
}

# The cluster of three, started if it is not.
begin_cluster() {
    install_rejoin
    if [ ! -e "$work/bootstrapped" ]; then
        on 1 galera_new_cluster
        touch "$work/bootstrapped"
    fi
    local n
    for n in 2 3; do start "$n"; done
    is_whole 3
}

start() { on "$1" systemctl start mariadb; }
synced() { [ "$(sql "$1" "SHOW STATUS LIKE 'wsrep_local_state_comment'" 2>/dev/null | cut -f2)" = Synced ]; }

# Every machine has the same number of members and the same data.
is_whole() {
    local members=$1 n want='' have
    for n in 1 2 3; do
        wait_until 60 synced "$n"
        [ "$(sql "$n" "SHOW STATUS LIKE 'wsrep_cluster_size'" | cut -f2)" = "$members" ]
        have=$(checksums "$n")
        [ "${want:=$have}" = "$have" ]
    done
}

checksums() {
    sql "$1" "SET SESSION wsrep_sync_wait=15; SELECT COUNT(*) FROM information_schema.tables WHERE table_schema='shop'" || return 1
    if [ "$(sql "$1" "SELECT COUNT(*) FROM information_schema.tables WHERE table_name='payload'")" = 1 ]; then
        sql "$1" "SET SESSION wsrep_sync_wait=15; CHECKSUM TABLE shop.payload; SELECT COUNT(*) FROM shop.payload"
    fi
}

# So many MB of random rows, which nothing can make smaller. (An argument that is constant makes one value for all rows.)
fill() {
    sql 1 "CREATE DATABASE IF NOT EXISTS shop; CREATE TABLE IF NOT EXISTS shop.payload (id INT AUTO_INCREMENT PRIMARY KEY, v VARBINARY(1000))"
    local i
    for ((i = 0; i < $1; i += 4)); do
        sql 1 "USE shop; INSERT INTO payload (v) SELECT RANDOM_BYTES(999 + (seq > 0)) FROM seq_1_to_4000"
    done
}

# A line of [sst] on every machine: an empty one takes it away.
sst_option() {
    local n
    for n in 1 2 3; do
        on "$n" sed -i '/^\[sst\]/,$ { /^rlimit/d }' /etc/mysql/mariadb.conf.d/70-rejoin.cnf
        [ -z "$1" ] || on "$n" sed -i "s/^\[sst\]/[sst]\n$1/" /etc/mysql/mariadb.conf.d/70-rejoin.cnf
    done
}

# Machine N has nothing: its next start takes a full transfer.
empty() {
    on "$1" systemctl stop mariadb
    on "$1" sh -c 'cd / && rm -rf /var/lib/mysql/* /var/lib/mysql/.rejoin*'
}

# Its next start takes a full transfer that compares.
forget_position() {
    on "$1" systemctl stop mariadb
    on "$1" rm -f /var/lib/mysql/grastate.dat
}

# A transfer runs on machine N, and bytes have come.
receiving() { on "$1" rejoin status --datadir /var/lib/mysql 2>/dev/null | has -E '^joiner: .* s so far; [1-9][0-9.]* (KiB|MiB|GiB) of '; }
log_has() { on "$1" journalctl --no-pager -o cat -u mariadb --since "@$2" | has "$3"; }
now() { date +%s; }
