//! The paths of the server's own logs: binary logs, relay logs, and those of interrupted DDL.
use std::path::{Path, PathBuf};

use super::layout::{absolute, with_suffix};
use crate::server::options::ServerOptions;

/// The stem of default log names: `log_basename`, otherwise the host's name.
pub(super) fn basename(options: &ServerOptions) -> String {
    let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    options.server("log-basename").filter(|name| !name.is_empty()).map_or_else(host, str::to_owned)
}

/// The server cuts the file name at its first dot (`MYSQL_LOG::generate_name`).
fn without_extension(path: PathBuf) -> PathBuf {
    match path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once('.')) {
        Some((stem, _)) if !stem.is_empty() => path.with_file_name(stem),
        _ => path,
    }
}

pub(super) fn binlog(
    datadir: &Path,
    options: &ServerOptions,
    basename: &str,
) -> (Option<PathBuf>, Option<PathBuf>) {
    let Some(name) = options.server("log-bin").filter(|name| *name != "0") else { return (None, None) };
    let default = format!("{basename}-bin");
    let base = without_extension(absolute(datadir, if name.is_empty() { &default } else { name }));
    let index = index_file(datadir, options, "log-bin-index", &base);
    (Some(base), Some(index))
}

pub(super) fn relay_log(datadir: &Path, options: &ServerOptions, basename: &str) -> (PathBuf, PathBuf) {
    let default = format!("{basename}-relay-bin");
    let name = options.server("relay-log").filter(|name| !name.is_empty()).unwrap_or(&default);
    let base = without_extension(absolute(datadir, name));
    let index = index_file(datadir, options, "relay-log-index", &base);
    (base, index)
}

/// A configured index gets `.index` unless it has an extension; the default is named after its logs.
fn index_file(datadir: &Path, options: &ServerOptions, option: &str, base: &Path) -> PathBuf {
    match options.server(option).filter(|name| !name.is_empty()) {
        None => with_suffix(base, ".index"),
        Some(name) => {
            let path = absolute(datadir, name);
            if path.extension().is_some() { path } else { with_suffix(&path, ".index") }
        }
    }
}

pub(super) fn ddl_logs(datadir: &Path, options: &ServerOptions) -> Vec<PathBuf> {
    let name =
        options.server("log-ddl-recovery").filter(|name| !name.is_empty()).unwrap_or("ddl_recovery.log");
    let base = without_extension(absolute(datadir, name));
    vec![with_suffix(&base, ".log"), with_suffix(&base, "-backup.log")]
}
