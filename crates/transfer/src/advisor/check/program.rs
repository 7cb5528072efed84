//! The programs and libraries that the server would load: its method, its provider, itself.
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{Access, access};

use super::facts::Program;
use crate::running_joiner;
use crate::server::compiled_in::{SERVICE_PATH, basedir, programs};
use crate::server::options::ServerOptions;
use crate::server::parent::ServerProcess;
use crate::server::version;

/// The program that the server runs for `wsrep_sst_method=rejoin`.
const METHOD: &str = "wsrep_sst_rejoin";

/// Searches for the method as the server does: `<basedir>/bin`, then its `PATH` (docs/server-contract.md). If the program
/// of another configured method is rejoin (docs/kubernetes.md), it is that one.
pub(super) fn method(server: Option<u32>, options: &ServerOptions) -> Program {
    let mut dirs = vec![basedir(options).join("bin")];
    for dir in std::env::split_paths(&path_of(server)) {
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    let configured = options.server("wsrep-sst-method").map(|name| format!("wsrep_sst_{name}"));
    let configured = configured.map(|name| find(&dirs, &name));
    configured.filter(Program::is_rejoin).unwrap_or_else(|| find(&dirs, METHOD))
}

/// Whether a stopped server with these options would get rows while it runs: `wsrep_sst_method=mysqldump` is rejoin.
pub(in crate::advisor) fn gets_rows(options: &ServerOptions) -> bool {
    let is_its_name = |path: &Path| path.file_name().is_some_and(|name| name == running_joiner::PROGRAM);
    options.server("wsrep-sst-method") == Some(running_joiner::METHOD)
        && matches!(method(None, options), Program::Found { path, version: Some(_), .. } if is_its_name(&path))
}

fn find(dirs: &[PathBuf], name: &str) -> Program {
    let Some(path) = dirs.iter().map(|dir| dir.join(name)).find(|path| path.exists()) else {
        return Program::Missing { searched: dirs.to_vec() };
    };
    let executable = access(&path, Access::EXEC_OK).is_ok();
    let same = is_this_program(&path);
    let version = if same { Some(env!("CARGO_PKG_VERSION").to_owned()) } else { version_of(&path) };
    Program::Found { path, executable, same, version }
}

/// The running server's own `PATH` if it is readable; systemd's for a stopped server.
fn path_of(server: Option<u32>) -> String {
    let environment =
        server.and_then(|pid| fs::read(format!("/proc/{pid}/environ")).ok()).unwrap_or_default();
    let path = environment.split(|&b| b == 0).find_map(|entry| entry.strip_prefix(b"PATH="));
    path.map_or_else(|| SERVICE_PATH.to_owned(), |path| String::from_utf8_lossy(path).into_owned())
}

/// The same file, or a copy of it.
fn is_this_program(path: &Path) -> bool {
    let own = Path::new("/proc/self/exe");
    let lengths = |path: &Path| fs::metadata(path).map(|meta| meta.len()).ok();
    lengths(own).is_some() && lengths(own) == lengths(path) && fs::read(own).ok() == fs::read(path).ok()
}

/// Asks another program of that name for its version, by an operator's arguments. Scripts are not run,
/// because they may ignore the arguments.
fn version_of(path: &Path) -> Option<String> {
    let mut head = [0; 4];
    std::io::Read::read_exact(&mut fs::File::open(path).ok()?, &mut head).ok()?;
    if &head != b"\x7fELF" {
        return None;
    }
    let mut command = Command::new(path);
    command.arg0("rejoin").arg("--version").stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().ok()?;
    release_of(&String::from_utf8_lossy(&output.stdout))
}

/// The first line names the release; newer releases add the commit and the protocol.
fn release_of(version: &str) -> Option<String> {
    version.lines().next()?.trim().strip_prefix("rejoin ").map(str::to_owned)
}

/// Returns the provider, and why it cannot be loaded; `None` if none is configured.
pub(super) fn provider(options: &ServerOptions) -> Option<(PathBuf, Option<String>)> {
    let path = options.server("wsrep-provider").filter(|path| !path.is_empty() && *path != "none")?;
    let path = PathBuf::from(path);
    let problem = fs::File::open(&path).err().map(|e| e.to_string());
    Some((path, problem))
}

/// Returns the version text of the server: of the running process, otherwise of the program that would be
/// started.
pub(in crate::advisor) fn server_version(running: Option<u32>, options: &ServerOptions) -> Option<String> {
    let of_process = running.and_then(|pid| version::server_version(Some(ServerProcess { pid })));
    of_process.or_else(|| programs(&basedir(options)).find_map(|path| version::of_program(&path)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_release_is_named_in_the_first_line_only() {
        assert_eq!(release_of("rejoin 0.1.0\ncommit 0123456789ab\nprotocol 1\n").as_deref(), Some("0.1.0"));
        assert_eq!(release_of("rejoin 0.1.0\n").as_deref(), Some("0.1.0"));
        assert_eq!(release_of("mariadb 10.11\nrejoin 0.1.0\n"), None);
    }

    #[test]
    fn the_first_of_that_name_counts_and_says_what_it_is() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let dirs = [first.path().to_owned(), second.path().to_owned()];
        assert_eq!(find(&dirs, METHOD), Program::Missing { searched: dirs.to_vec() });

        fs::copy("/proc/self/exe", second.path().join(METHOD)).unwrap();
        assert!(matches!(find(&dirs, METHOD), Program::Found { same: true, executable: true, .. }));

        // A script that precedes it in PATH, and one that may not be executed.
        let script = first.path().join(METHOD);
        fs::write(&script, "#!/bin/sh\necho rejoin 9.9\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o644)).unwrap();
        let found = find(&dirs, METHOD);
        assert!(!found.is_rejoin());
        let expected = Program::Found { path: script, executable: false, same: false, version: None };
        assert_eq!(found, expected);
    }
}
