//! Noticing that our server is shutting down in order.
//!
//! When a donor's server receives a signal to stop, it closes its client sockets within 100 ms, leaves its
//! group one to two seconds later, and then waits for us silently. If we end after that, it aborts with
//! signal 6 ("provider not loaded", MariaDB 10.11.19). So its unix socket is watched in the kernel's list:
//! anyone could remove the path, and a test connection would count as one of the server's aborted clients.
use std::fs;
use std::path::{Path, PathBuf};

use crate::server::synced;

const SOCKETS: &str = "/proc/net/unix";
/// The kernel's flag for a listening socket (`__SO_ACCEPTCON`).
const LISTENS: u32 = 0x1_0000;

/// The socket on which a server accepts local clients.
#[derive(Debug)]
pub struct ClientSocket {
    /// The path as the server got it, which is the path that the kernel lists.
    given: PathBuf,
    full: PathBuf,
}

impl ClientSocket {
    /// Returns the socket of the server with this setting, if it listens now; otherwise there is nothing to
    /// watch.
    pub fn find(setting: Option<&str>, datadir: &Path) -> Option<ClientSocket> {
        let full = synced::socket_path(setting, datadir);
        let given = setting.map_or_else(|| full.clone(), PathBuf::from);
        let socket = ClientSocket { given, full };
        let list = fs::read_to_string(SOCKETS).ok()?;
        socket.is_in(&list).then_some(socket)
    }

    /// Whether the server still listens on it. True if that cannot be determined.
    pub fn listens(&self) -> bool {
        fs::read(SOCKETS).map_or(true, |list| self.is_in(&String::from_utf8_lossy(&list)))
    }

    /// Columns of the list: number, references, protocol, flags, type, state, inode, path.
    fn is_in(&self, list: &str) -> bool {
        list.lines().any(|line| {
            let mut columns = line.split_whitespace();
            let flags = columns.nth(3).and_then(|flags| u32::from_str_radix(flags, 16).ok());
            let path = columns.nth(3).map(Path::new);
            flags.is_some_and(|flags| flags & LISTENS != 0)
                && path.is_some_and(|path| path == self.given || path == self.full)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_socket_is_open_until_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.sock");
        let find = || ClientSocket::find(path.to_str(), dir.path());
        assert!(find().is_none());
        let listener = UnixListener::bind(&path).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        let (server, _) = listener.accept().unwrap();
        let socket = find().unwrap();
        // A removed socket file does not mean that the server has gone.
        fs::remove_file(&path).unwrap();
        assert!(socket.listens());
        drop(listener);
        // The kernel lists an open connection under the same path.
        assert!(!socket.listens());
        drop((client, server));
    }

    #[test]
    fn a_path_within_the_datadir_is_found_as_the_server_gave_it() {
        let socket = ClientSocket { given: "mysql.sock".into(), full: "/data/mysql.sock".into() };
        let line = |flags: &str, path: &str| {
            format!("Num RefCount\n0: 00000002 00000000 {flags} 0001 01 77 {path}\n")
        };
        assert!(socket.is_in(&line("00010000", "mysql.sock")));
        assert!(socket.is_in(&line("00010000", "/data/mysql.sock")));
        assert!(!socket.is_in(&line("00000000", "mysql.sock")));
        assert!(!socket.is_in(&line("00010000", "other.sock")));
    }
}
