//! What an operator permits: a transfer beyond it is refused on both hosts, and nothing is touched.
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rejoin_lab::{Cluster, process};
use rustix::process::Signal;

use crate::fake_transfer::{Fakes, SOON};
use crate::manifest::Manifest;
use crate::pair::{self, Pair, last_log, program, set_sst, until};

/// Both programs say this and fail, before the donor's server is asked for anything.
fn refused(fakes: &Fakes, (donor, joiner): (&[&str], &[&str]), words: &str) -> Result<()> {
    set_sst(fakes.donor(), donor)?;
    set_sst(fakes.joiner(), joiner)?;
    let before = Manifest::of(&fakes.joiner().datadir())?;
    let (run, auth, address) = fakes.joiner_ready()?;
    let given = fakes.full(&address, &auth)?.end(SOON)?;
    let received = run.end(SOON)?;
    for (who, ended) in [("donor", &given), ("joiner", &received)] {
        ensure!(ended.stderr.contains(words), "the {who} does not say {words:?}:\n{}", ended.stderr);
        ensure!(ended.code.is_some_and(|code| code != 0), "the {who} ends with {:?}", ended.code);
    }
    ensure!(given.stdout.is_empty(), "the donor's server was asked for something: {:?}", given.stdout);
    let changed = before.differences(&Manifest::of(&fakes.joiner().datadir())?);
    ensure!(changed.is_empty(), "changed: {changed:?}");
    fakes.nothing_is_left()
}

/// An hour that is not now.
fn other_hours() -> Result<String> {
    let mut date = std::process::Command::new("date");
    date.arg("+%H");
    let now: u32 = process::run(date, SOON)?.trim().parse()?;
    Ok(format!("{:02}:00-{:02}:00", (now + 2) % 24, (now + 3) % 24))
}

#[test]
fn what_the_operator_does_not_permit_is_refused() -> Result<()> {
    let fakes = Fakes::with_history()?;
    let much = "would be sent, and max-transfer under [sst] on this node permits 1.0 MiB";
    refused(&fakes, (&["max-transfer=1M"], &[]), much)?;
    refused(&fakes, (&[], &["max-transfer=1M"]), much)?;
    refused(&fakes, (&[], &["ist-only=1"]), "ist-only=1 under [sst] on the joiner permits write-sets only")?;
    let hours = other_hours()?;
    let (night, words) =
        (format!("full-only-between={hours}"), format!("full-only-between={hours} under [sst]"));
    refused(&fakes, (&["incremental=0", &night], &[]), &words)?;
    refused(&fakes, (&[], &["incremental=0", &night]), &words)?;

    // Within the limits it goes through, and both hosts write their metrics.
    let dir = fakes.cluster.program_dir();
    let metrics = format!("metrics-dir={}", dir.display());
    fakes.set_sst(&["max-transfer=50G", &night, &metrics])?;
    let (run, auth, address) = fakes.joiner_ready()?;
    let given = fakes.serve(fakes.full(&address, &auth)?)?;
    let received = run.end(SOON)?;
    ensure!((given.code, received.code) == (Some(0), Some(0)), "{}\n{}", given.stderr, received.stderr);
    for role in ["donor", "joiner"] {
        let text = fs::read_to_string(dir.join(format!("rejoin_{role}.prom")))?;
        for metric in ["rejoin_transfer_success", "rejoin_transfer_running"] {
            let value = if metric.ends_with("success") { 1 } else { 0 };
            let line = format!("{metric}{{role=\"{role}\"}} {value}");
            ensure!(text.lines().any(|l| l == line), "{line:?} is not in\n{text}");
        }
    }
    Ok(())
}

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
    for sign in ["flush tables", "plan: "] {
        ensure!(!last_log(pair.donor(), "donor")?.contains(sign), "the donor began: {sign}");
    }
    ensure!(
        !pair.donor().log_since(donors).contains("Flushing tables"),
        "the donor's server was asked for its files"
    );
    let now = Manifest::of(&pair.joiner().datadir().join(".rejoin")).unwrap_or_default();
    ensure!(staged == now, "staged files changed: {:?}", staged.differences(&now));
    Ok(())
}
