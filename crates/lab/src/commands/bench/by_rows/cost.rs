//! The processor time that each process of a join takes.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use rejoin_lab::Node;
use rejoin_lab::usage::{CpuSeconds, ProgramSeconds};

use crate::commands::observed::Observed;

/// Seconds of processor time.
pub struct Cost {
    donors_server: f64,
    donors_programs: f64,
    joiners_programs: f64,
    private_server: f64,
    joiners_server: f64,
}

impl Cost {
    /// Of a join, from the joiner's start to Synced.
    pub fn of_join(donor: &Node, joiner: &Node, args: &[&str]) -> Result<(Observed, Cost)> {
        let pid = donor.pid().context("the donor is down")?;
        let (before, programs) = (CpuSeconds::of(pid)?, ProgramSeconds::watch(pid)?);
        let (observed, joiners) = Observed::join_watched(donor, joiner, args, ProgramSeconds::watch)?;
        let server = joiner.installation().server().file_name().unwrap_or_default();
        let mut joiners = joiners.stop()?;
        let cost = Cost {
            donors_server: CpuSeconds::of(pid)?.since(before).own,
            donors_programs: sum(&programs.stop()?),
            private_server: joiners.remove(&*server.to_string_lossy()).unwrap_or(0.0),
            joiners_programs: sum(&joiners),
            joiners_server: CpuSeconds::of(joiner.pid().context("the joiner is down")?)?.own,
        };
        Ok((observed, cost))
    }

    /// All of it.
    pub fn all(&self) -> f64 {
        let Cost { donors_server, donors_programs, joiners_programs, private_server, joiners_server } = self;
        donors_server + donors_programs + joiners_programs + private_server + joiners_server
    }

    /// Of which process.
    pub fn in_words(&self) -> String {
        format!(
            "processor seconds: donor's server {:.1}, donor's programs {:.1}, joiner's programs {:.1}, private server {:.1}, \
             joiner's server {:.1}",
            self.donors_server,
            self.donors_programs,
            self.joiners_programs,
            self.private_server,
            self.joiners_server
        )
    }
}

fn sum(seconds: &BTreeMap<String, f64>) -> f64 {
    // The sum of nothing would be -0.0.
    seconds.values().fold(0.0, |sum, seconds| sum + seconds)
}
