//! Deep IST on real servers: a node that was away longer than every provider's cache reaches comes back by archived
//! write-sets, and no file is sent.
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rejoin_lab::archiver::Archiver;
use rejoin_lab::ddl::{Repertoire, Storm, create_shared};
use rejoin_lab::load::{Intensity, Load};
use rejoin_lab::{Cluster, Node, compare, data};
use serde_json::Value;
use transfer::writesets::archive::Archive;

/// So few rows that two writers cannot but meet.
const FEW: Intensity = Intensity { threads: 3, tables: 1, rows: 40, pause: Duration::ZERO };
/// So many write-sets are in no provider's cache, at least.
const FAR: i64 = 1000;
/// So little that the small cache holds all of a slow machine's join.
const CALM: Intensity = Intensity { threads: 2, pause: Duration::from_millis(50), ..FEW };

/// Three nodes with small caches. The first has an archive and is the third's donor; the third's IST can pass through our
/// program.
fn cluster() -> Result<Cluster> {
    Cluster::builder()
        .nodes(3)
        .provider("gcache.size", "2M")
        // It stays primary when the joiner is killed.
        .provider_of(1, "pc.weight", "3")
        .provider_of(3, "ist.recv_addr", "127.0.0.2")
        .provider_of(3, "ist.recv_bind", "127.0.0.1")
        .mysqld_of(3, "wsrep_sst_donor=n1")
        .sst_of(1, "ist=always")
        .build()
}

/// Starts all, and ends the third. Answers where it is, and the first one's archiver.
fn third_goes_away(cluster: &Cluster) -> Result<(i64, Archiver)> {
    let (n1, n2, n3) = (cluster.node(1), cluster.node(2), cluster.node(3));
    n1.bootstrap()?;
    let archiver = Archiver::start(n1)?;
    data::sysbench_tables(n1, FEW.tables, FEW.rows)?;
    create_shared(n1)?;
    n2.join()?;
    n3.join()?;
    n3.stop()?;
    Ok((n3.grastate()?.seqno, archiver))
}

/// Two nodes write to the same rows until the first one's cache does not reach back to `position` by far.
fn write_beyond(cluster: &Cluster, position: i64) -> Result<()> {
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    let loads = [Load::start(n1, FEW)?, Load::start(n2, FEW)?];
    let failures = |node: &Node| Ok::<i64, anyhow::Error>(node.status("wsrep_local_cert_failures")?.parse()?);
    let deadline = Instant::now() + Duration::from_secs(120);
    while n1.cached_downto()?.min(n2.cached_downto()?) <= position + FAR || failures(n1)? + failures(n2)? == 0
    {
        ensure!(
            Instant::now() < deadline,
            "the cache still reaches {position}, or nothing failed certification"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    loads.into_iter().try_for_each(|load| load.stop().map(drop))
}

fn says(node: &Node, text: &str) -> Result<()> {
    let log = node.log_since_start();
    ensure!(log.contains(text), "{} does not say {text:?}:\n{log}", node.name());
    Ok(())
}

/// The first node's archive must not be used: the third node gets files, and both say why.
fn gets_files(cluster: &Cluster, says_why: &str) -> Result<()> {
    let (n1, n3) = (cluster.node(1), cluster.node(3));
    let mark = n1.log_mark();
    n3.join()?;
    says(n3, says_why)?;
    says(n3, "plan: incremental")?;
    ensure!(n1.log_since(mark).contains(says_why), "{}", n1.log_since(mark));
    compare::assert_equal(n1, n3)
}

#[test]
fn an_archive_that_does_not_reach_back_or_is_damaged_is_not_used() -> Result<()> {
    let cluster = cluster()?;
    let (n1, n3) = (cluster.node(1), cluster.node(3));
    let (position, archiver) = third_goes_away(&cluster)?;
    let dir = archiver.dir().to_owned();
    archiver.stop()?;
    fs::remove_dir_all(&dir)?;
    write_beyond(&cluster, position)?;
    let mut archiver = Archiver::start(n1)?;
    archiver.wait_until_it_follows()?;
    write_beyond(&cluster, position + FAR)?;
    gets_files(&cluster, "are wanted; the donor's archive")?;

    n3.stop()?;
    let position = n3.grastate()?.seqno;
    write_beyond(&cluster, position)?;
    archiver.wait_for(position + FAR)?;
    archiver.stop()?;
    for segment in Archive::open(&dir)?.segments() {
        let mut bytes = fs::read(&segment.path)?;
        // All over its second half: what the third node wants is at the end.
        let every = bytes.len() / 64;
        (32..64).for_each(|part| bytes[part * every] ^= 1);
        fs::write(&segment.path, bytes)?;
    }
    gets_files(&cluster, "no deep IST")
}

/// `rejoin plan` for the third node names the archive of the first.
fn is_predicted(cluster: &Cluster) -> Result<()> {
    let mut command = Command::new(cluster.program_dir().join("rejoin"));
    command.args(["plan", "--json", "--defaults-file"]).arg(cluster.node(3).option_file());
    command.arg("--donor").arg(cluster.node(1).socket());
    let out = command.output()?;
    let json: Value = serde_json::from_slice(&out.stdout).with_context(|| format!("{out:?}"))?;
    let deep = &json["deep_ist"];
    ensure!(json["way"] == "sst" && json["donor"] == "n1", "{json:#}");
    ensure!(deep["write_sets"].as_i64() > Some(FAR) && deep["closed"].is_null(), "{json:#}");
    Ok(())
}

/// Stopped, and left behind by two nodes that write and change tables; `try_first` may break a first try.
fn comes_back(try_first: impl FnOnce(&Node) -> Result<()>) -> Result<()> {
    let cluster = cluster()?;
    let (n1, n2, n3) = (cluster.node(1), cluster.node(2), cluster.node(3));
    let (position, mut archiver) = third_goes_away(&cluster)?;
    let storm = |seed, node: usize| {
        let every = Duration::from_millis(100);
        Storm { seed, every, repertoire: Repertoire::Shared { node } }.start(cluster.node(node))
    };
    let storms = [storm(1, 1)?, storm(2, 2)?];
    write_beyond(&cluster, position)?;
    archiver.wait_for(position + FAR)?;
    storms.into_iter().try_for_each(|storm| storm.stop().map(drop))?;

    let loads = [Load::start(n1, CALM)?, Load::start(n2, CALM)?];
    is_predicted(&cluster)?;
    try_first(n3)?;
    let mark = n1.log_mark();
    n3.join().context("the deep IST")?;
    loads.into_iter().try_for_each(|load| load.stop().map(drop))?;
    says(n3, "plan: deep IST from")?;
    says(n3, "deep IST: inserted the write-sets")?;
    ensure!(!n3.log_since_start().contains("snapshot: "), "files were sent");
    ensure!(n1.log_since(mark).contains("and no file"), "{}", n1.log_since(mark));
    compare::assert_equal(n1, n3)?;
    compare::assert_equal(n2, n3)?;
    for node in [n1, n2, n3] {
        // Of a statement that fails on every node.
        let errors = node.unexpected_errors(&["Slave SQL: Error"]);
        ensure!(errors.is_empty(), "{}: {errors:#?}", node.name());
        ensure!(!node.log_since_start().contains("Inconsistency detected"), "{} found one", node.name());
    }
    archiver.stop()
}

#[test]
fn a_node_comes_back_by_archived_write_sets() -> Result<()> {
    comes_back(|_| Ok(()))
}

#[test]
fn a_joiner_that_was_killed_before_its_server_got_a_write_set_comes_back_by_them() -> Result<()> {
    comes_back(|n3| {
        n3.begin(&[])?;
        n3.wait_log("its write-sets to", Duration::from_secs(120)).context("the first try")?;
        n3.kill();
        Ok(())
    })
}
