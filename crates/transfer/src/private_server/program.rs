//! The program of the joiner's server: where it is, its definitions of system tables, and the arguments of a private server.
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use formats::wsrep::invocation::SstArgs;

use super::homes::Homes;
use super::memory;
use crate::cancel::Cancel;
use crate::failure::{Failure, Kind};
use crate::job::Job;
use crate::program::{answer_of, without_credentials};
use crate::server::version;

/// Files of a server's installation that define its system tables, in order (scripts/mysql_install_db.sh, 10.11 and 11.8). The
/// prefix of the name depends on the version.
const DEFINITIONS: [&str; 6] = [
    "system_tables.sql",
    "performance_tables.sql",
    "system_tables_data.sql",
    "fill_help_tables.sql",
    "maria_add_gis_sp_bootstrap.sql",
    "sys_schema.sql",
];
/// Defined since 10.6.
const SINCE_10_6: &str = "sys_schema.sql";

/// How a private server differs from the joiner's server. What the option files say otherwise counts.
const OWN_ARGUMENTS: [&str; 47] = [
    // Nobody can reach it, and it reaches nobody.
    "--skip-networking",
    "--skip-grant-tables",
    "--skip-slave-start",
    "--skip-log-bin",
    "--skip-ssl",
    "--wsrep-on=OFF",
    "--wsrep-provider=none",
    "--event-scheduler=OFF",
    "--init-file=",
    "--init-connect=",
    // It writes nothing outside its directories.
    "--general-log=OFF",
    "--slow-query-log=OFF",
    "--innodb-buffer-pool-load-at-startup=OFF",
    "--innodb-buffer-pool-dump-at-shutdown=OFF",
    "--innodb-temp-data-file-path=ibtmp1:12M:autoextend",
    "--pid-file=private.pid",
    "--log-basename=private",
    // It takes what comes.
    "--max-allowed-packet=1G",
    "--max-connections=100",
    "--max-statement-time=0",
    "--innodb-strict-mode=OFF",
    "--innodb-force-primary-key=OFF",
    "--read-only=OFF",
    "--transaction-read-only=OFF",
    "--secure-timestamp=NO",
    "--sql-safe-updates=OFF",
    "--local-infile=OFF",
    "--performance-schema=OFF",
    "--thread-handling=one-thread-per-connection",
    "--sql-mode=",
    "--explicit-defaults-for-timestamp=ON",
    // If the host fails, everything is made again.
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-doublewrite=OFF",
    "--innodb-fast-shutdown=0",
    // Written through the page cache, from which they are read again to be verified; we make them durable.
    "--innodb-flush-method=fsync",
    // Several statements fill one table at once, whatever its counter.
    "--innodb-autoinc-lock-mode=2",
    // Keys are sorted in fewer passes.
    "--innodb-sort-buffer-size=8M",
    // What it writes is readable at once, and the position is stored where it can be written.
    "--innodb-encryption-threads=0",
    "--innodb-force-recovery=0",
    "--innodb-read-only=OFF",
    "--flush=OFF",
    "--userstat=OFF",
    // What it says is read as English.
    "--lc-messages=en_US",
    // Plugins of the option files that listen, or write files of their own.
    "--server-audit-logging=OFF",
    "--feedback=OFF",
    "--handlersocket=OFF",
    "--sql-error-log=OFF",
];

/// The server's program.
pub struct Program {
    /// The words before its arguments: itself, or its loader and it.
    words: Vec<String>,
    definitions: Vec<PathBuf>,
    /// Where its plugins are.
    plugins: Option<PathBuf>,
    /// The arguments that must come first, and those of our own server.
    defaults: Vec<String>,
    arguments: Vec<String>,
    /// Bytes for its pages.
    buffer_pool: u64,
}

impl Program {
    /// The program that our server runs.
    ///
    /// # Errors
    /// It is not found, or its definitions are not.
    pub fn find(job: &Job) -> Result<Program> {
        let not_found = || Failure::new(Kind::Server, "the program of this node's server is not found");
        let words = version::words_of_program(job.server).ok_or_else(not_found)?;
        let (defaults, arguments) = arguments_of(&job.args);
        let help = help(&words, &defaults, &arguments, &job.cancel)?;
        let definitions = find_definitions(&share_directories(&help))?;
        Ok(Program {
            words,
            definitions,
            plugins: path_in(&help, "plugin-dir"),
            defaults,
            arguments,
            buffer_pool: memory::buffer_pool(job.options.server_size("innodb-buffer-pool-size")?),
        })
    }

    /// Those of these libraries of plugins that are installed. Others are left out with a warning.
    pub fn installed(&self, libraries: &[String]) -> Vec<String> {
        let is_there = |name: &str| self.plugins.as_ref().is_some_and(|dir| dir.join(name).is_file());
        let (there, missing): (Vec<&String>, Vec<&String>) =
            libraries.iter().partition(|name| is_there(name));
        for name in missing {
            tracing::warn!("the plugin {name} of the donor is not installed on this node");
        }
        there.into_iter().cloned().collect()
    }

    /// The definitions of its system tables.
    pub fn definitions(&self) -> &[PathBuf] {
        &self.definitions
    }

    /// The command line of a private server with its files in these directories.
    pub fn command(&self, homes: &Homes, more: &[&str]) -> Vec<String> {
        let directory = |option: &str, directory: &Path| format!("--{option}={}", directory.display());
        let own = OWN_ARGUMENTS.iter().map(|argument| (*argument).to_owned());
        // An option that this version does not have, or whose plugin it has not, is skipped.
        let own = own.map(|argument| argument.replacen("--", "--loose-", 1));
        let places = [
            directory("datadir", &homes.datadir),
            directory("innodb-data-home-dir", &homes.data_home),
            directory("innodb-log-group-home-dir", &homes.log_home),
            directory("innodb-undo-directory", &homes.undo_dir),
            directory("aria-log-dir-path", &homes.second_log_dir),
            directory("tmpdir", &homes.tmp),
            directory("loose-innodb-tmpdir", &homes.tmp),
            // The donor's definitions run on it: no statement reads or writes a file elsewhere (LOAD DATA, INTO DUMPFILE, LOAD_FILE).
            directory("secure-file-priv", &homes.tmp),
            // Of the operator's plugins: the files of our own server are in use.
            directory("loose-rocksdb-datadir", &homes.tmp.join("rocksdb")),
            directory("loose-rocksdb-wal-dir", &homes.tmp.join("rocksdb")),
            directory("log-error", &homes.log()),
            format!("--innodb-data-file-path={}", homes.data_file_path),
            format!("--innodb-buffer-pool-size={}", self.buffer_pool),
        ];
        let user = rustix::process::geteuid().is_root().then(|| "--user=root".to_owned());
        let more = more.iter().map(|argument| (*argument).to_owned());
        let all = self.words.iter().chain(&self.defaults).chain(&self.arguments).cloned();
        all.chain(own).chain(places).chain(user).chain(more).collect()
    }
}

/// The arguments of our server: first those about option files, then the others, without what a cluster member needs.
fn arguments_of(args: &SstArgs) -> (Vec<String>, Vec<String>) {
    let is_first = |word: &&String| word.starts_with("--defaults-") || *word == "--no-defaults";
    let mut defaults: Vec<String> = args.mysqld_args.iter().filter(is_first).cloned().collect();
    if defaults.is_empty() {
        let given = [
            ("defaults-file", &args.defaults_file),
            ("defaults-extra-file", &args.defaults_extra_file),
            ("defaults-group-suffix", &args.defaults_group_suffix),
        ];
        let word = |(name, value): (&str, &Option<String>)| Some(format!("--{name}={}", value.as_ref()?));
        defaults = given.into_iter().filter_map(word).collect();
    }
    let of_cluster = |word: &str| word.starts_with("--wsrep") || word.starts_with("--log-bin");
    let rest = args.mysqld_args.iter().filter(|word| !is_first(word) && word.starts_with("--"));
    (defaults, rest.filter(|word| !of_cluster(word)).cloned().collect())
}

/// What the program says of its variables.
fn help(words: &[String], defaults: &[String], arguments: &[String], cancel: &Cancel) -> Result<String> {
    let (program, words) = words.split_first().context("no program")?;
    let mut command = Command::new(program);
    without_credentials(&mut command);
    command.args(words).args(defaults).args(arguments).args([
        "--skip-grant-tables",
        "--wsrep-on=OFF",
        "--verbose",
        "--help",
    ]);
    answer_of("the server's program", &mut command, cancel)
}

/// A path among its variables.
fn path_in(help: &str, name: &str) -> Option<PathBuf> {
    let line =
        help.lines().rev().find_map(|line| line.strip_prefix(name).filter(|rest| rest.starts_with(' ')));
    line.map(str::trim).filter(|value| value.starts_with('/')).map(PathBuf::from)
}

/// Directories that may have the definitions.
fn share_directories(help: &str) -> Vec<PathBuf> {
    let value = |name: &str| path_in(help, name);
    let charsets = value("character-sets-dir").and_then(|dir| Some(dir.parent()?.to_owned()));
    let base = value("basedir")
        .into_iter()
        .flat_map(|dir| ["share/mysql", "share/mariadb", "share"].map(|name| dir.join(name)));
    charsets.into_iter().chain(value("lc-messages-dir")).chain(base).collect()
}

fn find_definitions(directories: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for name in DEFINITIONS {
        let names = [format!("mariadb_{name}"), format!("mysql_{name}"), name.to_owned()];
        let paths = directories.iter().flat_map(|dir| names.iter().map(move |name| dir.join(name)));
        match paths.into_iter().find(|path| path.is_file()) {
            Some(path) => found.push(path),
            None if name == SINCE_10_6 => {}
            None => {
                let looked: Vec<String> = directories.iter().map(|dir| dir.display().to_string()).collect();
                let text = format!(
                    "the definitions of system tables ({}) are in none of {}",
                    names[0],
                    looked.join(", ")
                );
                let hint = "install the package of the server that has them (mariadb-server-core)";
                return Err(Failure::new(Kind::Server, text).hint(hint).into());
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_about_option_files_come_first_and_those_of_a_member_are_left_out() {
        let words =
            ["--defaults-file=/f", "--wsrep-new-cluster", "--innodb-page-size=64k", "--log-bin=x", "x"];
        let args = SstArgs { mysqld_args: words.map(str::to_owned).to_vec(), ..SstArgs::default() };
        let (first, rest) = arguments_of(&args);
        assert_eq!(
            (first, rest),
            (vec!["--defaults-file=/f".to_owned()], vec!["--innodb-page-size=64k".to_owned()])
        );
        let args = SstArgs { defaults_file: Some("/g".into()), ..SstArgs::default() };
        assert_eq!(arguments_of(&args).0, ["--defaults-file=/g"]);
    }

    #[test]
    fn definitions_have_one_of_two_prefixes() {
        let dir = tempfile::tempdir().unwrap();
        let directories = [dir.path().join("none"), dir.path().to_owned()];
        assert!(
            find_definitions(&directories).unwrap_err().to_string().contains("mariadb_system_tables.sql")
        );
        for name in &DEFINITIONS[..5] {
            let name = if name.starts_with("fill") || name.starts_with("maria") {
                (*name).to_owned()
            } else {
                format!("mysql_{name}")
            };
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(find_definitions(&directories).unwrap().len(), 5);
        std::fs::write(dir.path().join("mariadb_sys_schema.sql"), "").unwrap();
        assert!(find_definitions(&directories).unwrap()[5].ends_with("mariadb_sys_schema.sql"));
    }
}
