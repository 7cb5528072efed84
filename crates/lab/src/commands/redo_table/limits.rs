//! A donor that writes redo at a rate, and less, as much or more that may be sent.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::fixture::{Fixture, builder};
use super::measured::Measured;
use super::writes::{Steady, Writes};
use super::{Method, Options, Series};

/// Megabytes of the redo log: it comes round all the time, so the server writes checkpoints by itself.
const LOG: u64 = 12;
/// Threads that write.
const WRITERS: u32 = 2;
/// How long the rate of the redo is looked at.
const LOOKED: Duration = Duration::from_secs(5);
/// Bytes a second of a link that limits nothing.
const UNLIMITED: u64 = 10_000_000_000;

/// First `rlimit`, then a link of that rate.
pub fn limits(options: &Options, series: Series, all: &mut Vec<Measured>) -> Result<()> {
    let builder = builder(options, series, LOG)?.transfer_network();
    let cluster = builder.sst(&format!("max-time={}", options.patience)).build()?;
    let fixture = Fixture::make(options, series, cluster, options.limit_megabytes, false)?;
    for shaped in [false, true] {
        for part in &options.limit {
            for method in methods(&fixture, shaped) {
                all.push(limited(options, &fixture, method, *part, shaped)?);
            }
        }
    }
    Ok(())
}

/// One of rejoin's, and the others where they can be limited: rsync has no such option, and mariabackup's needs `pv`.
fn methods(fixture: &Fixture<'_>, shaped: bool) -> Vec<Method> {
    let (ours, others): (Vec<_>, Vec<_>) =
        fixture.methods().into_iter().partition(|method| method.is_rejoin());
    ours.into_iter().take(1).chain(others.into_iter().filter(|_| shaped)).collect()
}

fn limited(
    options: &Options,
    fixture: &Fixture<'_>,
    method: Method,
    part: f64,
    shaped: bool,
) -> Result<Measured> {
    fixture.joiner().wipe()?;
    let writes = writes(options, fixture)?;
    std::thread::sleep(Duration::from_secs(1));
    let rate = redo_rate(fixture)?;
    ensure!(rate > 100_000.0, "the donor writes {rate:.0} bytes of redo a second");
    let limit = (options.writes.map_or(rate, |megabytes| megabytes * 1e6) * part) as u64;
    let (how, rlimit, link) = if shaped { ("a link", 0, limit) } else { ("rlimit", limit, UNLIMITED) };
    fixture.donor().add_options("sst", &[&format!("rlimit={rlimit}")])?;
    fixture.donor().shape_transfers(link)?;
    let megabytes = options.limit_megabytes;
    let case = format!("{megabytes} MB, {how} of {part} of {:.1} MB/s of redo", rate / 1e6);
    Ok(fixture.measure(&case, method, Some(writes))?.limited(limit))
}

fn writes(options: &Options, fixture: &Fixture<'_>) -> Result<Writes> {
    match options.writes {
        None => fixture.load(WRITERS, Duration::ZERO),
        Some(megabytes) => Steady::start(fixture.donor(), fixture.rows, megabytes * 1e6),
    }
}

/// Bytes of redo that are written a second.
fn redo_rate(fixture: &Fixture<'_>) -> Result<f64> {
    let lsn = || -> Result<u64> { Ok(fixture.donor().status("Innodb_lsn_current")?.parse()?) };
    let (began, from) = (Instant::now(), lsn()?);
    std::thread::sleep(LOOKED);
    Ok((lsn()? - from) as f64 / began.elapsed().as_secs_f64())
}
