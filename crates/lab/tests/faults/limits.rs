//! What an operator permits: a transfer beyond it is refused on both hosts, and nothing is touched.
use std::fs;

use anyhow::{Result, ensure};
use rejoin_lab::process;

use crate::fake_transfer::{Fakes, SOON};
use crate::manifest::Manifest;
use crate::pair::set_sst;

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
