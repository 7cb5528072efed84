//! Seconds to Synced after an outage, by each way back.

use anyhow::{Result, ensure};
use rejoin_lab::Node;

use super::{Bench, Options, TABLES};
use crate::commands::median;

/// Rows that a transaction of sysbench's `oltp_write_only` rewrites.
const ROWS_EACH: f64 = 3.0;

#[derive(Clone, Copy)]
enum Way {
    Deep,
    Incremental,
    Rsync,
}

impl Way {
    const ALL: [Way; 3] = [Way::Deep, Way::Incremental, Way::Rsync];

    fn says(self) -> &'static str {
        match self {
            Way::Deep => "deep IST: inserted the write-sets",
            Way::Incremental => "plan: incremental",
            Way::Rsync => "rsync",
        }
    }
}

/// Changes ever more rows while a node is away, and lets it come back each way. The second member is down: its cache would do.
/// The way of rsync is that of the node without our options, because no other method starts a relay.
pub(super) fn compare(bench: &Bench, options: &Options) -> Result<()> {
    let (n1, n2) = (bench.archives(), bench.cluster.node(2));
    bench.cluster.node(4).add_options("mysqld", &["wsrep_sst_method=rsync"])?;
    n2.stop()?;
    println!("\nSeconds to Synced after an outage in which this share of the rows was rewritten:\n");
    println!("| rewritten | write-sets missed | deep IST | incremental SST | rsync |");
    println!("|---|---|---|---|---|");
    let mut before = 0.0;
    for &changed in &options.changed {
        ensure!(changed >= before, "--changed must not fall: it is done on top of what was changed before");
        let rows = f64::from(bench.rows) * f64::from(TABLES) * (changed - before) / 100.0;
        bench.write((rows / ROWS_EACH) as u64)?;
        before = changed;
        bench.overwrite_caches()?;
        let mut took = [const { Vec::new() }; 3];
        let mut missed = 0;
        for _ in 0..options.repeat {
            for (way, took) in Way::ALL.into_iter().zip(&mut took) {
                let away = if matches!(way, Way::Rsync) { bench.cluster.node(4) } else { bench.away() };
                bench.restore(away)?;
                missed = n1.status("wsrep_last_committed")?.parse::<i64>()? - away.grastate()?.seqno;
                took.push(join(n1, away, way)?);
                away.stop()?;
            }
        }
        let [deep, incremental, rsync] = took.map(median);
        println!("| {changed} % | {missed} | {deep:.1} | {incremental:.1} | {rsync:.1} |");
    }
    Ok(())
}

fn join(donor: &Node, away: &Node, way: Way) -> Result<f64> {
    let ist = if matches!(way, Way::Deep) { "ist=always" } else { "ist=never" };
    donor.add_options("sst", &[ist])?;
    let took = away.join()?;
    let log = away.log_since_start();
    ensure!(log.contains(way.says()), "{:?} is not in its log:\n{log}", way.says());
    Ok(took.as_secs_f64())
}
