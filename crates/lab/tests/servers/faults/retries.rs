//! A limit of tries: joins that received files and failed are counted, and the next one is refused.
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rejoin_lab::Cluster;
use rustix::process::Signal;

use super::fake_transfer::SOON;
use super::manifest::Manifest;
use super::pair::{self, Pair, last_log, program, set_sst, until};

/// Joins that fail do not go on for ever: the third is refused before a byte of the data travels, and the next that is
/// permitted ends the count when the node is Synced.
#[test]
fn joins_that_fail_are_counted_and_the_limit_ends_them() -> Result<()> {
    let mut pair = Pair::new(Cluster::builder().nodes(2).sst_of(2, "retry-limit=2"))?;
    set_sst(pair.joiner(), &["retry-limit=2"])?;
    let count = pair.joiner().datadir().join("sst_retry_count");
    let mark = pair.joiner().datadir().join("sst_retry_limit_reached");

    // One ends by a supervisor that has no patience, the other by the donor.
    pair.begin_slowly()?;
    pair::signal(pair.joiner(), Signal::TERM)?;
    pair.joiners_server_ended()?;
    pair.donor_is_released()?;
    ensure!(fs::read_to_string(&count)?.trim() == "1", "{:?}", fs::read_to_string(&count));
    pair.start_joiner()?;
    pair.wait_for_data()?;
    pair::signal(pair.donor(), Signal::KILL)?;
    pair.joiners_server_ended()?;
    pair.donor_is_released()?;
    ensure!(fs::read_to_string(&count)?.trim() == "2" && !mark.exists(), "{:?}", fs::read_to_string(&count));

    refused_by_the_count(&pair)?;
    ensure!(mark.exists() && fs::read_to_string(&count)?.trim() == "2", "a refused join is none more");
    let (_, said) = pair::verb(&pair.cluster, pair.joiner(), "check")?;
    ensure!(said.contains("retry-limit=2"), "check does not say so:\n{said}");

    fs::remove_file(&count)?;
    pair.joins_now()?;
    until("the count ends when the node is Synced", SOON, || Ok(!count.exists() && !mark.exists()))
}

/// The server starts, both hosts say that the limit is reached, and nothing of the data is asked for.
fn refused_by_the_count(pair: &Pair) -> Result<()> {
    let donors = pair.donor().log_mark();
    let staged = Manifest::of(&pair.joiner().datadir().join(".rejoin")).unwrap_or_default();
    pair.start_joiner()?;
    let began = Instant::now();
    until("the joiner's program ends", SOON, || {
        Ok(pair.joiner().log_since_start().contains("prepared SST receiver")
            && program(pair.joiner()).is_empty())
    })?;
    pair.joiners_server_ended()?;
    ensure!(began.elapsed() < Duration::from_secs(60), "refused after {:?}", began.elapsed());
    pair.donor_is_released()?;
    let words = "the joiner's last 2 joins received files and failed, and retry-limit=2 under [sst] there permits no more";
    pair.reason_in_both_logs(pair.joiner(), "joiner", words)?;
    pair.reason_in_both_logs(pair.donor(), "donor", words)?;
    let log = pair.joiner().log_since_start();
    ensure!(
        log.contains(&format!("rm {}", pair.joiner().datadir().join("sst_retry_count").display())),
        "{log}"
    );
    for sign in ["flush tables", "phase \"sending\""] {
        let log = last_log(pair.donor(), "donor")?;
        ensure!(!log.contains(sign), "the donor began: {sign}\n{log}");
    }
    ensure!(
        !pair.donor().log_since(donors).contains("Flushing tables"),
        "the donor's server was asked for its files"
    );
    let now = Manifest::of(&pair.joiner().datadir().join(".rejoin")).unwrap_or_default();
    ensure!(staged == now, "staged files changed: {:?}", staged.differences(&now));
    Ok(())
}
