#!/bin/bash
# Runs the MariaDB server's own Galera tests with another SST program.
#
#   REJOIN_BIN=path/to/program ./run.sh [-l FILE] [TEST...]
#
# TEST is a name such as galera.galera_sst_mariabackup; without one, the names
# in tests.txt (or in FILE) are run. README.md describes the settings.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
list=$here/tests.txt

die() { echo "run.sh: $*" >&2; exit 2; }

while getopts l:h opt; do
  case $opt in
    l) list=$OPTARG ;;
    h) sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) exit 2 ;;
  esac
done
shift $((OPTIND - 1))

method=${MTR_METHOD:-rejoin}        # the name the server will look for
prefix=${MTR_PREFIX:-/usr}          # where the server is installed
run_as=${MTR_USER:-mysql}           # used only when started as root
auth=${MTR_AUTH-root:}              # wsrep_sst_auth, empty for none
limit=${MTR_TEST_LIMIT:-900}        # seconds for one test
adapt=${MTR_ADAPT:-1}               # 0: run the tests exactly as shipped
program=${REJOIN_BIN:?set REJOIN_BIN to the SST program}

[[ $method =~ ^[A-Za-z0-9_.-]+$ ]] || die "not a legal method name: $method"
program=$(realpath -e "$program") || die "no such program: $REJOIN_BIN"
[[ -x $program ]] || die "not executable: $program"
[[ -x $prefix/sbin/mariadbd ]] || die "no mariadbd under $prefix/sbin"

work=${MTR_WORK:-$(mktemp -d "${TMPDIR:-/tmp}/ci-mtr.XXXXXX")}
mkdir -p "$work"
work=$(realpath "$work")
keep=1                              # a directory given by the caller is kept
[[ -n ${MTR_WORK:-} ]] || keep=0
cache=${MTR_CACHE:-$work/cache}
tree=$work/tree
logs=${MTR_LOGS:-$work/logs}
mkdir -p "$cache" "$logs"
cache=$(realpath "$cache")
logs=$(realpath "$logs")
chmod 755 "$work"

# --- the tests of the installed server version -------------------------------

version=$(dpkg-query -W -f '${Version}' mariadb-server-core)
fetch() { # PACKAGE [=VERSION]
  local found
  found=$(find "$cache" -maxdepth 1 -name "$1_*.deb" | head -n 1)
  if [[ -n $found && -n ${2:-} ]]; then
    [[ $(dpkg-deb -f "$found" Version) == "$2" ]] || { rm -f "$found"; found=; }
  fi
  [[ -n $found ]] ||
    (cd "$cache" && apt-get -qq download "$1${2:+=$2}" 2>"$work/apt.err") ||
    { cat "$work/apt.err" >&2; die "cannot download $1 ${2:-}"; }
}

unpack() {
  local deb program
  fetch mariadb-test "$version"
  fetch mariadb-test-data "$version"
  fetch libpcre2-posix3
  rm -rf "$tree"
  mkdir -p "$tree"
  for deb in mariadb-test mariadb-test-data libpcre2-posix3; do
    dpkg-deb -x "$(find "$cache" -maxdepth 1 -name "${deb}_*.deb" | head -n 1)" "$tree"
  done
  mkdir -p "$tree/usr/sbin" "$tree/usr/lib/mysql/plugin"
  ln -sf "$prefix/sbin/mariadbd" "$tree/usr/sbin/mariadbd"
  for program in "$prefix"/bin/{mariadb*,mysql*,my_print_defaults,my*,aria_*,innochecksum,mbstream,replace,resolveip,perror}; do
    [[ -x $program && ! -e $tree/usr/bin/${program##*/} ]] || continue
    ln -s "$program" "$tree/usr/bin/${program##*/}"
  done
  # Half of the tests are skipped without a mariabackup program, used or not.
  if [[ -x $prefix/bin/mariabackup ]]; then
    ln -sf "$prefix/bin/mariabackup" "$tree/usr/bin/mariabackup"
  else
    printf '#!/bin/sh\nexit 1\n' >"$tree/usr/bin/mariabackup"
    chmod 755 "$tree/usr/bin/mariabackup"
  fi
  for program in "$prefix"/lib/mysql/plugin/*; do
    [[ -e $tree/usr/lib/mysql/plugin/${program##*/} ]] || ln -s "$program" "$tree/usr/lib/mysql/plugin/"
  done
  # Where the packages put the server's files: share/mysql up to 11.4, share/mariadb later.
  for program in "$prefix"/share/{mysql,mariadb}/*; do
    [[ -d $tree/usr/share/$(basename "$(dirname "$program")") && -e $program ]] || continue
    [[ -e $tree${program/#$prefix//usr} ]] || ln -s "$program" "$tree${program/#$prefix//usr}"
  done
  for program in "$prefix"/bin/wsrep_sst_*; do
    ln -sf "$program" "$tree/usr/bin/"
  done
  # A method of our own name is put first in PATH by the server (<basedir>/bin).
  rm -f "$tree/usr/bin/wsrep_sst_$method"
}

# Known once the packages are unpacked.
mtr_dir() {
  local share
  for share in mariadb mysql; do
    [[ ! -d $tree/usr/share/$share/mysql-test ]] || { echo "$tree/usr/share/$share/mysql-test"; return; }
    [[ ! -d $tree/usr/share/$share/mariadb-test ]] || { echo "$tree/usr/share/$share/mariadb-test"; return; }
  done
}

# Lines of a test (and of its expected result) that speak of what the shell
# scripts print or need, and nothing else: adapt.txt says which.
adapt_tests() {
  local name expression suite test file
  while IFS=$'\t' read -r name expression; do
    [[ -n $name && $name != \#* ]] || continue
    suite=${name%%.*} test=${name#*.}
    for file in "$(mtr_dir)/suite/$suite"/{t/$test.test,r/$test.result,r/"$test",*.result}; do
      [[ -f $file && ${file##*/} == "$test"[.,]* ]] || continue
      sed -i -E "$expression" "$file"
    done
  done <"$here/adapt.txt"
}

[[ -n $(mtr_dir) && -f $work/unpacked && $(<"$work/unpacked") == "$version adapt=$adapt" ]] || {
  unpack
  [[ $adapt == 0 ]] || adapt_tests
  echo "$version adapt=$adapt" >"$work/unpacked"
}
install -m 755 "$program" "$tree/usr/bin/wsrep_sst_$method"

# --- what to run -------------------------------------------------------------

if (($#)); then
  tests=("$@")
else
  mapfile -t tests < <(sed -E 's/#( .*)?$//; s/[[:space:]]+//g; /^$/d' "$list")
fi
declare -A reason
while IFS=$'\t' read -r name why; do
  [[ -n $name && $name != \#* ]] && reason[$name]=$why
done <"$here/expected.txt"

runner=()
if ((EUID == 0)); then
  runner=(setpriv --reuid "$run_as" --regid "$run_as" --clear-groups)
fi
libs=$(dirname "$(find "$tree" -name 'libpcre2-posix.so*' | head -n 1)")
state=$work/state
mkdir -p "$state"
((EUID != 0)) || chown "$run_as" "$state"

child=
stop() {
  if [[ -n $child ]]; then
    kill -TERM "$child" 2>/dev/null
    wait "$child"
  fi
  exit 143
}
trap stop TERM INT HUP

run_one() { # TEST -> console output on stdout
  local dir=$state/run
  rm -rf "$dir"
  "${runner[@]}" mkdir -p "$dir/tmp"
  cd "$(mtr_dir)"
  exec "${runner[@]}" env -u LD_PRELOAD HOME="$dir" LANG=C \
    PATH="$tree/usr/bin:$tree/usr/sbin:$PATH" LD_LIBRARY_PATH="$libs" \
    MTR_GALERA_TFMT=socat MTR_BUILD_THREAD="${MTR_BUILD_THREAD:-auto}" \
    timeout --signal=TERM --kill-after=60 "$limit" \
    perl ./mariadb-test-run.pl --vardir="$dir/var" --tmpdir="$dir/tmp" \
    --big-test --force --retry=0 --parallel=1 --max-test-fail=0 \
    --max-save-core=0 --max-save-datadir=0 --testcase-timeout=$((limit / 60)) \
    --suite-timeout=$((limit / 60 + 1)) --nowarnings \
    --mysqld=--wsrep-sst-method="$method" ${auth:+--mysqld=--wsrep-sst-auth="$auth"} \
    "$1" 2>&1
}

# --- and what came out -------------------------------------------------------

declare -A count=([pass]=0 [fail]=0 [skip]=0 [expected]=0)
unexpected=0
table=$logs/table.txt
: >"$table"
row() { printf '%-62s %-9s %7s  %s\n' "$@" | tee -a "$table"; }
row test result seconds note

for test in "${tests[@]}"; do
  started=$SECONDS
  out=$logs/$test.out
  (run_one "$test") >"$out" </dev/null &   # in a process group of its own
  child=$!
  wait "$child" || true
  child=
  took=$((SECONDS - started))
  failed=0
  seen=0
  while IFS=$'\t' read -r name result secs note; do
    seen=1
    ((secs)) || secs=$took           # the runner gives none for a failure
    why=${reason[$name]-${reason[${name%% *}]-}}
    if [[ $result == fail && -n $why ]]; then
      result=expected note=$why
      failed=1
    elif [[ $result == fail ]]; then
      failed=1
      unexpected=1
    elif [[ $result == pass && -n $why ]]; then
      note="passes although: $why"
    fi
    count[$result]=$((count[$result] + 1))
    row "$name" "$result" "$secs" "$note"
  done < <(perl -ne '
      if (/^(\S+\.\S+)\s+(?:\x27([^\x27]*)\x27\s+)?(?:w\d+\s+)?\[ (?:retry-)?(pass|fail|skipped|disabled) \]\s*(.*)/) {
        my ($n, $c, $r, $t) = ($1, $2, $3, $4);
        $r = "skip" if $r eq "skipped" or $r eq "disabled";
        my $s = $t =~ /^(\d+)/ ? int($1 / 1000) : 0;
        $t = "" unless $r eq "skip";
        print $n, (defined $c ? " $c" : ""), "\t$r\t$s\t$t\n";
      }' "$out")
  if ((!seen)); then
    row "$test" fail "$took" "did not run, see the log"
    count[fail]=$((count[fail] + 1))
    failed=1
    unexpected=1
  fi
  if ((failed)); then
    rm -rf "${logs:?}/$test"
    mkdir -p "$logs/$test"
    for file in "$state"/run/var/log/*.err "$state"/run/var/my.cnf "$state"/run/var/tmp/*.log; do
      [[ -f $file ]] && cp "$file" "$logs/$test/"
    done
    grep -hE 'WSREP_SST|\[ERROR\]' "$logs/$test"/*.err 2>/dev/null | tail -n 40 >"$logs/$test/errors.txt" || true
  else
    rm -f "$out"
  fi
done
rm -rf "$state" "$work/apt.err"

echo
echo "$version method=$method: ${count[pass]} passed, ${count[fail]} failed, ${count[expected]} failed as expected, ${count[skip]} skipped"
echo "table and logs of failures: $logs"
if ((!keep)); then
  rm -rf "$tree" "$work/unpacked"
  [[ -n ${MTR_CACHE:-} ]] || rm -rf "$cache"
  rmdir --ignore-fail-on-non-empty "$work"
fi
exit "$unexpected"
