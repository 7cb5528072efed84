# Warns when rejoin is removed from a node that still uses it. Part of the packages' scripts, run by sh; never fails.
rejoin_warn_if_configured() {
    # As the server reads its option files, where its program is there; else the files themselves.
    method=$(my_print_defaults mysqld server mariadbd mariadb galera mysqld-5.5 2>/dev/null |
        sed -n 's/^--\(loose[-_]\)\{0,1\}wsrep[-_]sst[-_]method=//p' | tail -n 1)
    [ -n "$method" ] || method=$(cat /etc/my.cnf /etc/my.cnf.d/*.cnf /etc/mysql/*.cnf /etc/mysql/*.d/*.cnf 2>/dev/null |
        sed -n 's/^[[:space:]]*\(loose[-_]\)\{0,1\}wsrep[-_]sst[-_]method[[:space:]]*=[[:space:]]*"\{0,1\}\([A-Za-z0-9_]*\).*/\2/p' | tail -n 1)
    if [ "$method" = rejoin ]; then
        cat >&2 <<TEXT
rejoin: warning: wsrep_sst_method=rejoin is still set in this node's option files.
  Without the program this node can neither receive nor give a state transfer.
  Set another method (wsrep_sst_method=mariabackup, with mariadb-backup and socat installed) on EVERY node:
  the joiner's method decides what its donor runs. In a running server: SET GLOBAL wsrep_sst_method=mariabackup;
TEXT
    fi
    # It finds the datadir itself: by the option files, otherwise by asking the server's program for its default.
    if command -v rejoin >/dev/null 2>&1; then
        state=$(rejoin status 2>/dev/null | grep -e '^an interrupted ' -e '^a transfer in place did not finish' || true)
        [ -z "$state" ] || echo "rejoin: warning: $state. After the removal no server starts on this datadir." >&2
    fi
    return 0
}
