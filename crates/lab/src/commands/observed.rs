//! A join, and what both logs said when.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rejoin_lab::Node;
use rejoin_lab::follow::{Follower, Line};

/// How long a join may take.
const PATIENCE: Duration = Duration::from_secs(1800);

/// A full transfer that finished.
pub struct Observed {
    /// From the joiner's start to Synced.
    pub took: Duration,
    began: Instant,
    donor: Vec<Line>,
    joiner: Vec<Line>,
}

impl Observed {
    /// Starts `joiner` with these further arguments and waits until it is Synced.
    pub fn join(donor: &Node, joiner: &Node, args: &[&str]) -> Result<Self> {
        Self::join_within(donor, joiner, args, PATIENCE)
    }

    /// As [`Observed::join`], which fails when it takes longer.
    pub fn join_within(donor: &Node, joiner: &Node, args: &[&str], patience: Duration) -> Result<Self> {
        Ok(Self::join_watched_within(donor, joiner, args, patience, |_| Ok(()))?.0)
    }

    /// As [`Observed::join`]; `watch` is called with the joiner's process once that runs.
    pub fn join_watched<W>(
        donor: &Node,
        joiner: &Node,
        args: &[&str],
        watch: fn(u32) -> Result<W>,
    ) -> Result<(Self, W)> {
        Self::join_watched_within(donor, joiner, args, PATIENCE, watch)
    }

    fn join_watched_within<W>(
        donor: &Node,
        joiner: &Node,
        args: &[&str],
        patience: Duration,
        watch: fn(u32) -> Result<W>,
    ) -> Result<(Self, W)> {
        let followers = (Follower::start(donor)?, Follower::start(joiner)?);
        let began = Instant::now();
        joiner.begin(args)?;
        let watch = watch(joiner.pid().context("the joiner ended")?)?;
        let took = joiner.wait_synced(patience)?;
        donor.wait_synced_again(Duration::from_secs(60))?;
        let observed = Self { took, began, donor: followers.0.stop()?, joiner: followers.1.stop()? };
        Ok((observed, watch))
    }

    /// What the donor logged.
    pub fn donor_log(&self) -> String {
        self.donor.iter().map(|line| format!("{}\n", line.text)).collect()
    }

    /// What the joiner logged, line by line.
    pub fn joiner_log_lines(&self) -> impl Iterator<Item = &str> {
        self.joiner.iter().map(|line| line.text.as_str())
    }

    /// A figure of another method than the one that was meant is worse than none.
    pub fn ran(&self, method: &str) -> Result<()> {
        // Before it, 10.11 has `Running: '`, and 11.8 `Initiating SST/IST transfer on DONOR side (`.
        let asked = format!("wsrep_sst_{method} --role 'donor'");
        ensure!(self.donor_log().contains(&asked), "the donor did not run wsrep_sst_{method}");
        Ok(())
    }

    /// From when to when the donor gave. Before and after it the group takes the joiner in, which can stall commits by
    /// itself, whatever the method.
    pub fn giving(&self) -> Result<(Instant, Instant)> {
        let from = at(&self.donor, "Server status change synced -> donor")?;
        Ok((from, at(&self.donor, "Server status change donor -> joined")?))
    }

    /// The joiner's start, and when it was Synced.
    pub fn whole(&self) -> (Instant, Instant) {
        (self.began, self.began + self.took)
    }

    /// When the joiner's program started, and when it told its server of its success.
    pub fn transferring(&self) -> Result<(Instant, Instant)> {
        Ok((self.program_began()?, self.received()?))
    }

    /// From the joiner's start to that of its program: the server comes up, and the group takes it in.
    pub fn before(&self) -> Result<Duration> {
        Ok(self.program_began()? - self.began)
    }

    /// From the start of the joiner's program to what it says of its success.
    pub fn sst(&self) -> Result<Duration> {
        Ok(self.received()? - self.program_began()?)
    }

    /// From then until the joiner's InnoDB serves: crash recovery, with the buffer pool and the redo log made.
    pub fn recovery(&self) -> Result<Duration> {
        Ok(at(&self.joiner, "InnoDB: log sequence number")? - self.received()?)
    }

    /// What the mariabackup method sleeps without waiting for anything, before its donor sends data.
    pub fn asleep(&self) -> Option<Duration> {
        let from = at(&self.donor, "Sleeping before data transfer for SST").ok()?;
        Some(at(&self.donor, "Streaming the backup to joiner").ok()? - from)
    }

    /// The crash recovery of mariabackup, within its transfer.
    pub fn prepare(&self) -> Option<Duration> {
        let from = at(&self.joiner, "Preparing the backup at").ok()?;
        Some(at(&self.joiner, "Moving the backup to").ok()? - from)
    }

    fn program_began(&self) -> Result<Instant> {
        at(&self.joiner, "WSREP: Running: 'wsrep_sst_")
    }

    /// When the joiner's server took what its program said. It says it again, with a position, when it has recovered.
    fn received(&self) -> Result<Instant> {
        let line = self.joiner.iter().find(|line| line.text.ends_with("WSREP: SST received"));
        Ok(line.context("no SST received in the joiner's log")?.seen)
    }
}

/// Waits until no program of a state transfer is left on this node: the kernel counts the processor time of those that ended.
pub fn wait_for_programs(node: &Node, patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    while !node.sst_processes().is_empty() {
        ensure!(
            Instant::now() < deadline,
            "programs are left on {}: {:?}",
            node.name(),
            node.sst_processes()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn at(lines: &[Line], text: &str) -> Result<Instant> {
    let line = lines.iter().find(|line| line.text.contains(text));
    Ok(line.with_context(|| format!("no {text:?} in the log"))?.seen)
}
