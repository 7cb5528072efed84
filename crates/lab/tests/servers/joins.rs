//! The main job: a node joins a cluster that goes on writing and changing tables, whatever its datadir was before.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Result, ensure};
use fastrand::Rng;
use rejoin_lab::ddl::{Repertoire, Storm};
use rejoin_lab::failed_ddl::{APPLIER_ERROR, FailedDdl};
use rejoin_lab::load::{Intensity, Load, Sysbench};
use rejoin_lab::states::{Foreign, JoinerState};
use rejoin_lab::{Cluster, Node, compare, data, process, sample_schema, sst};

const TABLES: u32 = 4;
const ROWS: u32 = 10_000;

#[test]
fn any_datadir_joins_under_load_and_ddl_from_another_member() -> Result<()> {
    // n1 gives, n2 joins, n3 changes tables.
    let cluster = Cluster::builder().nodes(3).mysqld_of(2, "wsrep_sst_donor=n1").build()?;
    let (n1, n2, n3) = (cluster.node(1), cluster.node(2), cluster.node(3));
    let foreign = Foreign::make()?;
    n1.bootstrap()?;
    sample_schema::create(n1)?;
    data::sysbench_tables(n1, TABLES, ROWS)?;
    n3.wipe()?;
    n3.join()?;
    let mut rng = Rng::with_seed(7);
    for state in JoinerState::ALL {
        n2.prepare(state, &foreign, &mut rng)?;
        let mark = n3.log_mark();
        join_under_load(n1, n2, n3, rng.u64(..))?;
        compare::assert_equal(n1, n2).map_err(|e| e.context(format!("joiner {state:?}")))?;
        sst::assert_not_behind(n1, n2)?;
        assert_eq!(n2.unexpected_errors(&[APPLIER_ERROR]), Vec::<String>::new(), "{state:?}");
        // The storm also runs what cannot work.
        let sent = FailedDdl::of(&n3.log_since(mark));
        assert_eq!(sent.objection(&FailedDdl::of(&n2.log_since_start()), false), None, "{state:?}");
        n2.wait_tidy()?;
        assert_eq!(n2.sst_processes(), []);
        n2.stop()?;
        ensure!(n2.innochecksum()? > 20, "tablespaces were checked");
    }

    // What was joined by files alone is a member like any other.
    n2.join()?;
    read_and_write(&[n1, n2], Duration::from_secs(10))?;
    compare::assert_equal(n1, n2)
}

fn join_under_load(donor: &Node, joiner: &Node, other: &Node, seed: u64) -> Result<()> {
    let repertoire = Repertoire::Alone { sysbench_tables: TABLES };
    let storm = Storm { seed, every: Duration::from_millis(100), repertoire }.start(other)?;
    let sysbench = Sysbench::start(donor, TABLES, ROWS, 2)?;
    let joined = joiner.join();
    let (tps, storm) = (sysbench.stop()?, storm.stop()?);
    joined?;
    ensure!(tps > 0.0 && storm.done > 0, "there was no load: {tps} tps, {storm:?}");
    ensure!(
        joiner.log_since_start().contains("Running: 'wsrep_sst_rejoin --role 'joiner'"),
        "{} did not ask for a transfer",
        joiner.name()
    );
    Ok(())
}

/// sysbench `oltp_read_write` on all nodes at once.
fn read_and_write(nodes: &[&Node], time: Duration) -> Result<()> {
    let runs = nodes.iter().map(|node| {
        let mut command = data::sysbench(node, "oltp_read_write", TABLES, ROWS)?;
        command.args(["--threads=2", &format!("--time={}", time.as_secs())]);
        // Two writers on one table collide by design.
        command.args(["--mysql-ignore-errors=1213,1205,1020", "run"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(process::spawn(command)?)
    });
    let mut runs = runs.collect::<Result<Vec<_>>>()?;
    for run in &mut runs {
        let status = process::wait(run, time + Duration::from_secs(30))?;
        ensure!(status.is_some_and(|s| s.success()), "sysbench ended with {status:?}");
    }
    Ok(())
}

#[test]
fn a_donor_that_rejects_queries_and_runs_events_serves() -> Result<()> {
    let cluster = Cluster::builder()
        .nodes(2)
        .mysqld("wsrep_sst_donor_rejects_queries=ON")
        .mysqld_of(1, "event_scheduler=ON")
        .build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    data::sysbench_tables(n1, 2, 5000)?;
    n1.exec(&[
        "CREATE TABLE sbtest.ticks (a INT AUTO_INCREMENT PRIMARY KEY, t TIMESTAMP(6)) ENGINE=InnoDB",
        "CREATE EVENT sbtest.tick ON SCHEDULE EVERY 1 SECOND DO INSERT INTO sbtest.ticks (t) VALUES (NOW(6))",
    ])?;
    n2.wipe()?;
    let intensity = Intensity { threads: 2, tables: 2, rows: 5000, pause: Duration::from_millis(2) };
    let load = Load::start(n1, intensity)?;
    n2.join()?;
    let load = load.stop()?;
    ensure!(load.commits > 0, "{load:?}");
    n1.wait_synced_again(Duration::from_secs(10))?;
    // The scheduler goes on, and only where it is on.
    let before: u64 = n1.value("SELECT COUNT(*) FROM sbtest.ticks")?.parse()?;
    std::thread::sleep(Duration::from_millis(2500));
    let after: u64 = n1.value("SELECT COUNT(*) FROM sbtest.ticks")?.parse()?;
    ensure!(before < after, "events: {before}, then {after}");
    n1.exec(&["SET GLOBAL event_scheduler=OFF"])?;
    compare::assert_equal(n1, n2)?;
    sst::assert_not_behind(n1, n2)?;
    assert_eq!(n2.unexpected_errors(&[]), Vec::<String>::new());
    Ok(())
}
