//! After a transfer: waiting until the node has been Synced once, so that the replaced files can be deleted.
//!
//! The server sends its script nothing after the final line, so a small process of ours outlives the transfer
//! and queries the server. It ends with the server; the next transfer then completes its work (a donor has
//! been Synced; after an IST the wait starts again).
use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use formats::Seqno;
use formats::wsrep::credentials::Account;

use crate::cancel::Cancel;
use crate::failure::Failure;
use crate::sql::{ANSWER_WITHIN, Login, Session};

/// `wsrep_local_state` of a Synced node.
const SYNCED: i64 = 4;
/// How often the server is queried.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Without any login: how long the server must have greeted clients without interruption. It starts to greet at
/// about the time when it starts to apply the IST (observed on 10.11.19). A node whose IST fails ends its server,
/// which ends this wait.
const GREETING_LONG_ENOUGH: Duration = Duration::from_secs(600);

/// The evidence that the node is Synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witness {
    /// `wsrep_local_state` shows it.
    Status,
    /// No login works, but the server has greeted clients for ten minutes.
    Greeting,
}

/// Waits until the node is Synced. Fails if `cancel` ends the wait (the server died, or a signal arrived).
pub fn wait_until_synced(
    socket: &Path,
    account: Option<&Account>,
    cancel: &Cancel,
) -> Result<Witness, Failure> {
    let mut greeting_since: Option<Instant> = None;
    loop {
        cancel.sleep(ASK_EVERY)?;
        if !greets(socket) {
            greeting_since = None;
            continue;
        }
        let since = *greeting_since.get_or_insert_with(Instant::now);
        match local_state(socket, account) {
            Some(SYNCED) => return Ok(Witness::Status),
            Some(_) => greeting_since = None,
            None if since.elapsed() > GREETING_LONG_ENOUGH => return Ok(Witness::Greeting),
            None => {}
        }
    }
}

/// Whether the server of this datadir reports that it is Synced. The socket may belong to the server of
/// another datadir.
pub fn is_synced(socket: &Path, account: Option<&Account>, datadir: &Path) -> bool {
    let ask = || -> Option<bool> {
        let mut session = open(socket, account)?;
        let theirs = session.variable("datadir").ok()??;
        let same = fs::canonicalize(theirs).ok()? == fs::canonicalize(datadir).ok()?;
        Some(same && session.local_state().ok()?? == SYNCED)
    };
    ask().unwrap_or(false)
}

/// The last write-set that the server has committed, if it can be asked.
pub fn last_committed(socket: &Path, account: Option<&Account>) -> Option<Seqno> {
    open(socket, account)?.status_number("wsrep_last_committed").ok()?.map(Seqno)
}

fn open(socket: &Path, account: Option<&Account>) -> Option<Session> {
    let opened = Session::open(&Login::at_socket(socket, account), ANSWER_WITHIN);
    opened.inspect_err(|why| tracing::debug!("{why}")).ok()
}

fn local_state(socket: &Path, account: Option<&Account>) -> Option<i64> {
    open(socket, account)?.local_state().ok()?
}

/// The first packet of a server that accepts clients has protocol number 10; otherwise it is an error (255).
fn greets(socket: &Path) -> bool {
    let read = || -> std::io::Result<u8> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut packet = [0; 5];
        stream.read_exact(&mut packet)?;
        Ok(packet[4])
    };
    matches!(read(), Ok(10))
}

/// The path of the server's unix socket: its setting, or the usual compiled-in default.
pub fn socket_path(setting: Option<&str>, datadir: &Path) -> PathBuf {
    match setting {
        Some(path) if path.starts_with('/') => PathBuf::from(path),
        Some(path) => datadir.join(path),
        None => ["/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock", "/tmp/mysql.sock"]
            .map(PathBuf::from)
            .into_iter()
            .find(|p| p.exists())
            .unwrap_or_else(|| PathBuf::from("/run/mysqld/mysqld.sock")),
    }
}
