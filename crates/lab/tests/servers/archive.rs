//! The archive of write-sets against real servers: conflicting writers, a ring that wraps, archivers and servers that are
//! killed, large transactions through page files.
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use formats::galera::gcache::Action;
use rejoin_lab::archiver::Archiver;
use rejoin_lab::load::{Intensity, Load};
use rejoin_lab::places;
use rejoin_lab::{Cluster, Node, data, process};
use serde_json::Value;
use transfer::writesets::archive::Archive;
use transfer::writesets::store::{StoredAction, WriteSetStore};

const PATIENCE: Duration = Duration::from_secs(90);

/// An archiver runs for months beside a server.
const MEMORY: u64 = 64 << 20;

fn rejoin(args: &[&str]) -> Result<String> {
    let mut command = Command::new(places::rejoin_binary()?);
    command.args(args);
    process::run(command, PATIENCE)
}

/// All actions of the newest run, each verified.
fn actions(dir: &Path) -> Result<BTreeMap<i64, StoredAction>> {
    let archive = Archive::open(dir)?;
    let (first, last) = archive.range().context("an empty archive")?;
    let mut all = BTreeMap::new();
    archive.read(first, last, &mut |action| {
        all.insert(action.seqno.0, action);
        Ok(true)
    })?;
    assert_eq!(all.len() as i64, last.0 - first.0 + 1);
    Ok(all)
}

fn number(node: &Node, name: &str) -> Result<i64> {
    Ok(node.status(name)?.parse()?)
}

fn wait_quiet(nodes: [&Node; 2]) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let of = |node| number(node, "wsrep_last_committed");
    let mut before = (of(nodes[0])?, -1);
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let now = (of(nodes[0])?, of(nodes[1])?);
        if now == before && now.0 == now.1 {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "no rest: {now:?}");
        before = now;
    }
}

/// What is the same on every node: how far back a write-set depends (header bytes 6 and 7, and so the header's checksum) is for
/// each node to find out, whose certification index may begin elsewhere.
fn of_every_node(action: &StoredAction) -> StoredAction {
    let mut action = action.clone();
    if action.action == Action::WriteSet {
        action.bytes[6..8].fill(0);
        action.bytes[56..64].fill(0);
    }
    action
}

fn verify(dir: &Path) -> Result<String> {
    rejoin(&["archive", "verify", "--archive", &dir.to_string_lossy()])
}

#[test]
fn every_write_set_is_archived_whoever_is_killed() -> Result<()> {
    let cluster = Cluster::builder()
        .provider("gcache.size", "5M")
        .provider("gcache.page_size", "8M")
        .mysqld("max_allowed_packet=64M")
        .provider_of(2, "gcache.recover", "no")
        .build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    // So few rows that two writers cannot but meet.
    let few = Intensity { threads: 3, tables: 1, rows: 60, pause: Duration::ZERO };
    data::sysbench_tables(n1, few.tables, few.rows)?;
    n1.exec(&["CREATE DATABASE d", "CREATE TABLE d.t (a INT PRIMARY KEY, c LONGTEXT) ENGINE=InnoDB"])?;
    n2.join()?;
    let mut one = Archiver::start(n1)?;
    let mut two = Archiver::start(n2)?;
    one.wait_until_it_follows()?;
    two.wait_until_it_follows()?;
    let start = number(n1, "wsrep_last_committed")?;

    // Conflicts, a ring that wraps, and one archiver killed again and again.
    let failures = || {
        Ok::<i64, anyhow::Error>(
            number(n1, "wsrep_local_cert_failures")? + number(n2, "wsrep_local_cert_failures")?,
        )
    };
    let downto = number(n1, "wsrep_local_cached_downto")?;
    let loads = [Load::start(n1, few)?, Load::start(n2, few)?];
    for round in 0..4 {
        std::thread::sleep(Duration::from_millis(400 + 150 * round));
        two.kill()?;
        n1.exec(&[&format!("INSERT INTO d.t VALUES ({round}, 'x')")])?;
        two = Archiver::start(n2)?;
    }
    let deadline = Instant::now() + PATIENCE;
    while number(n1, "wsrep_local_cached_downto")? == downto {
        ensure!(Instant::now() < deadline, "the ring does not wrap");
        std::thread::sleep(Duration::from_millis(100));
    }
    loads.into_iter().try_for_each(|load| load.stop().map(drop))?;
    wait_quiet([n1, n2])?;
    let failed = failures()?;
    ensure!(failed > 0, "the writers never met");

    // A server is killed, and comes back with a new cache while the other one writes.
    n2.kill();
    n1.exec(&["INSERT INTO d.t VALUES (100, 'x')"])?;
    n2.join()?;
    n1.exec(&["INSERT INTO d.t VALUES (101, 'x')"])?;
    wait_quiet([n1, n2])?;

    // A provider that closes its file in order makes all its verdicts final.
    n2.stop()?;
    two.wait_for(n2.grastate()?.seqno)?;
    n1.stop()?;
    one.wait_for(n1.grastate()?.seqno)?;
    let (dir_one, dir_two) = (one.dir().to_owned(), two.dir().to_owned());
    one.stop()?;
    two.stop()?;

    let status: Value = serde_json::from_str(&rejoin(&[
        "archive",
        "status",
        "--json",
        "--archive",
        &dir_one.to_string_lossy(),
    ])?)?;
    assert_eq!(status["gaps"].as_array().map(Vec::len), Some(0), "{status}");
    assert_eq!(status["ranges"].as_array().map(Vec::len), Some(1), "{status}");
    let all = actions(&dir_one)?;
    assert_eq!(all.first_key_value().map(|(seqno, _)| *seqno), Some(1));
    let skipped = all.values().filter(|action| action.skipped).count() as i64;
    assert_eq!(skipped, failed, "skipped actions are those that failed certification");

    // The other archive may have gaps, where its archiver was dead for too long; what it has is the same.
    let theirs = actions(&dir_two)?;
    ensure!(theirs.keys().any(|seqno| *seqno > start), "nothing to compare");
    for (seqno, theirs) in theirs {
        let ours = all.get(&seqno).context("more than the other")?;
        assert_eq!(of_every_node(ours), of_every_node(&theirs), "seqno {seqno} differs");
    }

    // Sound, the same in the cache's own words, and a flipped bit is found and named.
    for dir in [&dir_one, &dir_two] {
        let text = verify(dir)?;
        ensure!(text.contains(" 0 faults"), "{text}");
    }
    let list = rejoin(&["gcache", "--list", &dir_one.to_string_lossy()])?;
    assert_eq!(list.lines().count(), all.len());
    let segments = Archive::open(&dir_one)?;
    let segment = segments.segments().last().context("no segment")?.path.clone();
    let mut bytes = std::fs::read(&segment)?;
    bytes[200] ^= 1;
    std::fs::write(&segment, bytes)?;
    let text = format!("{:#}", verify(&dir_one).unwrap_err());
    ensure!(text.contains("seqnos 1 to ") && text.contains("are damaged"), "{text}");
    Ok(())
}

/// Does this while four threads for each processor never rest.
fn while_every_processor_is_taken(work: impl FnOnce() -> Result<()>) -> Result<()> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 * std::thread::available_parallelism().map_or(2, |n| n.get()) {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop()
                }
            });
        }
        let worked = work();
        done.store(true, Ordering::Relaxed);
        worked
    })
}

/// Stops the node, and its archiver when that has everything, in one run.
fn stop_without_a_gap(node: &Node, mut archiver: Archiver) -> Result<()> {
    node.stop()?;
    archiver.wait_for(node.grastate()?.seqno)?;
    let (runs, gaps) = Archive::open(archiver.dir())?.runs();
    ensure!(gaps.is_empty(), "{gaps:?}: {}", archiver.log());
    assert_eq!(runs.len(), 1);
    archiver.stop()
}

/// The lowest priority gets next to nothing there, and the ring would be overwritten unread.
#[test]
fn an_archiver_keeps_up_where_every_processor_is_taken() -> Result<()> {
    // Some seconds' write-sets: the scheduler may keep a thread of the lowest priority waiting for one.
    let cluster = Cluster::builder().nodes(1).provider("gcache.size", "4M").build()?;
    let n1 = cluster.node(1);
    n1.bootstrap()?;
    let writers = Intensity { threads: 2, tables: 1, rows: 1000, pause: Duration::ZERO };
    data::sysbench_tables(n1, writers.tables, writers.rows)?;
    let mut archiver = Archiver::start(n1)?;
    archiver.wait_until_it_follows()?;

    while_every_processor_is_taken(|| wrap_ring(n1, writers))?;
    stop_without_a_gap(n1, archiver)
}

/// The idle policy gives a thread no processor for seconds there: a ring of this size must not be left to it.
#[test]
fn an_archiver_keeps_up_with_a_larger_ring_where_every_processor_is_taken() -> Result<()> {
    const PAYLOAD: u64 = 32 << 10;
    const RING: u64 = 64 << 20;
    let cluster = Cluster::builder()
        .nodes(1)
        .provider("gcache.size", "64M")
        .mysqld("innodb_flush_log_at_trx_commit=0")
        .build()?;
    let n1 = cluster.node(1);
    n1.bootstrap()?;
    n1.exec(&["CREATE DATABASE d", "CREATE TABLE d.t (a INT PRIMARY KEY, c LONGTEXT) ENGINE=InnoDB"])?;
    let mut archiver = Archiver::start(n1)?;
    archiver.wait_until_it_follows()?;
    while_every_processor_is_taken(|| {
        for row in 0..2 * RING / PAYLOAD {
            n1.exec(&[&format!(
                "REPLACE INTO d.t VALUES ({}, REPEAT('{row:08}', {}))",
                row % 8,
                PAYLOAD / 8
            )])?;
        }
        Ok(())
    })?;
    ensure!(number(n1, "wsrep_local_cached_downto")? > 10, "the ring did not wrap");
    stop_without_a_gap(n1, archiver)
}

/// Where its write-sets are overwritten while it looks for them, it does not run after them: it begins where they last.
#[test]
fn an_archiver_that_was_away_too_long_loses_one_stretch() -> Result<()> {
    const ROUNDS: usize = 5;
    let cluster = Cluster::builder().nodes(1).provider("gcache.size", "16M").build()?;
    let n1 = cluster.node(1);
    n1.bootstrap()?;
    let writers = Intensity { threads: 4, tables: 1, rows: 10_000, pause: Duration::ZERO };
    data::sysbench_tables(n1, writers.tables, writers.rows)?;
    let load = Load::start(n1, writers)?;
    let mut dir = None;
    for _ in 0..=ROUNDS {
        let mut archiver = Archiver::start(n1)?;
        archiver.wait_until_it_follows()?;
        archiver.wait_for(number(n1, "wsrep_last_committed")?)?;
        dir = Some(archiver.dir().to_owned());
        archiver.stop()?;
        let away = number(n1, "wsrep_last_committed")?;
        let deadline = Instant::now() + PATIENCE;
        while number(n1, "wsrep_local_cached_downto")? < away + 1000 {
            ensure!(Instant::now() < deadline, "the ring does not wrap");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    load.stop()?;
    let (_, gaps) = Archive::open(&dir.context("no archive")?)?.runs();
    // A second one follows where it was overtaken once more; many followed one another.
    ensure!((ROUNDS..=ROUNDS + 2).contains(&gaps.len()), "{} gaps: {gaps:?}", gaps.len());
    Ok(())
}

/// Among what the group writes meanwhile lies what it has long written, out of order by as much as the node has missed.
#[test]
fn what_a_node_receives_by_ist_while_the_group_writes_is_archived() -> Result<()> {
    // A ring of 32 MB holds three times as many, so that a donor on a busy host still has them.
    const MISSED: i64 = 4000;
    let cluster = Cluster::builder().nodes(2).build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    let writers = Intensity { threads: 4, tables: 1, rows: 10_000, pause: Duration::ZERO };
    data::sysbench_tables(n1, writers.tables, writers.rows)?;
    n2.join()?;
    let mut archiver = Archiver::start(n2)?;
    archiver.wait_until_it_follows()?;
    n2.stop()?;
    let left = n2.grastate()?.seqno;
    archiver.wait_for(left)?;

    let load = Load::start(n1, writers)?;
    let deadline = Instant::now() + PATIENCE;
    while number(n1, "wsrep_last_committed")? < left + MISSED {
        ensure!(Instant::now() < deadline, "nobody writes");
        std::thread::sleep(Duration::from_millis(100));
    }
    n2.join()?;
    load.stop()?;
    wait_quiet([n1, n2])?;
    ensure!(n2.log_text().contains("IST received"), "it did not come back by IST");
    stop_without_a_gap(n2, archiver)
}

/// Writes until the provider has overwritten its ring twice.
fn wrap_ring(node: &Node, writers: Intensity) -> Result<()> {
    let downto = number(node, "wsrep_local_cached_downto")?;
    let load = Load::start(node, writers)?;
    let deadline = Instant::now() + PATIENCE;
    while number(node, "wsrep_local_cached_downto")? < downto + 8000 {
        ensure!(Instant::now() < deadline, "the ring does not wrap");
        std::thread::sleep(Duration::from_millis(100));
    }
    load.stop().map(drop)
}

/// A provider that deletes a page file drops all write-sets before it from its ring, final or not. What is lost by that is
/// recorded as a gap, and everything behind it is archived.
#[test]
fn large_transactions_go_through_page_files() -> Result<()> {
    let cluster = Cluster::builder().nodes(1).provider("gcache.size", "5M").build()?;
    let n1 = cluster.node(1);
    n1.bootstrap()?;
    n1.exec(&["CREATE DATABASE d", "CREATE TABLE d.t (a INT PRIMARY KEY, c LONGTEXT) ENGINE=InnoDB"])?;
    let mut archiver = Archiver::start(n1)?;
    archiver.wait_until_it_follows()?;
    for round in 0..4 {
        n1.exec(&[&format!("INSERT INTO d.t VALUES ({round}, REPEAT('x', 3000000))")])?;
        n1.exec(&[&format!("INSERT INTO d.t VALUES (10 + {round}, 'x')")])?;
    }
    ensure!(n1.log_text().contains("gcache.page."), "no page file was used");
    n1.stop()?;
    archiver.wait_for(n1.grastate()?.seqno)?;
    let (dir, memory) = (archiver.dir().to_owned(), archiver.most_memory());
    ensure!((1 << 20..MEMORY).contains(&memory), "the archiver took {memory} bytes");
    archiver.stop()?;
    actions(&dir)?;
    ensure!(verify(&dir)?.contains(" 0 faults"), "{}", verify(&dir)?);
    Ok(())
}

#[test]
fn a_new_history_and_a_second_archiver() -> Result<()> {
    let cluster = Cluster::builder().nodes(1).build()?;
    let n1 = cluster.node(1);
    n1.bootstrap()?;
    n1.exec(&["CREATE DATABASE d", "CREATE TABLE d.t (a INT PRIMARY KEY) ENGINE=InnoDB"])?;
    let old = n1.status("wsrep_cluster_state_uuid")?;
    let mut archiver = Archiver::start(n1)?;
    archiver.wait_until_it_follows()?;

    // Two never write one archive.
    let mut command = Command::new(places::rejoin_binary()?);
    command.args(["archive", "run", "--datadir"]).arg(n1.datadir());
    let text = format!("{:#}", process::run(command, PATIENCE).unwrap_err());
    ensure!(text.contains("rejoin archive run") && text.contains("locked"), "{text}");

    // What only the server's memory holds is a gap, and no more than that.
    n1.exec(&["SET GLOBAL wsrep_provider_options='gcache.mem_size=32M'", "INSERT INTO d.t VALUES (1)"])?;
    n1.exec(&["SET GLOBAL wsrep_provider_options='gcache.mem_size=0'", "INSERT INTO d.t VALUES (2)"])?;
    n1.stop()?;
    let last = n1.grastate()?.seqno;
    archiver.wait_for(last)?;
    let (_, gaps) = Archive::open(archiver.dir())?.runs();
    let gap = gaps.last().context("no gap")?;
    assert_eq!((gap.first, gap.last), (gap.first, gap.first), "one write-set was in memory only: {gap:?}");

    std::fs::remove_file(n1.datadir().join("grastate.dat"))?;
    n1.bootstrap()?;
    let new = n1.status("wsrep_cluster_state_uuid")?;
    ensure!(new != old, "the history is the same");
    n1.exec(&["INSERT INTO d.t VALUES (3)"])?;
    n1.stop()?;
    let deadline = Instant::now() + PATIENCE;
    while Archive::open(archiver.dir())?.newest_run().is_none_or(|run| run.history.to_string() != new) {
        ensure!(Instant::now() < deadline, "the new history is not archived: {}", archiver.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    let archive = Archive::open(archiver.dir())?;
    assert_eq!(archive.history().to_string(), new);
    assert_eq!(archive.range().map(|(first, _)| first.0), Some(1));
    let histories: Vec<String> = archive.runs().0.iter().map(|run| run.history.to_string()).collect();
    assert_eq!(histories.first(), Some(&old), "the old one is still there");
    let dir = archiver.dir().to_owned();
    archiver.stop()?;
    verify(&dir).map(drop)
}
