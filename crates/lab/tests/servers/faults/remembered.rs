//! What neither host reads because it has not changed, and what becomes of a memory that is wrong.
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use protocol::remembered::{Builder, FileRecord, RANGE_RECORD_BYTES};
use rejoin_lab::{Cluster, Node, compare, data};
use report::Record;
use transfer::disk::identity::look;
use transfer::remembered::memory::WRONG;
use transfer::remembered::store;
use transfer::remembered::trust::{SETTLED, state_of};
use transfer::server::records::Records;

use super::pair::{until, verb};

const TABLES: u32 = 4;

/// The donor's files must have been left alone before they are read; the joiner's are known from their install on.
#[test]
fn neither_host_reads_what_has_not_changed_and_a_wrong_memory_is_noticed() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).build()?;
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    donor.bootstrap()?;
    data::sysbench_tables(donor, TABLES, 30_000)?;
    donor.exec(&["CREATE DATABASE small"])?;
    for number in 0..30 {
        let table = format!("CREATE TABLE t{number} (a INT PRIMARY KEY) SELECT seq a FROM seq_1_to_100");
        donor.exec(&["USE small", &table])?;
    }
    donor.write_pages()?;
    let newest = || -> Result<SystemTime> {
        let times = tables(donor)?.iter().map(|path| changed(path)).collect::<Result<Vec<_>>>()?;
        times.into_iter().max().context("no table")
    };
    until("the donor's tables have been left alone", SETTLED * 2, || {
        Ok(newest()?.elapsed().unwrap_or_default() > SETTLED + Duration::from_secs(1))
    })?;
    joiner.join()?;
    let [first, _] = records(donor, joiner)?;
    ensure!(first.bytes.remembered == 0, "nothing was remembered yet: {:?}", first.bytes);
    joiner.wait_tidy()?;
    joiner.stop()?;

    // A few rows of one table.
    let change = |what: &str| -> Result<()> {
        donor.exec(&[&format!("UPDATE sbtest.sbtest1 SET c = '{what}' WHERE id BETWEEN 100 AND 120")])?;
        donor.write_pages()
    };
    change("something small")?;
    let cold =
        size_of(donor, |name| name.starts_with("sbtest") && name != "sbtest1.ibd" && name.ends_with(".ibd"))?;
    let hot = size_of(donor, |name| name == "sbtest1.ibd")?;
    join_again(joiner)?;
    let both = records(donor, joiner)?;
    for Record { role, bytes, plan, .. } in &both {
        // One range in a hundred and at least one are read anyway, and the system's own files.
        ensure!(bytes.remembered > cold - cold / 5, "{role} remembered {bytes:?}, {cold} are cold\n{plan:?}");
        let small = bytes.total.saturating_sub(cold + hot) + (4 << 20);
        ensure!(bytes.read < hot + small + cold / 10, "{role} read {bytes:?}, {hot} are hot and {cold} cold");
    }
    let plan = both[0].plan.as_ref().map(|plan| plan.words.clone()).unwrap_or_default();
    ensure!(plan.contains("the donor remembers the fingerprints of "), "{plan}");
    let log = joiner.log_since_start();
    ensure!(log.contains("were not read: their fingerprints were remembered"), "{log}");
    compare::assert_equal(donor, joiner)?;
    joiner.wait_tidy()?;
    joiner.stop()?;

    for liar in [joiner, donor] {
        change(&format!("while {} is wrong", liar.name()))?;
        plant_wrong_fingerprints(liar)?;
        join_again(joiner)?;
        for node in [donor, joiner] {
            let log = node.log_text();
            let said = log.lines().any(|line| line.contains(WRONG) && line.contains("starts again"));
            ensure!(said, "{} does not say that {} is wrong:\n{log}", node.name(), liar.name());
        }
        let both = records(donor, joiner)?;
        for Record { role, bytes, attempts, .. } in &both {
            ensure!(attempts.len() == 2 && attempts[1].reason.contains(WRONG), "{role}: {attempts:?}");
            ensure!(bytes.remembered == 0 && bytes.read > cold, "{role} did not read everything: {bytes:?}");
        }
        ensure!(!liar.datadir().join(store::LIST).exists(), "{} remembers on", liar.name());
        compare::assert_equal(donor, joiner)?;
        joiner.wait_tidy()?;
        joiner.stop()?;
    }

    // What was forgotten is remembered again, on a server that runs and on one that does not.
    until("the donor's tables have been left alone", SETTLED * 2, || {
        Ok(newest()?.elapsed().unwrap_or_default() > SETTLED + Duration::from_secs(1))
    })?;
    for node in [donor, joiner] {
        let (worked, said) = verb(&cluster, node, "fingerprint")?;
        ensure!(worked && said.contains("the fingerprints of "), "{said}");
    }
    // The joiner remembers under another key, the smaller one of the two.
    fs::write(joiner.datadir().join(store::KEY), [0; 32])?;
    let (worked, said) = verb(&cluster, joiner, "fingerprint")?;
    ensure!(worked, "{said}");
    let (_, again) = verb(&cluster, donor, "fingerprint")?;
    let read = again.split_once("are remembered; ").map(|(_, rest)| rest).unwrap_or_default();
    ensure!(!read.starts_with("0 B") && !read.contains("GiB"), "one range at least is read again: {again}");
    change("at the end")?;
    join_again(joiner)?;
    let [gave, got] = records(donor, joiner)?;
    ensure!(got.bytes.remembered > cold - cold / 5, "the joiner remembered {:?}, {cold} are cold", got.bytes);
    ensure!(gave.bytes.remembered == 0, "the donor has another key now: {:?}", gave.bytes);
    ensure!(store::key(&donor.datadir())? == Some([0; 32]), "one key");
    joiner.wait_tidy()?;
    joiner.stop()?;
    join_again(joiner)?;
    for Record { role, bytes, .. } in &records(donor, joiner)? {
        ensure!(bytes.remembered > cold - cold / 5, "{role} remembered {bytes:?}, {cold} are cold");
    }
    compare::assert_equal(donor, joiner)
}

fn join_again(joiner: &Node) -> Result<()> {
    joiner.remove_grastate()?;
    joiner.join().map(drop)
}

/// The newest records: the donor's, and the joiner's.
fn records(donor: &Node, joiner: &Node) -> Result<[Record; 2]> {
    let newest = |node: &Node| -> Result<Record> {
        let mut found = Records::default();
        found.add(&node.datadir())?;
        found.records.into_iter().max_by_key(|record| record.began_ms).context("no record")
    };
    Ok([newest(donor)?, newest(joiner)?])
}

/// The data files of this test's tables.
fn tables(node: &Node) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for database in ["sbtest", "small"] {
        for entry in fs::read_dir(node.datadir().join(database))? {
            found.push(entry?.path());
        }
    }
    Ok(found)
}

fn changed(path: &Path) -> Result<SystemTime> {
    let state = state_of(&look(path)?.context("a table is gone")?);
    Ok(SystemTime::UNIX_EPOCH + Duration::from_nanos(state.changed.max(state.modified) as u64))
}

fn size_of(node: &Node, counts: impl Fn(&str) -> bool) -> Result<u64> {
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let counted = tables(node)?.into_iter().filter(|path| counts(&name(path)));
    counted.map(|path| Ok(path.metadata()?.len())).sum()
}

/// Changes the fingerprint of every range that a node remembers of its tables.
fn plant_wrong_fingerprints(node: &Node) -> Result<()> {
    let datadir = node.datadir();
    let key = store::key(&datadir)?.context("no key")?;
    let (list, _) = store::load(&datadir, &key)?.context("nothing is remembered")?;
    let mut wrong = Builder::default();
    for path in tables(node)? {
        let state = state_of(&look(&path)?.context("a table is gone")?);
        let Some(record) = list.find(&state).and_then(|at| list.get(at)) else { continue };
        let mut ranges = record.ranges.to_vec();
        ranges.chunks_mut(RANGE_RECORD_BYTES).for_each(|range| range[0] ^= 1);
        ensure!(wrong.push(&FileRecord { ranges: &ranges, ..record }));
    }
    ensure!(wrong.len() > 20, "{} remembers only {} tables", node.name(), wrong.len());
    store::save(&datadir, &key, wrong.finish(&list.written()))?;
    // The server's user must be able to read it, even if another user runs this test.
    rejoin_lab::places::User::for_servers()?.own(&datadir.join(store::LIST))
}
