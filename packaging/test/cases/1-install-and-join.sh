# Three machines with nothing but Debian's files and two lines; two join the first.
install_rejoin
on 2 dpkg-query -W -f '${Conffiles}' rejoin | has ' /etc/mysql/mariadb.conf.d/70-rejoin.cnf '
on 2 dpkg-query -W -f '${Depends}' rejoin | has '^libc6 (>= '
on 2 rejoin --version | has -E '^commit [0-9a-f]{12}'
on 2 wsrep_sst_rejoin --version | has '^protocol '
for page in rejoin rejoin-check wsrep_sst_rejoin 5:rejoin; do
    on 2 man -w ${page%%[a-z]*} "${page#*:}" >/dev/null 2>&1 || on 2 sh -c "ls /usr/share/man/man*/${page#*:}.*"
done
on 2 sh -c 'test -s /usr/share/bash-completion/completions/rejoin && test -s /usr/share/zsh/vendor-completions/_rejoin'
on 2 systemctl show mariadb -p Wants | has rejoin-finish.service

on 1 galera_new_cluster
touch "$work/bootstrapped"
fill 60
began=$(now)
for n in 2 3; do
    before=$(date +%s%N)
    start "$n"
    wait_until 60 synced "$n"
    echo "figure: machine $n from its start to Synced: $((($(date +%s%N) - before) / 1000000)) ms"
    log_has "$n" "$began" 'WSREP_SST: \[INFO\].*installing'
done
is_whole 3
# Warnings are this test's: memory and small caches. An error is not.
for n in 1 2 3; do on "$n" rejoin check --quiet || [ $? -eq 1 ]; done

# Metrics over HTTP: disabled as installed; served by the unit as it confines itself, to the owner of the datadir only.
[ "$(on 2 systemctl is-enabled rejoin-serve)" = disabled ]
on 2 systemctl enable -q --now rejoin-serve
served() {
    on 2 bash -c 'exec 3<>/dev/tcp/127.0.0.1/4570 && printf "GET /metrics HTTP/1.1\r\n\r\n" >&3 && cat <&3' >"$work/served" 2>&1 &&
        grep -q '^rejoin_gcache_last_seqno' "$work/served"
}
# The cache is read with the lowest priority.
wait_until 120 served || { cat "$work/served"; on 2 journalctl -u rejoin-serve; false; }
# Its last transfer may have been the one that it donated.
has -E '^rejoin_transfer_success\{role="(joiner|donor)"\} 1' "$work/served"
on 2 sh -c '[ "$(stat -c %U /proc/$(systemctl show -p MainPID --value rejoin-serve))" = mysql ]'

# Fingerprints and metrics for node_exporter: disabled as installed; run once by their units as these confine themselves, as the
# owner of the datadir. On this filesystem fingerprints are not relied upon: what is remembered may be nothing.
for unit in rejoin-fingerprint rejoin-metrics; do [ "$(on 2 systemctl is-enabled $unit.timer)" = disabled ]; done
on 2 systemctl start rejoin-fingerprint || { on 2 journalctl --no-pager -u rejoin-fingerprint; false; }
told() { on 2 journalctl --no-pager -o cat -u rejoin-fingerprint | has 'are remembered; '; }
wait_until 10 told
on 2 sh -c '[ "$(stat -c %U /var/lib/mysql/rejoin-fingerprints.key)" = mysql ]'
on 2 install -d -o mysql /var/lib/prometheus/node-exporter
on 2 systemctl start rejoin-metrics || { on 2 journalctl --no-pager -u rejoin-metrics; false; }
on 2 sh -c 'cd /var/lib/prometheus/node-exporter && grep -q ^rejoin_gcache_last_seqno rejoin_node.prom && [ "$(stat -c %U rejoin_node.prom)" = mysql ]'

# The archiver: disabled as installed; as the unit confines it, it archives what is written from now on, as the owner of the datadir.
[ "$(on 3 systemctl is-enabled rejoin-archive)" = disabled ]
on 3 systemctl enable -q --now rejoin-archive
archived() { on 3 rejoin archive status --json >"$work/archived" 2>&1 && grep -q '"last"' "$work/archived"; }
sql 1 "CREATE TABLE shop.archived (id INT PRIMARY KEY)"
# The newest some hundred write-sets may still change their flags, so that they are not archived yet.
sql 1 "$(for ((i = 0; i < 1000; i++)); do echo "INSERT INTO shop.archived VALUES ($i);"; done)"
wait_until 120 archived || { cat "$work/archived"; on 3 journalctl -u rejoin-archive; false; }
on 3 rejoin archive verify
on 3 sh -c '[ "$(stat -c %U /proc/$(systemctl show -p MainPID --value rejoin-archive))" = mysql ]'
sql 1 "DROP TABLE shop.archived"
