//! A transfer ends when a program is told to, or stops answering.
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rejoin_lab::{Cluster, compare};
use rustix::process::Signal;

use super::pair::{self, PROMPTLY, Pair, SLOW, program_pid, set_sst, until};

/// One test, because each case leaves what the next one starts from: a joiner with an old datadir.
#[test]
fn programs_that_are_told_to_end_or_fall_silent() -> Result<()> {
    let mut pair = Pair::new(Cluster::builder().nodes(2))?;
    a_signal_ends_the_joiners(&mut pair).context("SIGTERM to the joiner's program")?;
    a_signal_ends_the_donors(&mut pair).context("SIGTERM to the donor's program")?;
    the_donor_falls_silent(&mut pair).context("SIGSTOP of the donor's program")?;
    the_joiner_falls_silent(&mut pair).context("SIGSTOP of the joiner's program")?;
    compare::assert_equal(pair.donor(), pair.joiner())
}

fn a_signal_ends_the_joiners(pair: &mut Pair) -> Result<()> {
    pair.begin_slowly()?;
    no_secret_is_logged(pair)?;
    let told = Instant::now();
    pair::signal(pair.joiner(), Signal::TERM)?;
    pair.all_ends(told)?;
    pair.donor_is_released()?;
    pair.joiners_server_ended()?;
    pair.reason_in_both_logs(pair.joiner(), "joiner", "stopped by SIGTERM")?;
    pair.reason_in_both_logs(pair.donor(), "donor", "the joiner gave up: stopped by SIGTERM")?;
    pair.joins_now()
}

/// The donor's program has the joiner's secret in its environment, where only its own user and root can read it.
fn no_secret_is_logged(pair: &Pair) -> Result<()> {
    let pid = program_pid(pair.donor())?;
    let environment = fs::read(format!("/proc/{pid}/environ"))?;
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let auth = environment.split('\0').find_map(|v| v.strip_prefix("WSREP_SST_OPT_REMOTE_AUTH=rejoin:"));
    let (secret, _) = auth.and_then(|a| a.split_once('.')).context("no invitation in the environment")?;
    ensure!(secret.len() == 43, "an odd secret: {} characters", secret.len());
    for (node, role) in [(pair.donor(), "donor"), (pair.joiner(), "joiner")] {
        ensure!(!node.log_text().contains(secret), "the secret is in {}'s error log", node.name());
        ensure!(!pair::last_log(node, role)?.contains(secret), "the secret is in the {role}'s log");
        let seen = node.sst_processes();
        ensure!(!seen.iter().any(|p| p.command.contains(secret)), "the secret is in a process list");
    }
    Ok(())
}

fn a_signal_ends_the_donors(pair: &mut Pair) -> Result<()> {
    pair.begin_slowly()?;
    let told = Instant::now();
    pair::signal(pair.donor(), Signal::TERM)?;
    pair.all_ends(told)?;
    pair.donor_is_released()?;
    pair.joiners_server_ended()?;
    pair.reason_in_both_logs(pair.donor(), "donor", "stopped by SIGTERM")?;
    pair.reason_in_both_logs(pair.joiner(), "joiner", "the donor gave up: stopped by SIGTERM")?;
    pair.joins_now()
}

fn the_donor_falls_silent(pair: &mut Pair) -> Result<()> {
    set_sst(pair.joiner(), &["sst-idle-timeout=4"])?;
    pair.begin_slowly()?;
    let stopped = program_pid(pair.donor())?;
    let since = Instant::now();
    pair::signal(pair.donor(), Signal::STOP)?;
    // The silence of a donor may be the end of its host: the joiner's program waits for its expulsion from the group.
    let gave_up = "joiner: state transfer failed: received nothing from the donor at";
    until("the joiner gave up", Duration::from_secs(4) + PROMPTLY, || {
        Ok(pair.joiner().log_since_start().contains(gave_up))
    })?;
    ensure!(since.elapsed() > Duration::from_millis(1500), "gave up on a peer after {:?}", since.elapsed());
    ensure!(pair.joiner().is_alive() && program_pid(pair.joiner()).is_ok(), "the joiner did not wait");
    ensure!(pair.donor().is_alive() && program_pid(pair.donor())? == stopped);
    let woken = Instant::now();
    pair::signal(pair.donor(), Signal::CONT)?;
    pair.all_ends(woken)?;
    pair.donor_is_released()?;
    pair.joiners_server_ended()?;
    pair.reason_in_both_logs(pair.joiner(), "joiner", "received nothing from the donor at")?;
    set_sst(pair.joiner(), &[])?;
    pair.joins_now()
}

fn the_joiner_falls_silent(pair: &mut Pair) -> Result<()> {
    let mut options = SLOW.to_vec();
    options.push("sst-idle-timeout=4");
    pair.begin(&options)?;
    pair.wait_for_data()?;
    pair::signal(pair.joiner(), Signal::STOP)?;
    // The kernel takes what is sent for half a minute more at this rate; the donor must not wait for that.
    let since = Instant::now();
    until("the donor gave up", Duration::from_secs(4) + PROMPTLY, || {
        Ok(pair::program(pair.donor()).is_empty())
    })?;
    ensure!(since.elapsed() > Duration::from_millis(1500), "gave up on a peer after {:?}", since.elapsed());
    pair.donor_is_released()?;
    let said = pair::last_log(pair.donor(), "donor")?;
    ensure!(said.contains("for 4 s") && said.contains("the joiner at"), "{said}");
    let woken = Instant::now();
    pair::signal(pair.joiner(), Signal::CONT)?;
    pair.all_ends(woken)?;
    pair.joiners_server_ended()?;
    pair.joins_now()
}
