//! A donor that writes redo at a rate, and less, as much or more that may be sent.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::cases::OURS;
use super::fixture::{Fixture, builder};
use super::measured::Measured;
use super::{Options, Series};

/// Megabytes of the redo log: it comes round all the time, so the server writes checkpoints by itself.
const LOG: u64 = 12;
/// Threads that write.
const WRITERS: u32 = 2;
/// How long the rate of the redo is looked at.
const LOOKED: Duration = Duration::from_secs(5);

/// First `rlimit`, then a link of that rate.
pub fn limits(options: &Options, series: Series, all: &mut Vec<Measured>) -> Result<()> {
    let cluster = builder(options, series, LOG)?.transfer_network().build()?;
    let fixture = Fixture::make(options, series, cluster, options.limit_megabytes, false)?;
    let methods = fixture.methods();
    for method in OURS.into_iter().filter(|method| methods.contains(method)).take(1) {
        for shaped in [false, true] {
            for part in &options.limit {
                fixture.joiner().wipe()?;
                let load = fixture.load(WRITERS, Duration::ZERO)?;
                std::thread::sleep(Duration::from_secs(1));
                let rate = redo_rate(&fixture)?;
                ensure!(rate > 100_000, "the donor writes {rate} bytes of redo a second");
                let limit = (rate as f64 * part) as u64;
                let how = if shaped { "a link" } else { "rlimit" };
                let rlimit = if shaped { 0 } else { limit };
                fixture.donor().add_options("sst", &[&format!("rlimit={rlimit}")])?;
                fixture.donor().shape_transfers(if shaped { limit } else { 10_000_000_000 })?;
                let case = format!(
                    "{} MB, {how} of {part} of {:.1} MB/s of redo",
                    options.limit_megabytes,
                    rate as f64 / 1e6
                );
                let measured = match fixture.measure(&case, method, Some(load)) {
                    Ok(measured) => measured,
                    // That is a result; the others are measured anyway.
                    Err(error) => {
                        println!("  {case}: {error:#}");
                        fixture.donor().wait_synced_again(Duration::from_secs(60))?;
                        Measured::without_end(
                            &case,
                            method,
                            fixture.donor().installation().version(),
                            options.patience,
                        )
                    }
                };
                all.push(measured.limited(limit));
            }
        }
    }
    Ok(())
}

/// Bytes of redo that are written a second.
fn redo_rate(fixture: &Fixture<'_>) -> Result<u64> {
    let lsn = || -> Result<u64> { Ok(fixture.donor().status("Innodb_lsn_current")?.parse()?) };
    let (began, from) = (Instant::now(), lsn()?);
    std::thread::sleep(LOOKED);
    Ok(((lsn()? - from) as f64 / began.elapsed().as_secs_f64()) as u64)
}
