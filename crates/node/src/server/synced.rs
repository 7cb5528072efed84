//! After a transfer: waiting until the node has once been Synced, so that the files it replaced can go.
//!
//! The server tells its script nothing after the final line, so a small process of ours outlives the transfer and
//! asks the server. It ends with the server, and what it did not get to is done by the next transfer (as donor, a
//! node has been Synced; after an IST, this wait begins anew).
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use formats::wsrep::credentials::Account;

use super::sql::Session;
use crate::cancel::Cancel;
use crate::failure::Failure;

/// `wsrep_local_state` of a Synced node.
const SYNCED: u8 = 4;
/// How often the server is asked.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Without any login: how long the server must have greeted clients without a break. It begins to greet about when it
/// begins to apply the IST (observed on 10.11.19); a node whose IST fails ends its server, which ends this wait.
const GREETING_LONG_ENOUGH: Duration = Duration::from_secs(600);

/// What told us that the node is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witness {
    /// `wsrep_local_state` said so.
    Status,
    /// No login works; the server has greeted clients for ten minutes.
    Greeting,
}

/// Waits until the node is Synced. Fails when `cancel` ends the wait (the server died, a signal).
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
        match Session::open(socket, account).and_then(|mut session| session.local_state()) {
            Some(SYNCED) => return Ok(Witness::Status),
            Some(_) => greeting_since = None,
            None if since.elapsed() > GREETING_LONG_ENOUGH => return Ok(Witness::Greeting),
            None => {}
        }
    }
}

/// The first packet of a server that takes clients has protocol number 10; one that does not has an error (255).
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

/// Where the server listens for local clients: its setting, or what the packages of the field compile in.
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
