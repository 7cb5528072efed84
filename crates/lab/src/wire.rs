//! Bytes on TCP connections to one port, as the kernel counted them until each connection ended: exact, and without
//! a relay that would cost what is measured. Headers and what was sent twice do not count.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tempfile::NamedTempFile;

use crate::node::Node;
use crate::{places, process};

/// Listens to the kernel's news of connections that ended, by way of `ss -E`.
#[derive(Debug)]
pub struct Wire {
    port: u16,
    news: NamedTempFile,
    child: Child,
}

impl Wire {
    /// Counts what goes over connections that end from now on and that a listener on `port` accepted.
    pub fn listen(port: u16) -> Result<Self> {
        Self::listen_within(port, |command| command)
    }

    /// Counts what goes over the connections of state transfers to `joiner`, on whichever network it is.
    pub fn of_transfers_to(joiner: &Node) -> Result<Self> {
        Self::listen_within(joiner.ports().sst(), |command| joiner.inside(command))
    }

    fn listen_within(port: u16, within: impl Fn(Command) -> Command) -> Result<Self> {
        let news = NamedTempFile::new().context("a file for the news of connections")?;
        let mut command = Command::new("setpriv");
        // By lines: what it holds back would be lost when it is ended.
        command.args(["--pdeathsig", "KILL", "--", "stdbuf", "-oL"]).arg(places::program("ss")?);
        command.args(["-E", "--tcp", "--info", "--numeric", "--no-header"]);
        let mut command = within(command);
        command.stdin(Stdio::null()).stdout(news.reopen()?).stderr(Stdio::null());
        let mut child = process::spawn(command).context("starting ss")?;
        let early = process::wait(&mut child, Duration::from_millis(200))?;
        ensure!(early.is_none(), "ss -E ended at once: {early:?}");
        Ok(Self { port, news, child })
    }

    /// Bytes in both directions.
    pub fn stop(mut self) -> Result<u64> {
        // The last connection's end is news that is still under way.
        std::thread::sleep(Duration::from_millis(200));
        process::signal(self.child.id(), Signal::TERM);
        self.child.wait()?;
        let path: PathBuf = self.news.path().to_owned();
        Ok(count(&fs::read_to_string(&path).with_context(|| path.display().to_string())?, self.port))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// A connection is told on two lines: state, queues, local and peer address; then what the kernel knows of it.
/// Both ends are on this machine: the end that accepted is taken.
fn count(news: &str, port: u16) -> u64 {
    let local = format!(":{port}");
    let mut ours = false;
    let mut sum = 0;
    for line in news.lines() {
        if line.starts_with(|c: char| c.is_whitespace()) {
            let told = |name: &str| {
                line.split_whitespace().find_map(|word| word.strip_prefix(name)?.parse::<u64>().ok())
            };
            let both = told("bytes_received:").unwrap_or(0) + told("bytes_acked:").unwrap_or(0);
            sum += if ours { both } else { 0 };
        } else {
            ours = line.split_whitespace().nth(3).is_some_and(|address| address.ends_with(&local));
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    #[test]
    fn the_accepting_end_of_a_port_is_counted_and_nothing_else() {
        let news = "UNCONN 1 0 127.0.0.1:54576 127.0.0.1:29876\n\t bytes_sent:1000 bytes_acked:1000 bytes_received:5\n\
                    UNCONN 0 0 127.0.0.1:29876 127.0.0.1:54576\n\t rto:2 bytes_acked:5 bytes_received:1000 x\n\
                    UNCONN 0 0 127.0.0.1:2987 127.0.0.1:1\n\t bytes_received:7\n\
                    UNCONN 0 0 127.0.0.1:29876 0.0.0.0:*\n\t rto:1000 app_limited\n";
        assert_eq!(count(news, 29876), 1005);
        assert_eq!(count(news, 1), 0);
    }

    #[test]
    fn what_a_real_connection_carried_is_counted() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let wire = Wire::listen(address.port()).unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(&[7; 300_000]).unwrap();
        drop(client);
        let mut got = Vec::new();
        server.read_to_end(&mut got).unwrap();
        drop(server);
        let counted = wire.stop().unwrap();
        // The kernel counts the two ends of a connection as a byte each.
        assert!((300_000..300_004).contains(&counted), "{counted}");
    }
}
