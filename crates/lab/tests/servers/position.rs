//! The position computed from the files of a server that ended in any way is the one the server itself recovers.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rejoin_lab::ddl::{Repertoire, Storm};
use rejoin_lab::load::{Intensity, Load};
use rejoin_lab::{Cluster, Node, Position, data};
use transfer::datadir::recovered_position::{Gap, InnodbFiles, Recovered, Unknown, recovered_position};

/// Rounds of the long test; `REJOIN_KILLS` says otherwise.
fn kills(normally: u64) -> u64 {
    std::env::var("REJOIN_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(normally)
}

fn alone(lines: &[&str]) -> Result<Cluster> {
    let one = Cluster::builder().nodes(1).method("rsync");
    lines.iter().fold(one, |builder, line| builder.mysqld(line)).build()
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
    let Recovered::Known(position) = &computed else {
        anyhow::bail!("{computed:?}, recovered {recovered:?}")
    };
    let (uuid, seqno) = (position.state.uuid.to_string(), position.state.seqno.0);
    ensure!(
        (uuid.as_str(), seqno) == (&recovered.uuid, recovered.seqno),
        "{position:?}, recovered {recovered:?}"
    );
    Ok(recovered)
}

/// Kills a node while it is written to and has DDL, again and again. Every second life goes on where the last ended,
/// the others begin a new history, as an operator's new cluster does: then the server clears the old positions.
fn killed(node: &Node, rounds: u64) -> Result<()> {
    let mut last: Option<Position> = None;
    for round in 0..rounds {
        let goes_on =
            last.filter(|_| round % 2 == 1).map(|p| format!("--wsrep-start-position={}:{}", p.uuid, p.seqno));
        let words: Vec<&str> = ["--wsrep-new-cluster"].into_iter().chain(goes_on.as_deref()).collect();
        node.begin(&words)?;
        node.wait_synced(Duration::from_secs(60))?;
        if round == 0 {
            data::sysbench_tables(node, 2, 2000)?;
        }
        let load = Load::start(node, Intensity { threads: 8, tables: 2, rows: 2000, pause: Duration::ZERO })?;
        let storm = Storm {
            seed: round + 1,
            every: Duration::from_millis(40),
            repertoire: Repertoire::Alone { sysbench_tables: 0 },
        }
        .start(node)?;
        std::thread::sleep(Duration::from_millis(400 + round * 137 % 900));
        node.kill();
        let commits = load.stop()?.commits;
        storm.stop()?;
        ensure!(commits > 20, "only {commits} commits before the kill");
        last = Some(agree(node).with_context(|| format!("kill {round}"))?);
        allow_bootstrap(node)?;
    }
    Ok(())
}

/// A node that was killed does not start a new cluster unless told that it may.
fn allow_bootstrap(node: &Node) -> Result<()> {
    let path = node.datadir().join("grastate.dat");
    let text = fs::read_to_string(&path)?.replace("safe_to_bootstrap: 0", "safe_to_bootstrap: 1");
    fs::write(path, text).context("grastate.dat")
}

#[test]
fn of_a_killed_server() -> Result<()> {
    let cluster = alone(&["innodb_undo_tablespaces=3", "innodb_undo_log_truncate=ON"])?;
    let node = cluster.node(1);
    killed(node, kills(2))?;
    node.bootstrap()?;
    node.stop()?;
    agree(node)?;
    Ok(())
}

/// The other page sizes and checksums, without undo tablespaces, with a replication GTID beside the position.
#[test]
fn in_other_formats() -> Result<()> {
    let small = [
        "innodb_page_size=4k",
        "innodb_checksum_algorithm=crc32",
        "innodb_undo_tablespaces=0",
        "wsrep_gtid_mode=ON",
    ];
    for lines in [&small[..], &["innodb_page_size=64k", "innodb_strict_mode=OFF", "innodb_log_file_size=8M"]]
    {
        let cluster = alone(lines)?;
        killed(cluster.node(1), kills(1)).with_context(|| format!("{lines:?}"))?;
    }
    Ok(())
}

/// What cannot be read is not guessed.
#[test]
fn of_an_encrypted_server() -> Result<()> {
    let cluster = alone(&[])?;
    let node = cluster.node(1);
    let keys = cluster.dir().join("keys.txt");
    fs::write(&keys, "1;770A8A65DA156D24EE2A093277530142\n")?;
    let filename = format!("file_key_management_filename={}", keys.display());
    node.add_options("mysqld", &["plugin_load_add=file_key_management", &filename, "innodb_encrypt_log=ON"])?;
    node.bootstrap()?;
    data::sysbench_tables(node, 1, 500)?;
    node.kill();
    let (computed, recovered) = both(node, false)?;
    ensure!(matches!(computed, Recovered::Unknown(Unknown::EncryptedRedo(_))), "{computed:?}, {recovered:?}");
    allow_bootstrap(node)?;
    // After a clean end the pages alone say it.
    node.bootstrap()?;
    node.stop()?;
    agree(node)?;

    node.add_options(
        "mysqld",
        &["innodb_encrypt_tables=ON", "innodb_encryption_threads=2", "innodb_encrypt_log=OFF"],
    )?;
    node.bootstrap()?;
    let left = "SELECT COUNT(*) FROM information_schema.INNODB_TABLESPACES_ENCRYPTION WHERE MIN_KEY_VERSION=0 OR ROTATING_OR_FLUSHING=1";
    let began = Instant::now();
    while node.value(left)? != "0" {
        ensure!(began.elapsed() < Duration::from_secs(60), "the tablespaces are not encrypted");
        std::thread::sleep(Duration::from_millis(100));
    }
    node.stop()?;
    let (computed, recovered) = both(node, false)?;
    ensure!(
        matches!(computed, Recovered::Unknown(Unknown::Page(_, Gap::Encrypted))),
        "{computed:?}, {recovered:?}"
    );
    Ok(())
}

/// With a binary log the server asks that: either nothing was prepared, or the answer is "unknown".
#[test]
fn with_a_binary_log() -> Result<()> {
    let cluster = alone(&["log_bin=binlog", "log_slave_updates=ON"])?;
    let node = cluster.node(1);
    node.bootstrap()?;
    data::sysbench_tables(node, 1, 2000)?;
    let load = Load::start(node, Intensity { threads: 4, tables: 1, rows: 2000, pause: Duration::ZERO })?;
    std::thread::sleep(Duration::from_millis(800));
    node.kill();
    load.stop()?;
    match both(node, true)? {
        (Recovered::Known(position), recovered) => assert_eq!(position.state.seqno.0, recovered.seqno),
        (Recovered::Unknown(Unknown::BinlogDecides), _) => {}
        other => panic!("{other:?}"),
    }
    allow_bootstrap(node)?;
    node.bootstrap()?;
    node.stop()?;
    let (computed, recovered) = both(node, true)?;
    ensure!(
        matches!(computed, Recovered::Known(p) if p.state.seqno.0 == recovered.seqno),
        "{computed:?}, {recovered:?}"
    );
    Ok(())
}
