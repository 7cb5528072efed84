//! `rejoin gcache`: which write-sets a node's cache holds, and how large the cache should be.
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Subcommand;
use formats::Seqno;
use formats::mariadb::option_file::parse_size;
use serde_json::json;
use transfer::failure::{Failure, Kind};
use transfer::human::{size, span};
use transfer::writesets::archive::{Archive, default_dir, is_archive};
use transfer::writesets::gcache::sizing::{measured_rate, outage_for, size_for, warnings};
use transfer::writesets::gcache::{Gcache, Report, events_of, verify};
use transfer::writesets::store::WriteSetStore;

use super::answer::say;
use super::complain;
use super::gcache_text as text;
use super::which::{Which, become_the_servers_user};

/// What to show, and from which files.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    /// Datadir or gcache.dir with galera.cache, or the ring file; default: this node's. With --list,
    /// --verify and --events also an archive's directory
    #[arg(value_name = "FILE|DIR")]
    path: Option<PathBuf>,
    #[command(flatten)]
    node: Which,
    /// Print one line for each action
    #[arg(long)]
    list: bool,
    /// Verify every checksum
    #[arg(long)]
    verify: bool,
    /// Write the row events of this write-set to stdout, for mariadb-binlog
    #[arg(long, value_name = "SEQNO", conflicts_with_all = ["list", "verify", "json"])]
    events: Option<i64>,
    /// Print JSON; with --list, one object a line
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Compute the gcache.size that an outage needs, from the measured write rate
    Size(Size),
}

/// The question to answer.
#[derive(clap::Args)]
pub struct Size {
    /// Datadir or gcache.dir with galera.cache, or the ring file; default: this node's
    #[arg(value_name = "FILE|DIR")]
    path: Option<PathBuf>,
    #[command(flatten)]
    node: Which,
    /// How long a node may be away: 90s, 30m, 4h, 2d
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "size")]
    outage: Option<Duration>,
    /// The archive whose compression is measured; by default this node's
    #[arg(long, value_name = "DIR")]
    archive: Option<PathBuf>,
    /// Say what an archive of this size would bridge (50G); by default 10G
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    archive_size: Option<u64>,
    /// Instead: how long this gcache.size lasts (512M, 4G)
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    size: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How many times sysbench's writes shrink (docs/archive.md), for want of an archive of this node's own.
const ASSUMED_RATIO: f64 = 3.0;

/// Prints it.
pub fn run(options: &Options) -> Result<()> {
    if let Some(Command::Size(size)) = &options.command {
        return run_size(size);
    }
    let path = place(options.path.as_deref(), &options.node)?;
    if is_archive(&path) {
        return run_archive(options, &Archive::open(&path)?);
    }
    let cache = Gcache::open(&path)?;
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
    if options.verify {
        run_verify(&cache, options.json)?;
    }
    let contradictions = cache.contradictions();
    if contradictions.is_empty() {
        return Ok(());
    }
    let text = format!("{} contradicts itself: {}", cache.path().display(), contradictions.join("; "));
    let hint = "the file was truncated, or changed after the server closed it; the node may be unable to serve IST from it after its next start";
    bail!(Failure::new(Kind::Disk, text).hint(hint))
}

/// The same questions about an archive of write-sets.
fn run_archive(options: &Options, archive: &Archive) -> Result<()> {
    if let Some(seqno) = options.events {
        return write_events(&events_of(archive, Seqno(seqno))?);
    }
    if options.list {
        list_store(archive, options.json)?;
    } else if !options.verify {
        let text = format!("{} is an archive of write-sets", archive.dir().display());
        bail!(
            Failure::new(Kind::Configuration, text)
                .hint("rejoin archive status --archive DIR shows what is in it")
        );
    }
    if !options.verify {
        return Ok(());
    }
    let (sound, bad) = verify_archive(archive)?;
    tell_verified(sound, bad, options.json)
}

/// Verifies every checksum and names each fault; returns how many actions are sound, and how many faults there are.
pub fn verify_archive(archive: &Archive) -> Result<(u64, u64)> {
    let mut bad = 0;
    let sound = archive.verify(&mut |what| {
        bad += 1;
        complain(&what);
    })?;
    Ok((sound, bad))
}

/// One line for each action of the store's newest range.
pub fn list_store(store: &dyn WriteSetStore, as_json: bool) -> Result<()> {
    let Some((first, last)) = store.range() else { return Ok(()) };
    print_lines(|print| store.read(first, last, &mut |action| print(&text::stored_line(&action, as_json))))
}

/// Returns the given path, or the path of this node's cache. Only the server's user may read the latter.
fn place(given: Option<&Path>, node: &Which) -> Result<PathBuf> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    let wanted = node.wanted()?;
    become_the_servers_user(&wanted)?;
    wanted.cache_file()
}

fn run_verify(cache: &Gcache, as_json: bool) -> Result<()> {
    let mut bad = 0;
    let sound = verify(cache, &mut |entry| {
        bad += 1;
        complain(&format!("seqno {} at byte {}: {}", entry.seqno, entry.at, entry.what));
    })?;
    tell_verified(sound, bad, as_json)
}

fn tell_verified(sound: u64, bad: u64, as_json: bool) -> Result<()> {
    match as_json {
        true => say(&json!({"verified": sound, "bad": bad}).to_string()),
        false => say(&format!("verified       {sound} actions, {bad} bad")),
    }
    ensure!(bad == 0, "{bad} of {} actions are damaged", sound + bad);
    Ok(())
}

/// Prints one line for each action. A reader that has enough (`head`) ends the list.
fn list(cache: &Gcache, as_json: bool) -> Result<()> {
    print_lines(|print| {
        cache.visit(&mut |entry, source| print(&text::line(entry, source, as_json)?)).map(drop)
    })
}

/// Prints the lines that `list` hands over, until the reader has enough: `print` answers whether it wants more.
fn print_lines(list: impl FnOnce(&mut dyn FnMut(&str) -> Result<bool>) -> Result<()>) -> Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    list(&mut |line| match writeln!(out, "{line}") {
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
    ensure!(
        !out.is_terminal(),
        "the output is binary: redirect it to a file, or pipe it to mariadb-binlog -v -"
    );
    out.write_all(file).and_then(|()| out.flush()).context("writing events")
}

fn run_size(options: &Size) -> Result<()> {
    let cache = Gcache::open(&place(options.path.as_deref(), &options.node)?)?;
    let report = Report::of(&cache)?;
    let rate = measured_rate(&report).map_err(|why| anyhow!(why))?;
    let largest = report.largest.map_or(0, |(_, bytes)| bytes);
    let ring = cache.ring_bytes();
    // Without an option, compute how long the configured size lasts.
    let answer = match options.outage {
        Some(outage) => (size_for(outage, &rate, largest), outage),
        None => {
            let size = options.size.unwrap_or(ring);
            (size, outage_for(size, &rate, largest))
        }
    };
    let warnings = warnings(&cache, &report);
    let archive = OfArchive::at(options)?;
    let bridged = rate.lasts((archive.bytes as f64 * archive.ratio) as u64);
    if options.json {
        say(&format!(
            "{:#}",
            json!({
                "gcache_size": answer.0,
                "outage_seconds": answer.1.as_secs(),
                "configured_gcache_size": ring,
                "largest_action": largest,
                "archive_bytes": archive.bytes,
                "archive_ratio": archive.ratio,
                "archive_ratio_measured": archive.measured,
                "archive_outage_seconds": bridged.as_secs(),
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
            "gcache.size    {}M for an outage of {} (25 % of it is reserve)",
            answer.0 >> 20,
            span(outage)
        )),
        None => say(&format!("outage         {} with gcache.size={}", span(answer.1), size(answer.0))),
    }
    say(&format!("now            gcache.size={}: {}", size(ring), span(outage_for(ring, &rate, largest))));
    let measured =
        if archive.measured { "as the archive here is" } else { "assumed; none was measured here" };
    say(&format!(
        "archive        {} would bridge {} (compressed {:.1} times: {measured})",
        size(archive.bytes),
        span(bridged),
        archive.ratio
    ));
    warnings.iter().for_each(|warning| say(&format!("warning        {warning}")));
    Ok(())
}

/// What is known of an archive of these write-sets.
struct OfArchive {
    bytes: u64,
    /// Bytes in the cache for each byte in the archive.
    ratio: f64,
    measured: bool,
}

impl OfArchive {
    /// The ratio of the archive, or without one that of sysbench's rows (docs/archive.md); the size from --archive-size, or 10 GiB.
    fn at(options: &Size) -> Result<OfArchive> {
        let dir = match &options.archive {
            Some(dir) => Some(dir.clone()),
            None => options
                .node
                .wanted()
                .and_then(|wanted| wanted.layout())
                .ok()
                .map(|layout| default_dir(&layout.datadir)),
        };
        let archive = dir.filter(|dir| is_archive(dir)).map(|dir| Archive::open(&dir)).transpose()?;
        let there = archive.map(|archive| archive.bytes()).filter(|(on_disk, _)| *on_disk > 1 << 20);
        let ratio = there.map_or(ASSUMED_RATIO, |(on_disk, raw)| raw as f64 / on_disk as f64);
        Ok(OfArchive { bytes: options.archive_size.unwrap_or(10 << 30), ratio, measured: there.is_some() })
    }
}

/// Parses a number followed by s, m, h or d.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a duration such as 90s, 30m, 4h or 2d");
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

pub fn bytes(text: &str) -> Result<u64, String> {
    parse_size(text).ok_or_else(|| format!("{text:?} is not a size such as 512M or 4G"))
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
