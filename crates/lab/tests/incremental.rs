//! A joiner that has most of what the donor has receives little, and is the same in the end whatever it had.
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rejoin_lab::progress::StatusReader;
use rejoin_lab::{Cluster, Node, compare, data, sst, zoo};

const TABLES: u32 = 4;
const ROWS: u32 = 30_000;

#[test]
fn only_what_changed_travels_from_either_source() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).sst("compress=zstd").build()?;
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    donor.bootstrap()?;
    zoo::create(donor)?;
    data::sysbench_tables(donor, TABLES, ROWS)?;
    joiner.join()?;
    let full = sent(joiner)?;
    write_pages(donor)?;
    for source in ["native", "frozen"] {
        set_source(donor, source)?;
        joiner.stop()?;
        // Only a few rows of one table, and a table more.
        donor.exec(&[
            "USE sbtest",
            "UPDATE sbtest1 SET c = 'changed' WHERE id BETWEEN 100 AND 120",
            &format!("CREATE TABLE of_{source} (a INT PRIMARY KEY) SELECT seq a FROM seq_1_to_1000"),
        ])?;
        joiner.remove_grastate()?;
        joiner.join()?;
        sst::assert_source(joiner, source)?;
        let little = sent(joiner)?;
        // The frozen source sends the whole redo log.
        let enough = little.same > little.all / 4 * 3 && (source == "frozen" || little.wire < full.wire / 2);
        ensure!(enough, "{source}: {little:?}, all were {full:?}\n{}", rejoin_words(joiner));
        compare::assert_equal(donor, joiner)?;
        joiner.wait_tidy()?;
    }
    // The operator can have everything sent.
    joiner.stop()?;
    joiner.add_options("sst", &["incremental=0"])?;
    joiner.remove_grastate()?;
    joiner.join()?;
    ensure!(!joiner.log_since_start().contains("incremental:"));
    compare::assert_equal(donor, joiner)
}

#[test]
fn rot_in_the_joiners_files_is_healed() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).build()?;
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    donor.bootstrap()?;
    data::sysbench_tables(donor, TABLES, ROWS)?;
    joiner.join()?;
    joiner.stop()?;
    let table = joiner.datadir().join("sbtest/sbtest2.ibd");
    let file = File::options().read(true).write(true).open(&table)?;
    // A page of zeros, one of something else, a byte, and a tail.
    file.write_all_at(&[0; 16384], 7 << 14)?;
    file.write_all_at(&[0xa5; 16384], 20 << 14)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, (30 << 14) + 5000)?;
    file.write_all_at(&[byte[0] ^ 0x10], (30 << 14) + 5000)?;
    file.set_len(file.metadata()?.len() + 65536)?;
    drop(file);
    // And one that is cut short, one that is gone.
    let cut = joiner.datadir().join("sbtest/sbtest3.ibd");
    let file = File::options().write(true).open(&cut)?;
    file.set_len(file.metadata()?.len() / 2)?;
    std::fs::remove_file(joiner.datadir().join("sbtest/sbtest4.ibd"))?;
    joiner.remove_grastate()?;
    joiner.join()?;
    compare::assert_equal(donor, joiner)?;
    joiner.stop()?;
    ensure!(joiner.innochecksum()? > 4, "tablespaces were checked");
    donor.stop()?;
    for name in ["sbtest1", "sbtest2", "sbtest3", "sbtest4"] {
        same_length(donor, joiner, &PathBuf::from(format!("sbtest/{name}.ibd")))?;
    }
    Ok(())
}

#[test]
fn a_broken_transfer_is_gone_on_with() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).build()?;
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    donor.bootstrap()?;
    data::sysbench_tables(donor, TABLES, 2 * ROWS)?;
    write_pages(donor)?;
    joiner.wipe()?;
    donor.add_options("sst", &["rlimit=8M", "compress=none"])?;
    joiner.begin(&[])?;
    let status = StatusReader::of(joiner);
    let until = Instant::now() + Duration::from_secs(60);
    while status.read().is_none_or(|s| s.wire_bytes < Some(30 << 20)) {
        ensure!(Instant::now() < until, "30 MB did not come: {:?}", status.read());
        std::thread::sleep(Duration::from_millis(100));
    }
    joiner.kill();
    joiner.wait_exit(Duration::from_secs(20)).context("the joiner's server goes on")?;
    donor.wait_synced_again(Duration::from_secs(30))?;
    let staged = std::fs::read_dir(joiner.datadir().join(".rejoin/stage")).context("what had come")?.count();
    ensure!(staged > 0, "nothing of what had come is left");
    // What was sent meanwhile is changed, in part.
    donor.exec(&["USE sbtest", "UPDATE sbtest1 SET c = 'changed' WHERE id < 100"])?;
    donor.add_options("sst", &["rlimit=4G"])?;
    joiner.join()?;
    let received = sent(joiner)?.received;
    ensure!(
        received > 15 << 20,
        "{received} bytes of {staged} files were used again\n{}",
        rejoin_words(joiner)
    );
    compare::assert_equal(donor, joiner)?;
    joiner.wait_tidy()?;
    joiner.stop()?;
    ensure!(joiner.innochecksum()? > 4, "tablespaces were checked");
    Ok(())
}

/// Redo that is not in the files yet would travel too.
fn write_pages(donor: &Node) -> Result<()> {
    donor.exec(&["SET GLOBAL innodb_max_dirty_pages_pct = 0"])?;
    let until = Instant::now() + Duration::from_secs(30);
    while donor.status("Innodb_checkpoint_age")?.parse::<u64>()? > 1 << 20 {
        ensure!(Instant::now() < until, "the donor does not write its pages");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn same_length(a: &Node, b: &Node, path: &PathBuf) -> Result<()> {
    let len = |node: &Node| Ok::<_, anyhow::Error>(node.datadir().join(path).metadata()?.len());
    ensure!(len(a)? == len(b)?, "{} is not as long on both", path.display());
    Ok(())
}

fn set_source(donor: &Node, source: &str) -> Result<()> {
    donor.add_options("sst", &[&format!("source={source}")])
}

/// What our program says in a node's log.
fn rejoin_words(node: &Node) -> String {
    let log = node.log_since_start();
    log.lines().filter(|line| line.contains("WSREP_SST")).map(|line| format!("{line}\n")).collect()
}

#[derive(Debug)]
struct Sent {
    /// Bytes of the files.
    all: u64,
    /// Bytes on the network.
    wire: u64,
    /// Bytes that the joiner had.
    same: u64,
    /// Those of them that a broken transfer had brought.
    received: u64,
}

/// From the joiner's error log since its start.
fn sent(joiner: &Node) -> Result<Sent> {
    let log = joiner.log_since_start();
    let line = |with: &str| log.lines().find(|line| line.contains(with)).map(str::to_owned);
    let number = |text: &str, before: &str| -> Option<u64> {
        text.split_once(before)?.0.rsplit(' ').next()?.parse().ok()
    };
    let received = line("on the network;").context("no line about what was received")?;
    let all = number(&received, " bytes as").context("no number of bytes")?;
    let wire = number(&received, " on the network").context("no number of bytes")?;
    let same =
        line(" bytes were here already").and_then(|line| number(&line, " bytes were here")).unwrap_or(0);
    let received =
        line(" of them from a transfer").and_then(|line| number(&line, " of them from")).unwrap_or(0);
    Ok(Sent { all, wire, same, received })
}
