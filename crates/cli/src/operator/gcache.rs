//! `rejoin gcache`: what a node's write-set cache holds, and how large it should be.
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;
use formats::Seqno;
use formats::mariadb::option_file::parse_size;
use node::gcache::sizing::{outage_for, size_for, warnings};
use node::gcache::{Gcache, Report, events_of, verify};
use node::words::{size, span};
use serde_json::json;

use super::gcache_text as text;
use super::{complain, say};

/// What to show of which files.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    /// A datadir (or gcache.dir) with galera.cache in it, or the ring file itself
    #[arg(value_name = "FILE|DIR", required = true)]
    path: Option<PathBuf>,
    /// Print one line for each action
    #[arg(long)]
    list: bool,
    /// Verify every checksum
    #[arg(long)]
    verify: bool,
    /// Write the row events of this write-set to stdout, as a file that mariadb-binlog reads
    #[arg(long, value_name = "SEQNO", conflicts_with_all = ["list", "verify", "json"])]
    events: Option<i64>,
    /// Print JSON; with --list, one object a line
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Say what gcache.size an outage needs, at the rate the cache was filled
    Size(Size),
}

/// Of what to compute the size.
#[derive(clap::Args)]
pub struct Size {
    /// A datadir (or gcache.dir) with galera.cache in it, or the ring file itself
    #[arg(value_name = "FILE|DIR")]
    path: PathBuf,
    /// How long a node may be away: 90s, 30m, 4h, 2d
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "size")]
    outage: Option<Duration>,
    /// The other way round: how long does this gcache.size last (512M, 4G)
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    size: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Shows it.
pub fn run(options: &Options) -> Result<()> {
    if let Some(Command::Size(size)) = &options.command {
        return run_size(size);
    }
    let path = options.path.as_ref().context("which file or directory?")?;
    let cache = Gcache::open(path)?;
    if let Some(seqno) = options.events {
        return write_events(&events_of(&cache, Seqno(seqno))?);
    }
    if options.list {
        list(&cache, options.json)?;
    } else {
        let report = Report::of(&cache)?;
        match options.json {
            true => say(&format!("{:#}", text::json(&cache, &report))),
            false => say(&text::summary(&cache, &report)),
        }
    }
    if options.verify { run_verify(&cache, options.json) } else { Ok(()) }
}

fn run_verify(cache: &Gcache, as_json: bool) -> Result<()> {
    let mut bad = 0;
    let sound = verify(cache, &mut |entry| {
        bad += 1;
        complain(&format!("seqno {} at byte {}: {}", entry.seqno, entry.at, entry.what));
    })?;
    match as_json {
        true => say(&json!({"verified": sound, "bad": bad}).to_string()),
        false => say(&format!("verified       {sound} actions, {bad} bad")),
    }
    ensure!(bad == 0, "{bad} of {} actions are damaged", sound + bad);
    Ok(())
}

/// As many lines as there are actions: a reader that has enough of them (`head`) ends it.
fn list(cache: &Gcache, as_json: bool) -> Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    cache.visit(&mut |entry, source| match writeln!(out, "{}", text::line(entry, source, as_json)?) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).context("writing the list"),
    })?;
    match out.flush() {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("writing the list")
        }
        _ => Ok(()),
    }
}

fn write_events(file: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    ensure!(!out.is_terminal(), "binary output: send it to a file, or to mariadb-binlog -v -");
    out.write_all(file).and_then(|()| out.flush()).context("writing events")
}

fn run_size(options: &Size) -> Result<()> {
    let cache = Gcache::open(&options.path)?;
    let report = Report::of(&cache)?;
    let Some(rate) = report.rate else {
        bail!("no write rate can be measured: the cache has not two write-sets of one node");
    };
    let largest = report.largest.map_or(0, |(_, bytes)| bytes);
    let ring = cache.ring_bytes();
    // Without a question, the answer for what is configured.
    let answer = match options.outage {
        Some(outage) => (size_for(outage, &rate, largest), outage),
        None => {
            let size = options.size.unwrap_or(ring);
            (size, outage_for(size, &rate, largest))
        }
    };
    let warnings = warnings(&cache, &report);
    if options.json {
        say(&format!(
            "{:#}",
            json!({
                "gcache_size": answer.0,
                "outage_seconds": answer.1.as_secs(),
                "configured_gcache_size": ring,
                "largest_action": largest,
                "rate": text::rate_json(&rate),
                "warnings": warnings,
            })
        ));
        return Ok(());
    }
    say(&format!("write rate     {}", text::rate(&rate)));
    say(&format!("largest        {}", size(largest)));
    match options.outage {
        Some(outage) => say(&format!(
            "gcache.size    {}M for an outage of {} (a quarter of it is spare)",
            answer.0 >> 20,
            span(outage)
        )),
        None => say(&format!("outage         {} with gcache.size={}", span(answer.1), size(answer.0))),
    }
    say(&format!("now            gcache.size={}: {}", size(ring), span(outage_for(ring, &rate, largest))));
    warnings.iter().for_each(|warning| say(&format!("warning        {warning}")));
    Ok(())
}

/// A number and one of s, m, h, d.
fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no time: 90s, 30m, 4h, 2d");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(bad)?;
    let unit: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(bad()),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    number.checked_mul(unit).map(Duration::from_secs).ok_or_else(bad)
}

fn bytes(text: &str) -> Result<u64, String> {
    parse_size(text).ok_or_else(|| format!("{text:?} is no size: 512M, 4G"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("4h"), Ok(Duration::from_secs(14_400)));
        for bad in ["", "4", "h", "-1h", "4x", "4ü", "99999999999999999d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
