//! Which server runs on a datadir, even if it has not opened any engine's file yet.
//!
//! A joiner's server waits for its group, and then for its state, without any lock on files of an
//! engine, and Galera takes no lock on `grastate.dat` (observed with 10.11.19 and Galera 26.4.23). So the list
//! of processes is searched too: every server first makes the datadir its working directory. A server in
//! another container is visible only by the locks of its engines; while it receives a state, its joiner holds
//! the lock of the datadir ([`crate::disk::lock`]).
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Result;
use formats::wsrep::invocation::SstArgs;

use super::layout::Layout;
use super::own_position::{self, InUse};
use crate::failure::{Failure, Kind};
use crate::flavor;
use crate::server::compiled_in;
use crate::server::options::ServerOptions;

/// Fails if a server runs on the datadir or waits there for a state transfer.
///
/// # Errors
/// [`Kind::Server`], naming the process; a file that cannot be accessed.
pub fn refuse_server_on(layout: &Layout) -> Result<()> {
    let Some(server) = server_on(layout)? else { return Ok(()) };
    let text = format!("{server} runs on {}", layout.datadir.display());
    Err(Failure::new(Kind::Server, text).hint("stop it first").into())
}

/// Returns the server that runs on the datadir or waits there for a state transfer.
///
/// # Errors
/// A file of an engine exists but cannot be accessed.
pub fn server_on(layout: &Layout) -> Result<Option<InUse>> {
    match own_position::server_using(layout)? {
        None => Ok(process_in(&layout.datadir)),
        found => Ok(found),
    }
}

/// Returns a server whose working directory is the datadir. If it has no engine open it is starting: it waits
/// for its group, or for a state transfer.
pub(crate) fn process_in(datadir: &Path) -> Option<InUse> {
    let here = fs::metadata(datadir).ok()?;
    let here = (here.dev(), here.ino());
    let pids =
        fs::read_dir("/proc").ok()?.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let found =
        pids.into_iter().filter(|pid| is_server(*pid)).find(|pid| datadir_of_process(*pid) == Some(here));
    found.map(|pid| InUse { path: datadir.to_owned(), pid: Some(pid) })
}

fn is_server(pid: u32) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    flavor::ALL.iter().any(|flavor| flavor.programs().contains(&name.trim_end()))
}

/// Device and inode of a server's datadir.
fn datadir_of_process(pid: u32) -> Option<(u64, u64)> {
    match fs::metadata(format!("/proc/{pid}/cwd")) {
        Ok(directory) => Some((directory.dev(), directory.ino())),
        // A server that was started by root and changed its user hides its working directory; every user can
        // read its command line.
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let directory = fs::metadata(datadir_of_command_line(&line)?).ok()?;
            Some((directory.dev(), directory.ino()))
        }
        Err(_) => None,
    }
}

/// The datadir of a server with this command line.
fn datadir_of_command_line(line: &[u8]) -> Option<String> {
    let words = line.split(|&b| b == 0).filter(|word| !word.is_empty()).skip(1);
    let mysqld_args: Vec<String> = words.map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let options = ServerOptions::load(&SstArgs { mysqld_args, ..SstArgs::default() }).ok()?;
    let named = options.server("datadir").filter(|dir| !dir.is_empty()).map(str::to_owned);
    // Only the packages' server is considered: anyone may start a process with its name, and with any
    // `basedir`.
    named.or_else(|| Some(compiled_in::datadir_of_packages()?.to_string_lossy().into_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::{Child, Command};

    use super::*;
    use crate::datadir::testing::Tree;

    /// A process with the server's name.
    struct Server(Child);

    impl Server {
        fn named(name: &str, tree: &Tree, directory: &str) -> Server {
            let program = tree.path(name);
            // A copy could be busy: another thread may have it open for writing while it starts a program.
            symlink("/bin/sleep", &program).unwrap();
            let server = Command::new(program).arg("600").current_dir(tree.path(directory)).spawn().unwrap();
            // The kernel sets its name shortly after spawn() has returned.
            let comm = format!("/proc/{}/comm", server.id());
            while fs::read_to_string(&comm).unwrap().trim() != name {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            Server(server)
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    #[test]
    fn a_server_that_waits_in_the_datadir_is_seen_and_no_other_process() {
        let tree = Tree::with_engine_files();
        fs::create_dir(tree.path("elsewhere")).unwrap();
        let layout = tree.layout(&[]);
        let others =
            [Server::named("mariadbd", &tree, "elsewhere"), Server::named("mysqld_safe", &tree, "data")];
        assert_eq!(server_on(&layout).unwrap(), None);
        let waits = Server::named("mysqld", &tree, "data");
        assert_eq!(server_on(&layout).unwrap().and_then(|found| found.pid), Some(waits.0.id()));
        let text = refuse_server_on(&layout).unwrap_err().to_string();
        assert!(text.contains(&format!("a server (process {}) runs on ", waits.0.id())), "{text}");
        drop((waits, others));
        refuse_server_on(&layout).unwrap();
    }

    #[test]
    fn a_command_line_tells_the_datadir() {
        let of = |line: &str| datadir_of_command_line(line.replace(' ', "\0").as_bytes());
        assert_eq!(of("mariadbd --no-defaults --datadir=/x/data --user=mysql").as_deref(), Some("/x/data"));
        // The arguments of Debian's unit.
        let compiled_in = compiled_in::datadir_of_packages().map(|dir| dir.to_string_lossy().into_owned());
        assert_eq!(of("mariadbd --no-defaults --user=mysql"), compiled_in);
    }
}
