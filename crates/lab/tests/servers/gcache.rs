//! `rejoin gcache` says of a real server's files what the server itself says: running, loaded, stopped, killed.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rejoin_lab::load::{Intensity, Load};
use rejoin_lab::{Cluster, Node, compare, data, places, process};
use serde_json::Value;

const INTENSITY: Intensity = Intensity { threads: 4, tables: 2, rows: 2000, pause: Duration::ZERO };

/// Runs the program and answers what it printed; an error when it failed.
fn rejoin(args: &[&str]) -> Result<String> {
    let mut command = Command::new(places::rejoin_binary()?);
    command.arg("gcache").args(args);
    process::run(command, Duration::from_secs(120))
}

fn report(at: &Path) -> Result<Value> {
    Ok(serde_json::from_str(&rejoin(&[&at.to_string_lossy(), "--json"])?)?)
}

fn number(report: &Value, key: &str) -> Result<i64> {
    report[key].as_i64().with_context(|| format!("{key} in {report}"))
}

/// A metric of the node without labels, if it has one.
fn metric(node: &Node, name: &str) -> Result<Option<f64>> {
    let mut command = Command::new(places::rejoin_binary()?);
    command.arg("metrics").arg("--defaults-file").arg(node.option_file());
    let text = process::run(command, Duration::from_secs(120))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.map(str::parse).transpose()?)
}

/// The range by the files.
fn range(at: &Path) -> Result<(i64, i64)> {
    let report = report(at)?;
    Ok((number(&report, "first")?, number(&report, "last")?))
}

/// The range by the server.
fn status(node: &Node) -> Result<(i64, i64)> {
    let one = |name| Ok::<i64, anyhow::Error>(node.status(name)?.parse()?);
    Ok((one("wsrep_local_cached_downto")?, one("wsrep_last_committed")?))
}

/// Every checksum is right, and there were at least `least` of them.
fn verified(at: &Path, least: i64) -> Result<()> {
    let text = rejoin(&[&at.to_string_lossy(), "--verify"])?;
    let line = text.lines().find_map(|line| line.strip_prefix("verified")).context("no verdict")?;
    let sound: i64 = line.split_whitespace().next().context("no number")?.parse()?;
    ensure!(sound >= least && line.contains(" 0 bad"), "at least {least} wanted:\n{text}");
    Ok(())
}

fn wait_quiet(node: &Node) -> Result<(i64, i64)> {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut before = status(node)?;
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let now = status(node)?;
        if now == before {
            return Ok(now);
        }
        ensure!(Instant::now() < deadline, "the cache of {} keeps changing", node.name());
        before = now;
    }
}

#[test]
fn the_range_is_the_servers_own_running_loaded_stopped_and_killed() -> Result<()> {
    // Small rings, so that they wrap many times.
    let cluster = Cluster::builder().provider("gcache.size", "4M").build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    data::sysbench_tables(n1, INTENSITY.tables, INTENSITY.rows)?;
    n2.join()?;

    // Not wrapped yet on the joiner, wrapped on the donor or not: both rest.
    for node in [n1, n2] {
        let truth = wait_quiet(node)?;
        assert_eq!(range(&node.datadir())?, truth, "{} idle", node.name());
    }

    let load = Load::start(n1, INTENSITY)?;
    let start = wait_wraps(n1, &load)?;
    let mut moved = 0;
    for round in 0..30 {
        for node in [n1, n2] {
            let before = status(node)?;
            let seen = range(&node.datadir())?;
            let after = status_from(node, seen.1)?;
            let inside = before.0 <= seen.0 && seen.0 <= after.0 && before.1 <= seen.1 && seen.1 <= after.1;
            ensure!(inside, "{} round {round}: {before:?} then {seen:?} then {after:?}", node.name());
            moved += i32::from(before.0 != after.0);
        }
    }
    ensure!(moved > 0, "the ring did not turn while it was read");
    verified(&n1.datadir(), 1)?;
    load.stop()?;
    ensure!(status(n1)?.0 > start, "the ring never wrapped");

    for node in [n1, n2] {
        let truth = wait_quiet(node)?;
        let report = report(&node.datadir())?;
        assert_eq!((number(&report, "first")?, number(&report, "last")?), truth, "{} rests", node.name());
        assert_eq!(report["state"], "running");
        assert_eq!(report["history"], Value::from(node.status("wsrep_cluster_state_uuid")?));
        assert_eq!(
            number(&report, "write_sets")? + number(&report, "configuration_changes")?,
            truth.1 - truth.0 + 1
        );
        assert_eq!(number(&report, "gcache_size")?, 4 << 20);
        assert_eq!(metric(node, "rejoin_gcache_last_seqno")?, Some(truth.1 as f64));
        // A fast machine fills the ring in less than a second, which says nothing of the rate.
        let window = metric(node, "rejoin_gcache_window_seconds")?;
        assert_eq!(window.map(|window| window as i64), report["outage_seconds"].as_i64());
        verified(&node.datadir(), truth.1 - truth.0 + 1)?;
    }

    // Killed: only a scan finds the range, and the server's own recovery finds the same.
    let truth = wait_quiet(n2)?;
    n2.kill();
    let report = report(&n2.datadir())?;
    assert_eq!((number(&report, "first")?, number(&report, "last")?), truth, "killed");
    assert_eq!(report["state"], "crashed");
    verified(&n2.datadir(), truth.1 - truth.0 + 1)?;
    n2.join()?;
    n2.wait_log(&format!("found gapless sequence {}-{}", truth.0, truth.1), Duration::from_secs(1))?;

    // Stopped cleanly: the last thing in it is what was there before the others saw it leave.
    let truth = wait_quiet(n2)?;
    n2.stop()?;
    let (first, last) = range(&n2.datadir())?;
    assert_eq!((first, last), (truth.0, n2.grastate()?.seqno), "stopped");
    assert_eq!(last, truth.1);
    assert_eq!(self::report(&n2.datadir())?["state"], "closed");
    n2.join()?;
    n2.wait_log(&format!("found gapless sequence {first}-{last}"), Duration::from_secs(1))
}

/// Waits until the ring has dropped something, and answers where it began before.
fn wait_wraps(node: &Node, load: &Load) -> Result<i64> {
    let start = status(node)?.0;
    let deadline = Instant::now() + Duration::from_secs(60);
    while status(node)?.0 == start {
        ensure!(Instant::now() < deadline, "no wrap after {} commits", load.commits());
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(start)
}

/// The server's range once it has committed what the files held: they get a write-set before that.
fn status_from(node: &Node, seqno: i64) -> Result<(i64, i64)> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let now = status(node)?;
        if now.1 >= seqno {
            return Ok(now);
        }
        ensure!(Instant::now() < deadline, "{}: {now:?}, the files held {seqno}", node.name());
    }
}

#[test]
fn members_events_and_large_transactions() -> Result<()> {
    let cluster =
        Cluster::builder().provider("gcache.size", "4M").provider("gcache.page_size", "8M").build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    n1.exec(&[
        "CREATE DATABASE d",
        "CREATE TABLE d.t (a INT PRIMARY KEY, b VARCHAR(40), c LONGTEXT) ENGINE=InnoDB",
        "INSERT INTO d.t VALUES (1, 'HELLO', '')",
        "UPDATE d.t SET b='WORLD' WHERE a=1",
    ])?;
    let update = status(n1)?.1;
    n2.join()?;
    let truth = wait_quiet(n1)?;
    let at = n1.datadir();
    let whole = report(&at)?;

    // Each member's lowest seqno at the last change: what the donor's own server says of itself.
    let change = whole["changes"].as_array().and_then(|all| all.last()).context("no change")?;
    let members = change["members"].as_array().context("no members")?;
    let of = |name: &str| members.iter().find(|member| member["name"] == name).context(name.to_owned());
    assert_eq!(members.len(), 2);
    assert_eq!(of("n1")?["lowest_cached"], Value::from(truth.0));
    assert_eq!(of("n1")?["state"], "Synced");
    assert!(of("n2")?["lowest_cached"].is_null(), "{change}");

    // Rows and statements, decoded by the server's own tool.
    let rows = decoded(n1, update)?;
    for line in ["### UPDATE `d`.`t`", "###   @2='HELLO'", "###   @2='WORLD'"] {
        ensure!(rows.contains(line), "no {line:?} in\n{rows}");
    }
    let ddl = decoded(n1, update - 2)?;
    ensure!(ddl.contains("CREATE TABLE d.t"), "{ddl}");
    let list = rejoin(&[&at.to_string_lossy(), "--list"])?;
    assert_eq!(list.lines().count() as i64, truth.1 - truth.0 + 1);
    ensure!(list.contains("Annotate_rows,Table_map,Update_rows"), "{list}");
    let missing = rejoin(&[&at.to_string_lossy(), "--events", "999999"]);
    ensure!(format!("{:#}", missing.unwrap_err()).contains("no seqno 999999"));

    // A transaction that does not fit into half the ring: it goes to a page, which is kept.
    for node in [n1, n2] {
        node.exec(&["SET GLOBAL wsrep_provider_options='gcache.keep_pages_size=64M'"])?;
    }
    // A rate needs some write-sets and some time.
    for row in 10..20 {
        n1.exec(&[&format!("INSERT INTO d.t VALUES ({row}, 'small', '')")])?;
        std::thread::sleep(Duration::from_millis(150));
    }
    n1.exec(&["INSERT INTO d.t VALUES (2, 'large', REPEAT('x', 3000000))"])?;
    // It is in the cache before it is applied, which takes a while on a busy machine.
    compare::wait_caught_up(n1, n2, Duration::from_secs(30))?;
    let at = n2.datadir();
    let truth = wait_quiet(n2)?;
    let whole = report(&at)?;
    assert_eq!((number(&whole, "first")?, number(&whole, "last")?), truth, "with a page: {whole}");
    assert_eq!(whole["pages"][0]["in_use"], true);
    assert_eq!(whole["pages"][0]["last"], Value::from(truth.1));
    ensure!(number(&whole, "largest_action")? > 3_000_000);
    let text = rejoin(&["size", &at.to_string_lossy(), "--outage", "2h"]);
    let text = format!("{text:?}");
    ensure!(
        text.contains("more than half the ring") && text.contains("for an outage of 2 h 0 min"),
        "{text}"
    );
    verified(&at, truth.1 - truth.0 + 1)?;

    // Killed, the page is an orphan: the next server does not read it, and we do not count it either.
    n2.kill();
    let whole = report(&at)?;
    assert_eq!(whole["pages"][0]["in_use"], false);
    let (first, last) = (number(&whole, "first")?, number(&whole, "last")?);
    assert_eq!(last, truth.1 - 1);
    n2.join()?;
    n2.wait_log(&format!("found gapless sequence {first}-{last}"), Duration::from_secs(1))
}

#[test]
fn write_sets_that_failed_certification_are_counted_as_the_servers_count_them() -> Result<()> {
    let cluster = Cluster::builder().build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    // So few rows that two writers cannot but meet.
    let few = Intensity { threads: 4, tables: 1, rows: 40, pause: Duration::from_millis(1) };
    data::sysbench_tables(n1, few.tables, few.rows)?;
    n2.join()?;
    let loads = [Load::start(n1, few)?, Load::start(n2, few)?];
    std::thread::sleep(Duration::from_secs(4));
    loads.into_iter().try_for_each(|load| load.stop().map(drop))?;
    let failures = |node: &Node| Ok::<i64, anyhow::Error>(node.status("wsrep_local_cert_failures")?.parse()?);
    wait_quiet(n1)?;
    wait_quiet(n2)?;
    let failed = failures(n1)? + failures(n2)?;
    ensure!(failed > 0, "the writers never met");
    let report = report(&n1.datadir())?;
    assert_eq!(number(&report, "first")?, 1, "nothing was overwritten: {report}");
    assert_eq!(number(&report, "skipped")?, failed);
    Ok(())
}

#[test]
fn what_only_memory_holds_is_said_to_be_unseen() -> Result<()> {
    let cluster = Cluster::builder().nodes(1).build()?;
    let n1 = cluster.node(1);
    n1.bootstrap()?;
    let in_files = wait_quiet(n1)?;
    n1.exec(&[
        "SET GLOBAL wsrep_provider_options='gcache.mem_size=32M'",
        "CREATE DATABASE d",
        "CREATE TABLE d.t (a INT PRIMARY KEY) ENGINE=InnoDB",
        "INSERT INTO d.t VALUES (1)",
    ])?;
    assert_eq!(wait_quiet(n1)?.1, in_files.1 + 3);
    assert_eq!(range(&n1.datadir())?, in_files, "what came later is in no file");
    let text = rejoin(&[&n1.datadir().to_string_lossy()])?;
    let line = text.lines().find(|line| line.starts_with("unseen")).context("nothing is unseen?")?;
    ensure!(line.contains("gcache.mem_size"), "{text}");
    Ok(())
}

/// What `mariadb-binlog` makes of the events of a write-set.
fn decoded(node: &Node, seqno: i64) -> Result<String> {
    let file = node.dir().join(format!("events.{seqno}"));
    let mut command = Command::new(places::rejoin_binary()?);
    command.arg("gcache").arg(node.datadir()).arg(format!("--events={seqno}"));
    let out = command.output().context("rejoin gcache --events")?;
    ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    std::fs::write(&file, out.stdout)?;
    let mut command = Command::new(places::program("mariadb-binlog")?);
    command.args(["-v", "--base64-output=DECODE-ROWS"]).arg(&file);
    process::run(command, Duration::from_secs(30))
}
