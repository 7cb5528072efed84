# Three machines with nothing but Debian's files and two lines; two join the first.
install_rejoin
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
