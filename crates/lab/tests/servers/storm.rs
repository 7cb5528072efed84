//! A handful of rounds of `lab storm`; `make storm` runs as many as one likes.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use rejoin_lab::process;

#[test]
fn joiners_are_equal_under_a_storm_from_two_nodes() -> Result<()> {
    let told = storm(&["--rounds", "3", "--case", "plain,binlog", "--rows", "5000", "--seed", "7"])?;
    ensure!(told.contains("3 rounds, 3 equal, 0 wrong"), "{told}");
    Ok(())
}

/// And joiners that get rows instead of files.
#[test]
fn joiners_with_other_pages_are_equal_under_a_storm_from_two_nodes() -> Result<()> {
    let told = storm(&["--rounds", "1", "--case", "logical", "--rows", "5000", "--seed", "8"])?;
    ensure!(told.contains("1 rounds, 1 equal, 0 wrong") && told.contains("1 logical"), "{told}");
    Ok(())
}

/// Runs it. Told to end when we end, it removes its cluster.
fn storm(arguments: &[&str]) -> Result<String> {
    let mut storm = Command::new("setpriv");
    storm.args(["--pdeathsig", "TERM", "--", env!("CARGO_BIN_EXE_lab"), "storm"]).args(arguments);
    process::run(storm, Duration::from_secs(300))
}
