#!/bin/bash
# Unpacks MariaDB 11.8 with its Galera beside the installed server, for the tests that need both: the packages of the
# next Debian release, with every library they need, to be run through their own loader. The machine's own apt
# configuration, package lists and installed packages stay as they are. Silent and fast if it already exists.
#
#   unpack-mariadb-11.8.sh [DIRECTORY]     default: target/mariadb-11.8
set -euo pipefail
umask 022

series=11.8
release=trixie
root=$(cd "$(dirname "$0")/.." && pwd)
dir=${1:-${CARGO_TARGET_DIR:-$root/target}/mariadb-$series}
# Increase it when this script changes the layout of the files.
layout=3

die() {
    echo "MariaDB $series cannot be unpacked: $*" >&2
    exit 1
}

[ "$(cat "$dir/layout" 2>/dev/null)" != "$layout" ] || exit 0
for program in apt-get apt-config dpkg-deb flock; do
    command -v "$program" >/dev/null || die "no $program; this script knows how to do it on Debian only"
done
mkdir -p "$(dirname "$dir")"
dir=$(cd "$(dirname "$dir")" && pwd)/$(basename "$dir")
exec 9>"$dir.lock"
flock 9
[ "$(cat "$dir/layout" 2>/dev/null)" != "$layout" ] || exit 0

work=$(mktemp -d "$dir.work-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
log=$work/log
run() {
    "$@" >"$log" 2>&1 </dev/null || { tail -n 20 "$log" >&2; die "failed: $*"; }
}

# The machine's own package sources, with the name of the other release: "REPOSITORY SUITE" in each line.
# apt itself reads its sources, so every form of them is understood.
mirrors() {
    local codename
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-none}")
    # The origin is known once the package lists have been fetched; other repositories may use Debian's names.
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' |
        awk -v own="$codename" -v other="$release" '
            $3 == "main" && ($4 == "Debian" || $4 !~ /^[A-Za-z]/) &&
            sub("^(" own "|stable|oldstable|oldoldstable)(-|/|$)", other "&", $2) {
                sub("^" other "(" own "|stable|oldstable|oldoldstable)", other, $2)
                if ($2 !~ /-(backports|proposed)/) print $1, $2
            }' | sort -u
}

# A root of its own for apt: lists, cache and an empty list of installed packages.
mkdir -p "$work/apt/lists/partial" "$work/apt/archives/partial" "$work/debs" "$work/root"
: >"$work/apt/status"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mirrors | while read -r repository suite; do
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n' "$repository" "$suite"
    # Without it apt goes by the keys that the machine trusts for every repository.
    [ ! -e "$keyring" ] || echo "Signed-By: $keyring"
    echo
done >"$work/debian.sources"
[ -s "$work/debian.sources" ] || die "apt's configuration on this machine names no mirror of Debian"
{
    # What is configured (proxies, say), but no commands that act on the machine's own lists.
    apt-config dump | grep -v -e '-Invoke' -e '^Dir::Etc::parts ' -e '^Dir::Etc::main ' || true
    cat <<END
Dir::Etc::parts "$work/none";
Dir::Etc::main "$work/none";
Dir::Etc::sourcelist "$work/debian.sources";
Dir::Etc::sourceparts "-";
Dir::Etc::preferences "$work/none";
Dir::Etc::preferencesparts "$work/none";
Dir::State "$work/apt";
Dir::State::lists "$work/apt/lists";
Dir::State::status "$work/apt/status";
Dir::Cache "$work/apt";
Dir::Cache::archives "$work/apt/archives";
APT::Sandbox::User "$(id -un)";
APT::Install-Recommends "0";
APT::Default-Release "";
Acquire::Languages "none";
Acquire::Retries "3";
END
} >"$work/apt.conf"
chmod 600 "$work/apt.conf"
export APT_CONFIG=$work/apt.conf

echo "unpacking MariaDB $series of Debian $release into $dir"
run apt-get -q update --error-on=any
wanted=(mariadb-server mariadb-server-core mariadb-client-core mariadb-backup galera-4)
version=$(apt-cache show --no-all-versions mariadb-server-core 2>/dev/null | sed -n 's/^Version: //p')
[[ "$version" == *:"$series".* ]] || die "Debian $release has mariadb-server-core ${version:-nowhere}"
# Of what these depend on, the libraries: the programs need no more to run.
libraries=$(apt-get -s install mariadb-server-core mariadb-client-core mariadb-backup galera-4 2>"$log" |
    awk '/^Inst (lib|zlib)/ && $2 !~ /perl/ {print $2}') || true
[ -n "$libraries" ] || { tail -n 20 "$log" >&2; die "apt does not tell what it depends on"; }
cd "$work/debs"
# shellcheck disable=SC2086
run apt-get -q download "${wanted[@]}" $libraries
for package in *.deb; do
    run dpkg-deb -x "$package" "$work/root"
done
cd "$root"

# One directory: programs behind a line of shell that runs them with their own loader and libraries. Not through the
# environment, which the programs that a server starts would inherit.
new=$work/new
mkdir -p "$new/bin" "$new/sbin" "$new/real" "$new/lib" "$new/share"
(
    shopt -s nullglob
    cd "$work/root/usr"
    for file in lib/*-linux-gnu*/*.so* ../lib/*-linux-gnu*/*.so*; do cp -a "$file" "$new/lib/"; done
    loader=("$new"/lib/ld-linux*.so* "$new"/lib/ld64.so*)
    [ "${#loader[@]}" -eq 1 ] || die "its packages hold ${#loader[@]} loaders"
    ln -s "$(basename "${loader[0]}")" "$new/lib/ld.so"
    cp -aL lib/libgalera_smm.so "$new/lib/"
    cp -a lib/mysql "$new/lib/"
    cp -a share/mariadb "$new/share/"
    cp -a bin/mariadb-install-db bin/wsrep_sst_* "$new/bin/"
    for program in sbin/mariadbd bin/my_print_defaults bin/innochecksum bin/resolveip bin/mariadb-backup bin/mbstream; do
        name=$(basename "$program")
        cp -aL "$program" "$new/real/$name"
        cat >"$new/$program" <<'END'
#!/bin/sh
base=$(dirname "$0")/..
exec "$base/lib/ld.so" --library-path "$base/lib" "$base/real/${0##*/}" "$@"
END
        chmod 755 "$new/$program"
    done
)
for binary in "$new"/real/* "$new/lib/libgalera_smm.so" "$new"/lib/mysql/plugin/*.so; do
    needs=$("$new/lib/ld.so" --library-path "$new/lib" --list "$binary" 2>&1) || true
    case "$needs" in
        *"not found"*) echo "$needs" >&2; die "a library is missing for $(basename "$binary")" ;;
    esac
done
run "$new/sbin/mariadbd" --no-defaults --version
grep -q "Ver $series\." "$log" || die "the server says it is $(cat "$log")"
echo "$layout" >"$new/layout"
rm -rf "$dir"
mv "$new" "$dir"
