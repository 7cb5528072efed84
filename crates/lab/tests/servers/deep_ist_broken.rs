//! Deep IST that breaks in the middle: a server, a program, the link or the archive fails while write-sets travel or are
//! applied. The node comes back by what it had and the rest, or by files, and is equal.
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use formats::archive::{BLOCK_HEADER_LEN, BlockHeader, SEGMENT_HEADER_LEN};
use rejoin_lab::outage::{CALM, FAR, Outage, builder, replayed_from, says};
use rejoin_lab::skipped::{missing_for_own_network, skip};
use rejoin_lab::{Builder, DEFAULT_TIMEOUT, LogMark, Node, process, sql};
use report::record::{Method, Record};
use rustix::process::Signal;
use transfer::writesets::archive::Archive;
use transfer::writesets::store::WriteSetStore;

/// What makes write-sets travel for some seconds.
const SLOW: &str = "rlimit=300k";
const FAST: &str = "rlimit=0";
/// So many write-sets are applied before the server is killed, at least.
const SOME: i64 = 200;
const PATIENCE: Duration = Duration::from_secs(60);

/// The third node misses many megabytes of write-sets, which travel in pieces of one.
fn far_away(builder: Builder) -> Result<Outage> {
    let mut outage = Outage::begin(builder.build()?)?;
    let position = outage.position;
    outage.position += 4 * FAR;
    // No DDL: a server that is killed after DDL and before it stores its position executes that DDL again, and no state transfer can repair that.
    outage.write_beyond(None, || Ok(()))?;
    outage.wait_archived()?;
    outage.position = position;
    Ok(outage)
}

fn wait(what: &str, mut is: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !is()? {
        ensure!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Bytes of write-sets that wait for a joiner's server.
fn spooled(joiner: &Node) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(joiner.datadir())? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(".spool") {
            // It may have been removed meanwhile.
            bytes += entry.metadata().map_or(0, |meta| meta.len());
        }
    }
    Ok(bytes)
}

/// The number that follows a text in a log.
fn number_after(log: &str, text: &str) -> Result<i64> {
    let (_, rest) = log.rsplit_once(text).with_context(|| format!("no {text:?} in\n{log}"))?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().with_context(|| format!("{text:?} is followed by {digits:?}"))
}

/// A transfer failed on this node, for this reason.
fn failed(node: &Node, since: LogMark, reason: &str) -> Result<()> {
    let log = node.log_since(since);
    let named = |line: &str| line.contains("state transfer failed") && line.contains(reason);
    ensure!(log.lines().any(named), "{} did not fail because {reason:?}:\n{log}", node.name());
    Ok(())
}

/// Waits until a server that takes part in a deep IST has committed this.
fn wait_committed(node: &Node, seqno: i64) -> Result<i64> {
    let (mut conn, mut committed) = (None, 0);
    wait("the server applies write-sets", || {
        if conn.is_none() {
            conn = sql::connect(&node.socket(), Duration::from_secs(5)).ok();
        }
        let status = conn.as_mut().map(|conn| sql::status(conn, "wsrep_last_committed"));
        committed = status.and_then(|status| status.ok()?.parse().ok()).unwrap_or_default();
        Ok(committed >= seqno)
    })
    .with_context(|| process::tail(&node.log_since_start(), 20))?;
    Ok(committed)
}

#[test]
fn a_server_that_is_killed_while_it_applies_write_sets_goes_on_from_what_it_had_committed() -> Result<()> {
    // What it has committed is on the disk, and one thread takes long enough to be killed in the middle.
    let builder = builder(1).mysqld_of(3, "innodb_flush_log_at_trx_commit=1");
    let mut outage = far_away(builder.mysqld_of(3, "wsrep_slave_threads=1"))?;
    let loads = outage.loads(CALM)?;
    let (n1, n3) = (outage.cluster.node(1), outage.cluster.node(3));
    n3.begin(&[])?;
    let committed = wait_committed(n3, outage.position + SOME)?;
    n3.kill();
    let arrived = number_after(&n3.log_since_start(), "its write-sets to ")?;

    let mark = n1.log_mark();
    n3.join().context("the next start")?;
    loads.into_iter().try_for_each(|load| load.stop().map(drop))?;
    outage.came_by_write_sets(n3, mark)?;
    let log = n3.log_since_start();
    let from = replayed_from(&log).context("no deep IST")?;
    // The last commit that the status counted may still have been on its way to the disk.
    ensure!(from + 1 >= committed, "{committed} was committed, and it began again from {from}");
    ensure!(from < arrived, "{from} of {arrived}: it was not killed in the middle");
    ensure!(number_after(&log, "inserted the write-sets ")? == from + 1, "not what follows {from}:\n{log}");
    let sent = number_after(&n1.log_since(mark), "deep IST: sent write-sets ")?;
    ensure!(sent == arrived + 1, "{arrived} had arrived, and {sent} was sent");
    outage.all_are_equal()?;
    wait("the spool is removed", || Ok(spooled(n3)? == 0))?;
    outage.stop_archiver()
}

/// The third node is started, and something happens when more write-sets have arrived. Its server ends, and does not have all.
fn breaks_off(outage: &Outage, disturb: impl FnOnce() -> Result<()>) -> Result<()> {
    let (n1, n3) = (outage.cluster.node(1), outage.cluster.node(3));
    n1.add_options("sst", &[SLOW])?;
    let before = spooled(n3)?;
    n3.begin(&[])?;
    wait("write-sets arrive", || Ok(spooled(n3)? > before))
        .with_context(|| process::tail(&n3.log_since_start(), 20))?;
    disturb()?;
    if n3.wait_exit(PATIENCE).is_none() {
        // A 10.11 server may hang while it aborts (see `faults/pair.rs`).
        says(n3, "Application state transfer failed")?;
        n3.kill();
    }
    says(n3, "plan: deep IST from")?;
    let log = n3.log_since_start();
    ensure!(!log.contains("its write-sets to "), "all had arrived:\n{log}");
    ensure!(spooled(n3)? > before, "what had arrived is gone");
    n1.wait_synced_again(PATIENCE)
}

/// The next start gets only what is missing.
fn gets_the_rest(outage: &Outage) -> Result<()> {
    let (n1, n3) = (outage.cluster.node(1), outage.cluster.node(3));
    n1.add_options("sst", &[FAST])?;
    let mark = n1.log_mark();
    n3.join().context("the next start")?;
    outage.came_by_write_sets(n3, mark)?;
    let from = replayed_from(&n3.log_since_start());
    ensure!(from == Some(outage.position), "it began from {from:?}, not {}", outage.position);
    let sent = number_after(&n1.log_since(mark), "deep IST: sent write-sets ")?;
    ensure!(sent > outage.position + SOME, "what had arrived was sent again: {sent}");
    Ok(())
}

#[test]
fn programs_that_are_killed_while_write_sets_travel_cost_only_the_rest() -> Result<()> {
    let mut outage = far_away(builder(1))?;
    let loads = outage.loads(CALM)?;
    let (n1, n3) = (outage.cluster.node(1), outage.cluster.node(3));
    let marks = [n1.log_mark(), n3.log_mark()];
    breaks_off(&outage, || {
        let mut programs = n1.sst_processes();
        programs.retain(|seen| seen.command.starts_with("wsrep_sst_rejoin "));
        ensure!(!programs.is_empty(), "no program runs on the donor");
        programs.iter().for_each(|seen| process::signal(seen.pid, Signal::KILL));
        Ok(())
    })
    .context("the donor's program is killed")?;
    failed(n3, marks[1], "the donor at 127.0.0.1:")?;

    breaks_off(&outage, || {
        n3.kill();
        Ok(())
    })
    .context("the joiner's server is killed")?;
    failed(n1, marks[0], "the joiner gave up: the joiner's server (process ")?;

    gets_the_rest(&outage)?;
    loads.into_iter().try_for_each(|load| load.stop().map(drop))?;
    outage.every_object_is_equal()?;
    outage.stop_archiver()
}

#[test]
fn a_link_that_is_cut_while_write_sets_travel_costs_only_the_rest() -> Result<()> {
    if let Some(needs) = missing_for_own_network() {
        return skip(needs);
    }
    let builder = builder(1).transfer_network().provider_of(3, "ist.recv_addr", "10.99.0.3");
    let mut outage = far_away(builder.sst("sst-idle-timeout=5"))?;
    let loads = outage.loads(CALM)?;
    let (n1, n3) = (outage.cluster.node(1), outage.cluster.node(3));
    let marks = [n1.log_mark(), n3.log_mark()];
    breaks_off(&outage, || n3.cut_transfers()).context("the link of transfers is cut")?;
    failed(n1, marks[0], "the joiner at 10.99.1.3:")?;
    failed(n3, marks[1], "received nothing from the donor at 10.99.1.1:")?;
    n3.reconnect_transfers()?;

    // No word of the group reaches the joiner's server: its program ends first.
    breaks_off(&outage, || n3.cut_transfers().and_then(|()| n3.cut())).context("the host is cut off")?;
    says(n3, "the group has not ended this node's server")?;
    n3.reconnect_transfers()?;
    n3.reconnect()?;

    gets_the_rest(&outage)?;
    loads.into_iter().try_for_each(|load| load.stop().map(drop))?;
    outage.every_object_is_equal()?;
    outage.stop_archiver()
}

/// Flips a bit of the block that has this seqno. Neither the segment's index nor a header shows it.
fn damage(archive: &Path, seqno: i64) -> Result<()> {
    for segment in Archive::open(archive)?.segments() {
        let mut bytes = fs::read(&segment.path)?;
        let mut at = SEGMENT_HEADER_LEN;
        while let Some(header) = bytes.get(at..at + BLOCK_HEADER_LEN)
            && let Ok(block) = BlockHeader::parse(header, segment.header.serial)
        {
            if (block.first.0..=block.last.0).contains(&seqno) {
                bytes[at + BLOCK_HEADER_LEN + block.stored_len as usize / 2] ^= 1;
                return Ok(fs::write(&segment.path, bytes)?);
            }
            at += usize::try_from(block.len())?;
        }
    }
    bail!("no block of {} has write-set {seqno}", archive.display())
}

/// The newest record that a role left on a node.
fn last_record(node: &Node, role: &str) -> Result<Record> {
    let mut records = Vec::new();
    for entry in fs::read_dir(node.datadir())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(&format!("rejoin-{role}-")) && name.ends_with(".json") {
            records.push(name);
        }
    }
    let last = records.into_iter().max().with_context(|| format!("no record of a {role}"))?;
    Ok(serde_json::from_slice(&fs::read(node.datadir().join(last))?)?)
}

#[test]
fn files_follow_when_the_archive_is_found_damaged_after_some_of_it_was_sent() -> Result<()> {
    let mut outage = far_away(builder(1))?;
    outage.stop_archiver()?;
    let dir = outage.archive();
    let (_, last) = Archive::open(&dir)?.range().context("an empty archive")?;
    damage(&dir, (outage.position + last.0) / 2)?;
    let (n1, n3) = (outage.cluster.node(1), outage.cluster.node(3));
    let mark = n1.log_mark();
    n3.begin(&[])?;
    n3.wait_log("plan: incremental", PATIENCE)?;
    ensure!(spooled(n3)? == 0, "write-sets take the room of files");
    n3.wait_synced(DEFAULT_TIMEOUT)?;
    says(n3, "plan: deep IST from")?;
    says(n3, "deep IST broke off, so files are sent: seqnos ")?;
    let donor = n1.log_since(mark);
    let named = |line: &str| line.contains("no deep IST: seqnos ") && line.contains("are damaged");
    ensure!(donor.lines().any(named), "{donor}");
    for (node, role) in [(n1, "donor"), (n3, "joiner")] {
        let record = last_record(node, role)?;
        let (method, write_sets) = (record.method, record.bytes.write_sets);
        ensure!(
            method == Some(Method::Files) && write_sets > 1 << 20,
            "{role}: {method:?}, {write_sets} bytes"
        );
    }
    outage.all_are_equal()?;
    ensure!(spooled(n3)? == 0, "write-sets are left");
    Ok(())
}
