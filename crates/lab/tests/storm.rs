//! A handful of rounds of `lab storm`; `make storm` runs as many as one likes.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use rejoin_lab::process;

#[test]
fn joiners_are_equal_under_a_storm_from_two_nodes() -> Result<()> {
    // Told to end when we end, it removes its cluster.
    let mut storm = Command::new("setpriv");
    storm.args(["--pdeathsig", "TERM", "--", env!("CARGO_BIN_EXE_lab"), "storm"]);
    storm.args(["--rounds", "3", "--case", "plain,binlog", "--rows", "5000", "--seed", "7"]);
    let told = process::run(storm, Duration::from_secs(300))?;
    ensure!(told.contains("3 rounds, 3 equal, 0 wrong"), "{told}");
    Ok(())
}
