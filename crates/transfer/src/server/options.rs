//! The server's options and our own under `[sst]`, read from the server's option files, in its order and by
//! its rules.
//!
//! The rules are those of mysys/my_default.c (MariaDB 10.11); the tests compare the result with
//! `my_print_defaults`. The last setting of an option wins: files in their order, then the server's own
//! command line, then what it passed to us directly.
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use formats::mariadb::option_file::{Item, OptionFile, OptionSet, parse_bool, parse_size};
use formats::wsrep::invocation::SstArgs;

use super::privileges;
use crate::failure::{Failure, Kind};

/// Includes deeper than this are skipped, as in the server (`max_recursion_level`).
const INCLUDE_DEPTH_MAX: usize = 10;
/// At most this many files are read: a directory that includes itself multiplies with each level.
const FILES_MAX: usize = 2000;

const SERVER: &str = "server";
const SST: &str = "sst";

/// The options in effect, and warnings about the files that they came from.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    set: OptionSet,
    files: Vec<PathBuf>,
    warnings: Vec<String>,
}

/// The environment that the result depends on besides the arguments. It is a value so that tests need not
/// change the process.
struct Surroundings {
    env: fn(&str) -> Option<String>,
    /// Directories of the global files.
    etc: Vec<PathBuf>,
}

impl Surroundings {
    fn of_this_process() -> Surroundings {
        let env = |name: &str| {
            let value = if name == "HOME" { privileges::home() } else { std::env::var(name).ok() };
            value.filter(|value| !value.is_empty())
        };
        Surroundings { env, etc: vec!["/etc".into(), "/etc/mysql".into()] }
    }
}

impl ServerOptions {
    /// `wsrep_node_name`; its default is the host's name.
    pub fn node_name(&self) -> String {
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        self.server("wsrep-node-name").map_or_else(host, str::to_owned)
    }

    /// Reads the options of a server of any series: groups such as `[mysqld-10.11]` count whatever their
    /// number.
    ///
    /// # Errors
    /// A configuration failure if the `--defaults-file` or `--defaults-extra-file` cannot be read. Any other
    /// problem is a warning, because the running server accepted these files.
    pub fn load(args: &SstArgs) -> Result<ServerOptions> {
        Self::load_for(args, None)
    }

    /// Like [`Self::load`], with the server's series known (`(10, 11)`).
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_for(args: &SstArgs, series: Option<(u32, u32)>) -> Result<ServerOptions> {
        Self::load_in(args, series, &Surroundings::of_this_process())
    }

    fn load_in(args: &SstArgs, series: Option<(u32, u32)>, around: &Surroundings) -> Result<ServerOptions> {
        let mut reader = Reader::new(args, series, around);
        if !args.mysqld_args.iter().any(|word| word == "--no-defaults") {
            reader.standard_places(args, around)?;
        }
        let mut options = reader.options;
        options.set.overlay_argv(SERVER, &args.mysqld_args);
        options.overlay_direct(args);
        options.overlay_environment((around.env)("INNODB_DATA_HOME_DIR"));
        Ok(options)
    }

    /// Adds what the server passed to us outside its own command line.
    fn overlay_direct(&mut self, args: &SstArgs) {
        let direct = [
            ("log-bin", &args.binlog),
            ("log-bin-index", &args.binlog_index),
            ("log-basename", &args.log_basename),
            ("aria-log-dir-path", &args.aria_log_dir_path),
            ("innodb-data-home-dir", &args.innodb_data_home_dir),
            ("innodb-log-group-home-dir", &args.innodb_log_group_home_dir),
            ("innodb-undo-directory", &args.innodb_undo_directory),
            ("innodb-buffer-pool-filename", &args.innodb_buffer_pool_filename),
        ];
        for (name, value) in direct {
            if let Some(value) = value {
                self.set.push(SERVER, name, Some(value));
            }
        }
    }

    /// Adds a running server's data home. The server passes `./` when none is configured. Then names in
    /// `innodb_data_file_path` may be absolute, so `./` must not count as a configured home.
    fn overlay_environment(&mut self, home: Option<String>) {
        let Some(home) = home else { return };
        let configured = self.server("innodb-data-home-dir").is_some_and(|dir| !dir.is_empty());
        if configured || !matches!(home.trim_end_matches('/'), "." | "") {
            self.set.push(SERVER, "innodb-data-home-dir", Some(&home));
        }
    }

    /// Returns the value of a server option, `Some("")` if it was given without one. `-` and `_` in names are
    /// equal; `skip-x` is `x` with the value `0`.
    pub fn server(&self, name: &str) -> Option<&str> {
        self.set.get(&[SERVER], name)
    }

    /// Returns all values of a cumulative server option, in order.
    pub fn server_all(&self, name: &str) -> Vec<&str> {
        let of_name = self.set.entries().iter().filter(|entry| entry.group == SERVER && entry.name == name);
        of_name.map(|entry| entry.value.as_deref().unwrap_or_default()).collect()
    }

    /// Whether any server option's name (with dashes) starts with `prefix`.
    pub fn server_has_prefix(&self, prefix: &str) -> bool {
        self.set.entries().iter().any(|entry| entry.group == SERVER && entry.name.starts_with(prefix))
    }

    /// Returns the value of an option of `[sst]`.
    pub fn sst(&self, name: &str) -> Option<&str> {
        self.set.get(&[SST], name)
    }

    /// A server option that is a size.
    ///
    /// # Errors
    /// A configuration failure naming the option.
    pub fn server_size(&self, name: &str) -> Result<Option<u64>> {
        self.server(name).map(|value| size(name, value)).transpose()
    }

    /// A server option that is a switch.
    ///
    /// # Errors
    /// A configuration failure naming the option.
    pub fn server_bool(&self, name: &str) -> Result<Option<bool>> {
        self.server(name).map(|value| switch(name, value)).transpose()
    }

    /// An `[sst]` option that is a size.
    ///
    /// # Errors
    /// A configuration failure naming the option.
    pub fn sst_size(&self, name: &str) -> Result<Option<u64>> {
        self.sst(name).map(|value| size(&format!("[sst] {name}"), value)).transpose()
    }

    /// An `[sst]` option that is a number.
    ///
    /// # Errors
    /// A configuration failure naming the option.
    pub fn sst_number(&self, name: &str) -> Result<Option<u32>> {
        let number = |text: &str| text.trim().parse().ok();
        let read = |value| typed(&format!("[sst] {name}"), value, number, "a number");
        self.sst(name).map(read).transpose()
    }

    /// An `[sst]` option that is a switch.
    ///
    /// # Errors
    /// A configuration failure naming the option.
    pub fn sst_bool(&self, name: &str) -> Result<Option<bool>> {
        self.sst(name).map(|value| switch(&format!("[sst] {name}"), value)).transpose()
    }

    /// An `[sst]` option that is a number of seconds.
    ///
    /// # Errors
    /// A configuration failure naming the option.
    pub fn sst_duration_s(&self, name: &str) -> Result<Option<u64>> {
        let seconds = |text: &str| text.trim().strip_suffix('s').unwrap_or(text.trim()).parse().ok();
        let read = |value| typed(&format!("[sst] {name}"), value, seconds, "a number of seconds");
        self.sst(name).map(read).transpose()
    }

    /// Names in a list option of `[sst]` (separated by `,`), in upper case.
    pub fn sst_names(&self, name: &str) -> BTreeSet<String> {
        let value = self.sst(name).unwrap_or_default();
        value.split([',', ' ', ';']).filter(|part| !part.is_empty()).map(str::to_ascii_uppercase).collect()
    }

    /// Files that were read, in order.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Warnings: files that could not be read, lines that could not be parsed.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// The value of an option that is a size.
///
/// # Errors
/// A configuration failure naming the option.
pub fn size(name: &str, value: &str) -> Result<u64> {
    typed(name, value, parse_size, "a size such as 16M")
}

/// The value of an option that is a switch.
///
/// # Errors
/// A configuration failure naming the option.
pub fn switch(name: &str, value: &str) -> Result<bool> {
    typed(name, value, parse_bool, "a switch (0 or 1)")
}

fn typed<T>(name: &str, value: &str, parse: impl Fn(&str) -> Option<T>, what: &str) -> Result<T> {
    let bad = || Failure::new(Kind::Configuration, format!("{name}={value:?} is not {what}"));
    parse(value).ok_or_else(|| anyhow!(bad()))
}

/// Reads the files and collects the options of the groups that apply.
struct Reader {
    options: ServerOptions,
    suffix: String,
    series: Option<(u32, u32)>,
}

impl Reader {
    fn new(args: &SstArgs, series: Option<(u32, u32)>, around: &Surroundings) -> Reader {
        let given = args.defaults_group_suffix.clone();
        let from_server = || args.mysqld_option("defaults-group-suffix").map(str::to_owned);
        let from_env = || (around.env)("MARIADB_GROUP_SUFFIX").or_else(|| (around.env)("MYSQL_GROUP_SUFFIX"));
        let suffix = given.or_else(from_server).or_else(from_env).unwrap_or_default();
        Reader { options: ServerOptions::default(), suffix, series }
    }

    fn standard_places(&mut self, args: &SstArgs, around: &Surroundings) -> Result<()> {
        let named = |direct: &Option<String>, option| {
            direct.clone().or_else(|| args.mysqld_option(option).map(str::to_owned)).map(PathBuf::from)
        };
        if let Some(only) = named(&args.defaults_file, "defaults-file") {
            return self.required(&only, "--defaults-file");
        }
        let home = (around.env)("MARIADB_HOME").or_else(|| (around.env)("MYSQL_HOME")).map(PathBuf::from);
        let mut dirs = around.etc.clone();
        // A directory that is named twice is read once, at its last position.
        dirs.retain(|dir| home.as_ref() != Some(dir));
        for dir in dirs.into_iter().chain(home) {
            self.file(&dir.join("my.cnf"), 0, false);
        }
        if let Some(extra) = named(&args.defaults_extra_file, "defaults-extra-file") {
            self.required(&extra, "--defaults-extra-file")?;
        }
        if let Some(home) = (around.env)("HOME") {
            self.file(&Path::new(&home).join(".my.cnf"), 0, false);
        }
        Ok(())
    }

    fn required(&mut self, path: &Path, option: &str) -> Result<()> {
        fs::File::open(path).map_err(|e| {
            anyhow!(Failure::new(
                Kind::Configuration,
                format!("{option}={} cannot be read: {e}", path.display())
            ))
        })?;
        self.file(path, 0, true);
        Ok(())
    }

    /// Reads one file. It may be absent, unless an option named it.
    fn file(&mut self, path: &Path, depth: usize, named: bool) {
        if self.options.files.len() >= FILES_MAX {
            let warning = format!("more than {FILES_MAX} option files; {} was not read", path.display());
            if !self.options.warnings.contains(&warning) && self.options.files.len() == FILES_MAX {
                self.warn(warning);
            }
            return;
        }
        let content = match fs::metadata(path).and_then(|meta| Ok((meta, fs::read(path)?))) {
            // The server ignores world-writable files, because it may have written them itself.
            Ok((meta, _)) if meta.is_file() && meta.permissions().mode() & 0o002 != 0 => {
                return self
                    .warn(format!("option file {} is world-writable and was ignored", path.display()));
            }
            Ok((_, content)) => content,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !named => return,
            Err(e) => return self.warn(format!("option file {} cannot be read: {e}", path.display())),
        };
        self.options.files.push(path.to_path_buf());
        self.lines(path, OptionFile::parse(&content), depth);
    }

    fn lines(&mut self, path: &Path, file: OptionFile, depth: usize) {
        for error in &file.errors {
            self.warn(format!("option file {}:{}: {}", path.display(), error.line, error.kind));
        }
        // The server stops reading a file at the first invalid line.
        let end = file.errors.first().map_or(usize::MAX, |error| error.line);
        let mut group = None;
        for line in file.lines.into_iter().take_while(|line| line.number < end) {
            match line.item {
                Item::Group(name) => group = self.group(&name),
                Item::Option { name, value } => {
                    if let Some(group) = group {
                        self.options.set.push(group, &name, value.as_deref());
                    }
                }
                Item::Include(_) | Item::IncludeDir(_) if depth >= INCLUDE_DEPTH_MAX => {
                    self.warn(format!(
                        "{}:{}: include nested too deep, skipped",
                        path.display(),
                        line.number
                    ));
                }
                Item::Include(name) => self.file(Path::new(&name), depth + 1, true),
                Item::IncludeDir(dir) => {
                    if !self.directory(Path::new(&dir), depth, &format!("{}:{}", path.display(), line.number))
                    {
                        return;
                    }
                }
            }
        }
    }

    /// Reads all `*.cnf` of a directory in the order of their names. Returns false if it cannot be listed:
    /// the server then stops reading the including file.
    fn directory(&mut self, dir: &Path, depth: usize, at: &str) -> bool {
        let list =
            || -> std::io::Result<Vec<PathBuf>> { fs::read_dir(dir)?.map(|e| Ok(e?.path())).collect() };
        match list() {
            Ok(mut paths) => {
                // Any name that ends in `.cnf` counts, also `.cnf` alone.
                paths.retain(|path| {
                    path.file_name().is_some_and(|name| name.as_encoded_bytes().ends_with(b".cnf"))
                });
                paths.sort();
                paths.iter().for_each(|path| self.file(path, depth + 1, false));
                true
            }
            Err(e) => {
                self.warn(format!("{at}: directory {} cannot be listed: {e}", dir.display()));
                false
            }
        }
    }

    /// Returns which of our two groups a group in a file belongs to.
    fn group(&self, name: &str) -> Option<&'static str> {
        let plain = name.strip_suffix(self.suffix.as_str()).unwrap_or(name);
        [name, plain].into_iter().find_map(|name| match name {
            SST => Some(SST),
            "mysqld" | "server" | "mariadb" | "mariadbd" | "client-server" | "galera" => Some(SERVER),
            _ => self.is_group_of_series(name).then_some(SERVER),
        })
    }

    fn is_group_of_series(&self, name: &str) -> bool {
        let Some((_, version)) =
            name.split_once('-').filter(|(server, _)| matches!(*server, "mysqld" | "mariadb" | "mariadbd"))
        else {
            return false;
        };
        let numbers = version.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        numbers.is_some_and(|numbers| self.series.is_none_or(|series| series == numbers))
    }

    fn warn(&mut self, text: String) {
        self.options.warnings.push(text);
    }
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
