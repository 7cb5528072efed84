//! The position computed from the files of a server that ended in any way is the one the server itself recovers.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rejoin_lab::ddl::Storm;
use rejoin_lab::load::{Intensity, Load};
use rejoin_lab::{Cluster, Node, Position, data};
use node::datadir::recovered_position::{InnodbFiles, Recovered, Unknown, recovered_position};

/// Rounds of the long test; `REJOIN_KILLS` says otherwise.
fn kills(normally: u64) -> u64 {
    std::env::var("REJOIN_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(normally)
}

fn alone(lines: &[&str]) -> Result<Cluster> {
    let builder = lines.iter().fold(Cluster::builder().nodes(1), |builder, line| builder.mysqld(line));
    builder.build()
}

fn files(node: &Node, binlog: bool) -> Result<InnodbFiles> {
    let data = node.datadir();
    let names = fs::read_dir(&data)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names = names.collect::<Result<Vec<_>>>()?;
    let undo = names.iter().filter(|name| name.starts_with("undo")).map(|name| data.join(name)).collect();
    Ok(InnodbFiles { system: vec![data.join("ibdata1")], undo, redo: data.join("ib_logfile0"), binlog })
}

/// What the files of a node that is down say, and what its server does.
fn both(node: &Node, binlog: bool) -> Result<(Recovered, Position)> {
    let computed = recovered_position(&files(node, binlog)?)?;
    Ok((computed, node.recover_position()?))
}

fn agree(node: &Node) -> Result<Position> {
    let (computed, recovered) = both(node, false)?;
    let Recovered::Known(position) = &computed else { anyhow::bail!("{computed:?}, recovered {recovered:?}") };
    let (uuid, seqno) = (position.state.uuid.to_string(), position.state.seqno.0);
    ensure!((uuid.as_str(), seqno) == (&recovered.uuid, recovered.seqno), "{position:?}, recovered {recovered:?}");
    Ok(recovered)
}

/// Kills a node while it is written to and has DDL, again and again; answers what each kill left.
fn killed(node: &Node, rounds: u64) -> Result<Vec<Position>> {
    let mut seen = Vec::new();
    for round in 0..rounds {
        node.bootstrap()?;
        if round == 0 {
            data::sysbench_tables(node, 2, 2000)?;
        }
        let load = Load::start(node, Intensity { threads: 8, tables: 2, rows: 2000, pause: Duration::ZERO })?;
        let storm = Storm { seed: round + 1, every: Duration::from_millis(40), sysbench_tables: 0 }.start(node)?;
        std::thread::sleep(Duration::from_millis(400 + round * 137 % 900));
        node.kill();
        let commits = load.stop()?.commits;
        storm.stop()?;
        ensure!(commits > 20, "only {commits} commits before the kill");
        let position = agree(node).with_context(|| format!("kill {round}"))?;
        ensure!(seen.last().is_none_or(|last: &Position| last.seqno < position.seqno), "nothing was written");
        seen.push(position);
        allow_bootstrap(node)?;
    }
    Ok(seen)
}

/// A node that was killed does not start a new cluster unless told that it may.
fn allow_bootstrap(node: &Node) -> Result<()> {
    let path = node.datadir().join("grastate.dat");
    let text = fs::read_to_string(&path)?.replace("safe_to_bootstrap: 0", "safe_to_bootstrap: 1");
    fs::write(path, text).context("grastate.dat")
}

#[test]
fn of_a_killed_server() -> Result<()> {
    let cluster = alone(&["innodb_undo_tablespaces=3", "innodb_undo_log_truncate=ON", "innodb_log_file_size=10M"])?;
    let node = cluster.node(1);
    killed(node, kills(2))?;
    node.bootstrap()?;
    node.stop()?;
    agree(node)?;
    Ok(())
}
