# A start may take longer than TimeoutStartSec as long as a transfer runs: the server extends it.
begin_cluster
fill 100
limit=40
on 3 sh -c "mkdir -p /etc/systemd/system/mariadb.service.d && printf '[Service]\nTimeoutStartSec=$limit\n' >/etc/systemd/system/mariadb.service.d/limit.conf && systemctl daemon-reload"
[ "$(on 3 systemctl show -p TimeoutStartUSec --value mariadb)" = "${limit}s" ]
sst_option 'rlimit = 2M'
empty 3
before=$SECONDS
start 3
took=$((SECONDS - before))
echo "figure: a start of $took s with TimeoutStartSec=$limit"
[ "$took" -gt $((limit + 10)) ]
is_whole 3
sst_option ''
on 3 sh -c 'rm /etc/systemd/system/mariadb.service.d/limit.conf && systemctl daemon-reload'
