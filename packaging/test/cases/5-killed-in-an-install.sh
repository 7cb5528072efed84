# The joiner's server and program are killed while files are being replaced. systemd starts the server again by itself: with
# the package's drop-in the install is finished first and the node comes back; without it the server's recovery refuses the
# datadir, and the node stays down until somebody finishes it.
begin_cluster
sql 1 'CREATE DATABASE IF NOT EXISTS shop'
on 1 mariadb shop -e "$(for i in $(seq 1 150); do echo "CREATE TABLE IF NOT EXISTS small_$i (id INT PRIMARY KEY);"; done)"

# Kills both while files are being replaced. That takes milliseconds, so renaming is made slow for the program from outside.
kill_in_install() {
    empty 3
    on 3 systemctl start --no-block mariadb
    local program record="$work/3/var/lib/mysql/#sql-rejoin/install.json"
    joiner() { program=$(pgrep --ns "$(leader 3)" --nslist pid -x wsrep_sst_rejoi); }
    wait_until 60 joiner
    strace -qq -f -o "$work/renames" -p "$program" -e trace=rename,renameat,renameat2 \
        -e inject=rename,renameat,renameat2:delay_enter=30000 &
    local tracer=$!
    local until=$((SECONDS + 120))
    until [ -e "$record" ]; do
        [ "$SECONDS" -lt "$until" ] || { tail -n 3 "$work/renames"; return 1; }
        sleep 0.02
    done
    sleep 0.3
    kill -KILL "$program" $(pgrep --ns "$(leader 3)" --nslist pid -x mariadbd)
    wait "$tracer" || true
    on 3 rejoin status --datadir /var/lib/mysql | tee /dev/stderr | has 'an interrupted install'
}

began=$(now)
kill_in_install
wait_until 120 synced 3
log_has 3 "$began" 'Scheduled restart job'
on 3 journalctl --no-pager -o cat -u rejoin-finish --since "@$began" | grep 'finished: install of'
is_whole 3
echo "figure: with the drop-in: killed in the install, back by itself"

on 3 systemctl mask rejoin-finish
kill_in_install
# Once more, without it. The old files are gone with `empty`, so that this is a full transfer again.
failed() { on 3 systemctl is-failed -q mariadb; }
wait_until 60 failed
sleep 10
failed
echo "figure: without it: $(on 3 systemctl show -p Result --value mariadb), the node stays down"
on 3 systemctl unmask rejoin-finish
start 3
is_whole 3
