# The package is installed anew on the donor and the joiner while a transfer runs: it ends as if nothing had happened, and
# the process that the program starts of itself afterwards, from a file that is no longer there, does its work.
begin_cluster
sst_option 'rlimit = 4M'
forget_position 3
on 3 sed -i 's/^\[sst\]/[sst]\nincremental = 0/' /etc/mysql/mariadb.conf.d/70-rejoin.cnf
on 3 systemctl start --no-block mariadb
wait_until 60 receiving 3
for n in 1 2 3; do
    inode=$(on "$n" stat -c %i /usr/bin/rejoin)
    on "$n" dpkg -i --force-confold /root/rejoin.deb
    [ "$(on "$n" stat -c %i /usr/bin/rejoin)" != "$inode" ]
done
receiving 3
on 3 sh -c 'ls -l /proc/*/exe 2>/dev/null | grep "rejoin.*(deleted)"'
sst_option ''
wait_until 120 synced 3
is_whole 3
gone() { on 3 rejoin status --datadir /var/lib/mysql | has 'no leftovers of earlier transfers'; }
wait_until 60 gone
on 3 sed -i '/^incremental = 0/d' /etc/mysql/mariadb.conf.d/70-rejoin.cnf
