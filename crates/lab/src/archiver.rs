//! `rejoin archive run` beside a node.
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::node::Node;
use crate::places::User;
use crate::process;
use crate::usage::{self, CpuSeconds};

/// How long it may take for what a test waits for.
const PATIENCE: Duration = Duration::from_secs(90);

/// An archiver that runs beside a node. It ends with its cluster.
#[derive(Debug)]
pub struct Archiver {
    child: Child,
    dir: PathBuf,
}

impl Archiver {
    /// Starts `rejoin archive run` as the server's user, with the archive in its default place.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(node: &Node) -> Result<Archiver> {
        let mut command = User::for_servers()?.command(node.installation().base().join("bin/rejoin"));
        command.args(["archive", "run", "--free-floor", "1M", "--datadir"]).arg(node.datadir());
        command.arg("--defaults-file").arg(node.option_file());
        command.env(process::MARK, node.dir().parent().context("cluster")?);
        let log = std::fs::File::options().create(true).append(true).open(node.dir().join("archiver.log"))?;
        command.stderr(log);
        Ok(Archiver { child: process::spawn(command)?, dir: node.dir().join("data-archive") })
    }

    /// Kills it.
    ///
    /// # Errors
    /// It had ended by itself.
    pub fn kill(mut self) -> Result<()> {
        ensure!(self.child.try_wait()?.is_none(), "the archiver ended by itself: {}", self.log());
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// It does not end, or not well.
    pub fn stop(mut self) -> Result<()> {
        process::signal(self.child.id(), rustix::process::Signal::TERM);
        let status = process::wait(&mut self.child, PATIENCE)?.context("the archiver does not end")?;
        ensure!(status.success(), "{status}: {}", self.log());
        Ok(())
    }

    /// What it said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.with_file_name("archiver.log")).unwrap_or_default()
    }

    /// The most bytes it ever had in memory.
    pub fn most_memory(&self) -> u64 {
        usage::high_water(self.child.id())
    }

    /// Where the archive is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Waits until it follows a server's files. On an idle node nothing is archived then: the newest write-sets are not final.
    ///
    /// # Errors
    /// It ended, or this takes too long.
    pub fn wait_until_it_follows(&mut self) -> Result<()> {
        self.wait(|status| {
            status["state"].as_str().is_some_and(|state| state.starts_with("following server"))
        })
    }

    /// Waits until it says this about how IST reaches the node's server.
    ///
    /// # Errors
    /// It ended, or this takes too long.
    pub fn wait_until_ist(&mut self, says: &str) -> Result<()> {
        self.wait(|status| status["ist"].as_str().is_some_and(|ist| ist.contains(says)))
    }

    /// Waits until this seqno is in the archive.
    ///
    /// # Errors
    /// It ended, or this takes too long.
    pub fn wait_for(&mut self, seqno: i64) -> Result<()> {
        self.wait(|status| last_of(status).is_some_and(|last| last >= seqno))
    }

    fn wait(&mut self, is: impl Fn(&Value) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if status.as_ref().is_some_and(&is) {
                return Ok(());
            }
            ensure!(self.child.try_wait()?.is_none(), "the archiver ended: {}", self.log());
            ensure!(Instant::now() < deadline, "not within {PATIENCE:?}: {status:?}: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Seconds of processor time that it has used, and bytes of actions that it has archived for them.
    ///
    /// # Errors
    /// It ended, or says nothing for too long.
    pub fn used(&mut self) -> Result<(f64, f64)> {
        // At the moment at which it says how many bytes that are.
        let told = |status: &Value| status["updated_ms"].as_u64();
        let last = self.status().as_ref().and_then(told);
        self.wait(|status| told(status) != last)?;
        let bytes = self.status().and_then(|status| status["action_bytes"].as_f64());
        Ok((CpuSeconds::of(self.child.id())?.own, bytes.context("no bytes in its status")?))
    }

    /// How many gaps its archive has.
    ///
    /// # Errors
    /// It has said nothing yet.
    pub fn gaps(&self) -> Result<usize> {
        let status = self.status().context("no status of the archive")?;
        status["gaps"].as_array().map(Vec::len).context("no gaps in it")
    }

    /// What it last said of itself in the archive's directory.
    pub fn status(&self) -> Option<Value> {
        serde_json::from_slice(&std::fs::read(self.dir.join("status.json")).ok()?).ok()
    }
}

/// The last seqno without a gap.
fn last_of(status: &Value) -> Option<i64> {
    status["ranges"].as_array()?.last()?["last"].as_i64()
}
