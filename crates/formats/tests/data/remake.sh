#!/bin/bash
# Remakes the files of this directory from a real MariaDB server (made with 10.11.19) and Galera provider.
#
#   remake.sh            everything
#   remake.sh PART...    some of: innodb redo galera gcache binlog frm options
#
# Needs mariadbd, mariadb, mariadb-install-db, my_print_defaults; for galera libgalera_smm.so; for frm the plugins
# ha_archive blackhole federatedx, and where installed rocksdb spider connect mroonga oqgraph sphinx (PLUGIN_DIR
# names another directory for them). Servers run in a temporary directory, as user mysql when started by root,
# and are gone afterwards. Set KEEP=DIR to keep the data directories (for the ignored tests of live_files.rs).
set -euo pipefail

out=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d /tmp/formats-remake.XXXXXX)
chmod 755 "$work"
galera_port=${GALERA_PORT:-34567}
galera_lib=${GALERA_LIB:-/usr/lib/galera/libgalera_smm.so}
plugin_dir=${PLUGIN_DIR:-$(mariadbd --no-defaults --help --verbose 2>/dev/null | awk '$1 == "plugin-dir" { print $2 }')}
as_user=()
[ "$(id -u)" -eq 0 ] && as_user=(--user=mysql)
server=

stop() {
    [ -n "$server" ] || return 0
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=
}

cleanup() {
    stop
    [ -n "${KEEP:-}" ] && cp -a "$work" "$KEEP"
    rm -rf "$work"
}
trap cleanup EXIT

# install NAME OPTION...: a fresh data directory; its options are kept for start.
install() {
    local name=$1 dir=$work/$1
    shift
    mkdir -p "$dir/data"
    printf '%s\n' '[mysqld]' "datadir=$dir/data" "socket=$dir/s.sock" "pid-file=$dir/pid" "log-error=$dir/server.err" \
        "plugin-dir=$plugin_dir" innodb-buffer-pool-size=64M innodb-log-file-size=8M \
        "$@" >"$dir/my.cnf"
    [ "$(id -u)" -eq 0 ] && chown -R mysql: "$dir"
    mariadb-install-db --defaults-file="$dir/my.cnf" "${as_user[@]}" --skip-test-db \
        --auth-root-authentication-method=normal >"$dir/install.log" 2>&1
}

# start NAME OPTION...
start() {
    local name=$1 dir=$work/$1
    shift
    mariadbd --defaults-file="$dir/my.cnf" "${as_user[@]}" "$@" 2>/dev/null &
    server=$!
    for _ in $(seq 120); do
        if mariadb -uroot -S "$dir/s.sock" -e 'SELECT 1' >/dev/null 2>&1; then return; fi
        sleep 0.25
    done
    tail -n 20 "$dir/server.err" >&2
    exit 1
}

sql() {
    local name=$1
    shift
    mariadb --no-defaults -uroot -S "$work/$name/s.sock" "$@"
}

# pages FILE SIZE OUT N...: the pages N of FILE, one after the other.
pages() {
    local file=$1 size=$2 to=$out/$3
    shift 3
    : >"$to"
    for n in "$@"; do dd if="$file" bs="$size" skip="$n" count=1 status=none >>"$to"; done
}

rows="INSERT INTO t SELECT seq, REPEAT(CHAR(97 + seq MOD 26), 200) FROM seq_1_to_800"

# innodb_case NAME PAGE_SIZE CHECKSUM 'TABLE OPTIONS' OUT PHYSICAL_SIZE PAGES [SERVER OPTION...]
innodb_case() {
    local name=$1 size=$2 checksum=$3 table=$4 to=$5 physical=$6 list=$7
    shift 7
    install "$name" skip-networking "innodb-page-size=$size" "innodb-checksum-algorithm=$checksum" "$@"
    start "$name" --skip-networking
    sql "$name" -e "CREATE DATABASE t; USE t; CREATE TABLE t (a INT PRIMARY KEY, b VARCHAR(250)) $table; $rows"
    stop
    # shellcheck disable=SC2086
    pages "$work/$name/data/t/t.ibd" "$physical" "$to" $list
}

make_innodb() {
    local keys=$work/keys
    printf '1;%s\n' 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff >"$keys"
    chmod 644 "$keys"
    local encrypt=(plugin-load-add=file_key_management "file-key-management-filename=$keys"
        innodb-encrypt-tables=ON innodb-encryption-threads=0)
    local compress=PAGE_COMPRESSED=1
    innodb_case full_4k 4k full_crc32 '' ibd_full_4k.bin 4096 '0 3 4'
    innodb_case full_16k 16k full_crc32 '' ibd_full_16k.bin 16384 '3'
    innodb_case full_64k 64k full_crc32 '' ibd_full_64k.bin 65536 '0'
    innodb_case crc_4k 4k crc32 '' ibd_crc_4k.bin 4096 '0 3 4'
    innodb_case zip_16k 16k full_crc32 'ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=2' ibd_zip_16k.bin 2048 '0 1 2 3 4 5'
    innodb_case zip_enc 16k crc32 'ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=2' ibd_zip_encrypted_16k.bin 2048 \
        '0 1 2 3 4 5' "${encrypt[@]}"
    innodb_case full_enc 4k full_crc32 '' ibd_full_encrypted_4k.bin 4096 '0 3 4' "${encrypt[@]}"
    innodb_case crc_enc 4k crc32 '' ibd_crc_encrypted_4k.bin 4096 '0 3 4' "${encrypt[@]}"
    innodb_case full_comp 8k full_crc32 "$compress" ibd_full_compressed_8k.bin 8192 '0 3'
    innodb_case full_comp_enc 8k full_crc32 "$compress" ibd_full_compressed_encrypted_8k.bin 8192 '0 3' "${encrypt[@]}"
    innodb_case crc_comp 8k crc32 "$compress" ibd_crc_compressed_8k.bin 8192 '0 3'
    innodb_case crc_comp_enc 8k crc32 "$compress" ibd_crc_compressed_encrypted_8k.bin 8192 '3' "${encrypt[@]}"
}

make_redo() {
    local keys=$work/keys
    printf '1;%s\n' 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff >"$keys"
    chmod 644 "$keys"
    install redo skip-networking
    start redo --skip-networking
    stop
    head -c 12288 "$work/redo/data/ib_logfile0" >"$out/redo_head.bin"
    start redo --skip-networking --plugin-load-add=file_key_management \
        "--file-key-management-filename=$keys" --innodb-encrypt-log=ON
    stop
    head -c 512 "$work/redo/data/ib_logfile0" >"$out/redo_encrypted_head.bin"
}

make_galera() {
    install galera innodb-page-size=4k
    local wsrep=(--bind-address=127.0.0.1 "--port=$((galera_port + 2))" --wsrep-on=ON "--wsrep-provider=$galera_lib"
        --wsrep-cluster-address=gcomm:// --binlog-format=ROW --wsrep-node-address=127.0.0.1
        "--wsrep-provider-options=gmcast.listen_addr=tcp://127.0.0.1:$galera_port;ist.recv_addr=127.0.0.1:$((galera_port + 1));gcache.size=1M")
    start galera "${wsrep[@]}"
    sql galera -e 'CREATE DATABASE t; CREATE TABLE t.t (a INT PRIMARY KEY); INSERT INTO t.t VALUES (1); INSERT INTO t.t VALUES (2)'
    cp "$work/galera/data/grastate.dat" "$out/grastate_running.dat"
    stop
    cp "$work/galera/data/grastate.dat" "$out/grastate_stopped.dat"
    local ibdata=$work/galera/data/ibdata1 list
    list=$(grep -obUa WSREPXi "$ibdata" | awk -F: '{ print int($1 / 4096) }' | sort -nu | head -3)
    # shellcheck disable=SC2086
    pages "$ibdata" 4096 wsrep_rseg_4k.bin 5 $list
    mariadbd --defaults-file="$work/galera/my.cnf" "${as_user[@]}" "${wsrep[@]}" --wsrep-recover >/dev/null 2>&1 || true
    sed -n 's/.*Recovered position: //p' "$work/galera/server.err" | tail -n 1 >"$out/wsrep_recovered.txt"
}

# A ring of 64 KiB that has wrapped, with a write-set larger than a short record set: of the running server, and closed.
make_gcache() {
    install gcache innodb-page-size=4k
    start gcache --bind-address=127.0.0.1 "--port=$((galera_port + 2))" --wsrep-on=ON "--wsrep-provider=$galera_lib" \
        --wsrep-cluster-address=gcomm:// --binlog-format=ROW --wsrep-node-address=127.0.0.1 \
        --wsrep-node-name=n1 --wsrep-node-incoming-address=127.0.0.1:3306 \
        "--wsrep-provider-options=gmcast.listen_addr=tcp://127.0.0.1:$galera_port;ist.recv_addr=127.0.0.1:$((galera_port + 1));gcache.size=64K"
    # Its first buffer is the configuration change of the group's start.
    head -c 1536 "$work/gcache/data/galera.cache" >"$out/gcache_change.bin"
    {
        echo 'CREATE DATABASE t; CREATE TABLE t.t (a INT PRIMARY KEY AUTO_INCREMENT, b LONGTEXT);'
        for _ in $(seq 300); do echo "INSERT INTO t.t (b) VALUES ('some');"; done
        echo "INSERT INTO t.t (b) VALUES (REPEAT('x', 20000)); CREATE TABLE t.u (a INT PRIMARY KEY);"
        for _ in $(seq 20); do echo "UPDATE t.t SET b='more' WHERE a=1;"; done
    } | sql gcache
    sleep 1
    sql gcache -N -e "SHOW STATUS WHERE Variable_name IN ('wsrep_local_cached_downto', 'wsrep_last_committed')" >"$out/gcache_status.txt"
    cp "$work/gcache/data/galera.cache" "$out/gcache_running.bin"
    stop
    cp "$work/gcache/data/galera.cache" "$out/gcache_stopped.bin"
}

make_binlog() {
    local keys=$work/keys
    printf '1;%s\n' 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff >"$keys"
    chmod 644 "$keys"
    install binlog skip-networking log-bin=b server-id=7
    start binlog --skip-networking
    sql binlog -e "
        CREATE DATABASE t; CREATE TABLE t.t (a INT);
        SET gtid_domain_id=3; INSERT INTO t.t VALUES (1); INSERT INTO t.t VALUES (2);
        SET server_id=9; INSERT INTO t.t VALUES (3);
        SET gtid_domain_id=1; SET server_id=8; INSERT INTO t.t VALUES (4);
        SET server_id=7; INSERT INTO t.t VALUES (5);
        FLUSH BINARY LOGS; FLUSH BINARY LOGS"
    local last
    last=$(tail -n 1 "$work/binlog/data/b.index")
    stop
    head -c 600 "$work/binlog/data/${last#./}" >"$out/binlog_head.bin"
    cp "$work/binlog/data/b.state" "$out/binlog.state"
    start binlog --skip-networking --binlog-checksum=NONE
    last=$(tail -n 1 "$work/binlog/data/b.index")
    stop
    head -c 600 "$work/binlog/data/${last#./}" >"$out/binlog_nocrc_head.bin"
    start binlog --skip-networking --plugin-load-add=file_key_management \
        "--file-key-management-filename=$keys" --encrypt-binlog=ON
    last=$(tail -n 1 "$work/binlog/data/b.index")
    stop
    head -c 400 "$work/binlog/data/${last#./}" >"$out/binlog_encrypted_head.bin"
}

make_frm() {
    local load=() plugin
    for plugin in archive blackhole federatedx spider connect rocksdb mroonga oqgraph sphinx; do
        [ -e "$plugin_dir/ha_$plugin.so" ] && load+=("plugin-load-add=ha_$plugin")
    done
    install frm skip-networking
    printf '%s\n' "${load[@]}" >>"$work/frm/my.cnf"
    start frm --skip-networking
    # Of an engine that is not there the statement fails and the old file stays.
    sql frm --force -e "CREATE DATABASE t; CREATE SERVER s FOREIGN DATA WRAPPER mysql
        OPTIONS (SOCKET '$work/frm/s.sock', USER 'root', DATABASE 't')"
    sql frm --force t <"$out/frm.sql" || true
    stop
    mkdir -p "$out/frm"
    cp "$work"/frm/data/t/*.frm "$out/frm/"
    chmod 644 "$out"/frm/*
}

make_options() {
    local group
    for group in mysqld sst; do
        my_print_defaults --defaults-file="$out/options.cnf" "$group" >"$out/options.$group.expected"
    done
}

[ $# -gt 0 ] || set -- innodb redo galera gcache binlog frm options
for part in "$@"; do "make_$part"; done
chmod 644 "$out"/*.bin "$out"/*.dat "$out"/*.state 2>/dev/null || true
