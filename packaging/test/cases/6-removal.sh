# The package goes while the method is still configured: it warns, and does not fail. Installed again, it is removed in the order of the
# README: another method first, in the words of docs/packages.md, then the package, which has nothing to warn of.
begin_cluster
on 3 systemctl enable -q --now rejoin-serve
on 3 apt-get remove -q -y rejoin >"$work/removal" 2>&1
cat "$work/removal"
grep 'warning: wsrep_sst_method=rejoin is still set' "$work/removal"
on 3 sh -c '! command -v rejoin && ! command -v wsrep_sst_rejoin && test -e /etc/mysql/mariadb.conf.d/70-rejoin.cnf'
on 3 sh -c '! systemctl is-active rejoin-serve && ! test -e /etc/systemd/system/multi-user.target.wants/rejoin-serve.service'
[ "$(on 3 systemctl show mariadb -p Wants | grep -c rejoin)" = 0 ]
synced 3
on 3 apt-get install -q -y /root/rejoin.deb
on 3 sh -c 'command -v wsrep_sst_rejoin && grep "^wsrep_sst_method = rejoin\|^wsrep_sst_method=rejoin" /etc/mysql/mariadb.conf.d/70-rejoin.cnf'

for n in 1 2 3; do
    on "$n" sed -i 's/^wsrep_sst_method.*/wsrep_sst_method = mariabackup/; s/^\[sst\]/[mysqld]\nwsrep_sst_auth = mysql:\n[sst]/' /etc/mysql/mariadb.conf.d/70-rejoin.cnf
    sql "$n" "SET GLOBAL wsrep_sst_method = 'mariabackup'; SET GLOBAL wsrep_sst_auth = 'mysql:'"
done
for n in 1 2 3; do
    on "$n" apt-get remove -q -y rejoin >"$work/removal" 2>&1
    cat "$work/removal"
    # A command after "!" ends no script.
    if has warning: "$work/removal"; then exit 1; fi
    synced "$n"
done
began=$(now)
empty 3
start 3
is_whole 3
log_has 3 "$began" wsrep_sst_mariabackup
on 3 apt-get purge -q -y rejoin
on 3 sh -c '! test -e /etc/mysql/mariadb.conf.d/70-rejoin.cnf && ! test -e /usr/share/doc/rejoin'
