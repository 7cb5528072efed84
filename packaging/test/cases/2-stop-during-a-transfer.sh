# `systemctl stop` in the middle of a transfer ends the joiner at once; its datadir and the donor are as before, and the
# next start goes on with what had arrived.
begin_cluster
fill 40
sst_option 'rlimit = 4M'
forget_position 3
position=$(on 3 sh -c 'ls /var/lib/mysql/shop')
on 3 sed -i 's/^\[sst\]/[sst]\nincremental = 0/' /etc/mysql/mariadb.conf.d/70-rejoin.cnf
on 3 systemctl start --no-block mariadb
wait_until 60 receiving 3

before=$SECONDS
on 3 systemctl stop mariadb
took=$((SECONDS - before))
echo "figure: systemctl stop in the middle of a transfer took $took s"
[ "$took" -le 20 ]
on 3 sh -c '! systemctl is-active -q mariadb'
on 3 sh -c '! pgrep -x wsrep_sst_rejoi'
[ "$(on 3 sh -c 'ls /var/lib/mysql/shop')" = "$position" ]
on 3 rejoin status --datadir /var/lib/mysql | has 'the datadir itself is unchanged'
for n in 1 2; do wait_until 60 synced "$n"; done

on 3 sed -i '/^incremental = 0/d' /etc/mysql/mariadb.conf.d/70-rejoin.cnf
sst_option ''
start 3
is_whole 3
