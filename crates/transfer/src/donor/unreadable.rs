//! Files that the server's user may not read. A stray file is left out with a warning, because the server cannot use it
//! either. A file that the server has open, or that InnoDB knows, is part of the data: its permissions were changed
//! while the server was running.
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use formats::wsrep::credentials::Account;

use crate::datadir::scan::Scan;
use crate::failure::{Failure, Kind};
use crate::job::Job;
use crate::server::synced;
use crate::server::users::own_user_name;
use crate::sql::{ANSWER_WITHIN, Login, Session};

/// What is known of the files that the server uses.
struct Used {
    /// Paths that it has open; `None` if they cannot be listed.
    open: Option<Vec<PathBuf>>,
    /// Names of InnoDB's tablespaces, `database/table` as in the file's path; `None` if the account
    /// lacks the privilege.
    tablespaces: Option<HashSet<String>>,
}

/// Fails if the server uses a file that would be left out.
///
/// # Errors
/// The first such file or directory, with a remedy.
pub(super) fn refuse_in_use(job: &Job, account: Option<&Account>, scan: &Scan) -> Result<(), Failure> {
    if scan.unreadable.is_empty() {
        return Ok(());
    }
    let socket = synced::socket_path(job.args.socket.as_deref(), &job.datadir);
    let login = Login::at_socket(&socket, account);
    let tablespaces = || Session::open(&login, ANSWER_WITHIN).ok()?.innodb_tablespaces().ok();
    let used =
        Used { open: job.server.and_then(|server| open_files(server.pid)), tablespaces: tablespaces() };
    match scan.unreadable.iter().find_map(|path| Some((path, used.why(path)?))) {
        None => Ok(()),
        Some((path, why)) => {
            let at = path.display();
            let text = format!("{at} cannot be read by the server's user, and {why}");
            let user = own_user_name().unwrap_or_else(|| "mysql".to_owned());
            let hint = format!(
                "chown {user}: {at} (this path only), or move it away if the server does not need it"
            );
            Err(Failure::new(Kind::Refused, text).hint(hint))
        }
    }
}

impl Used {
    fn why(&self, path: &Path) -> Option<&'static str> {
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let is_open =
            |open: &Vec<PathBuf>| open.iter().any(|file| file.starts_with(&real) || file.starts_with(path));
        if self.open.as_ref().is_some_and(is_open) {
            return Some("the server has it open");
        }
        let known = |names: &HashSet<String>| names.iter().any(|name| is_named(name, path));
        if self.tablespaces.as_ref().is_some_and(known) {
            return Some("InnoDB has a tablespace of this name");
        }
        let unknown = self.open.is_none() && self.tablespaces.is_none();
        let defined =
            || path.with_extension("frm") != path && fs::File::open(path.with_extension("frm")).is_ok();
        (unknown && defined()).then_some("the table's definition is there, so the server may use it")
    }
}

/// Whether a tablespace is this file, or one in this directory.
fn is_named(tablespace: &str, path: &Path) -> bool {
    let file = path.with_extension("");
    let below = Path::new(tablespace).parent().filter(|database| *database != Path::new(""));
    file.ends_with(tablespace) || below.is_some_and(|database| path.ends_with(database))
}

/// Files that a process has open. `None` if it belongs to another user, or changed its user after
/// its start.
fn open_files(pid: u32) -> Option<Vec<PathBuf>> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    Some(descriptors.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_uses() {
        let path = |text: &str| PathBuf::from(text);
        let used = Used {
            open: Some(vec![path("/d/shop/open.ibd"), path("/d/shut/t.MYD")]),
            tablespaces: Some(["shop/known".to_owned(), "my@002ddb/t#P#p0".to_owned()].into()),
        };
        for (unreadable, is_used) in [
            ("/d/shop/open.ibd", true),
            ("/d/shop/known.ibd", true),
            ("/d/shop/stray.ibd", false),
            ("/d/shop/stray.frm", false),
            ("/d/other/known.ibd", false),
            ("/d/my@002ddb/t#P#p0.ibd", true),
            ("/d/shut", true),
            ("/d/shop", true),
            ("/d/backup", false),
        ] {
            assert_eq!(used.why(&path(unreadable)).is_some(), is_used, "{unreadable}");
        }
        let dir = tempfile::tempdir().unwrap();
        let nobody = Used { open: None, tablespaces: None };
        assert!(nobody.why(&dir.path().join("t.ibd")).is_none());
        fs::write(dir.path().join("t.frm"), "").unwrap();
        assert!(nobody.why(&dir.path().join("t.ibd")).is_some());
    }
}
