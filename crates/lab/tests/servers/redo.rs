//! Redo is a part of the price: what a newer checkpoint makes needless is not sent, and a limit holds for all that is.
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rejoin_lab::load::{Intensity, Load};
use rejoin_lab::progress::{Sent, StatusReader, sent};
use rejoin_lab::{Cluster, Node, compare, data};

const TABLES: u32 = 4;
/// What the account needs in any case.
const PLAIN: &str = "GRANT RELOAD, PROCESS, BINLOG MONITOR ON *.* TO sst@localhost IDENTIFIED BY 'x'";

/// A joiner that has everything but three rows, of a donor whose log holds tens of megabytes since its checkpoint.
#[test]
fn three_rows_and_a_large_log() -> Result<()> {
    let builder = Cluster::builder().nodes(2).sst("compress=none").sst_of(1, "wsrep-sst-auth=sst:x");
    let builder = builder.mysqld("innodb_log_file_size=512M").mysqld("innodb_buffer_pool_size=256M");
    let cluster = builder.build()?;
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    donor.bootstrap()?;
    donor.exec(&[PLAIN])?;
    data::sysbench_tables(donor, TABLES, 60_000)?;
    donor.checkpoint()?;
    for table in 1..=TABLES {
        donor.exec(&[&format!("UPDATE sbtest.sbtest{table} SET c = REVERSE(c), k = k + 1")])?;
    }
    let waits = waits(donor)?;
    ensure!(waits > 40 << 20, "there are {waits} bytes of redo since the checkpoint");
    joiner.join()?;
    said(donor, "cannot request a checkpoint: Access denied")?;
    joiner.wait_tidy()?;

    // The right is missing: all of the redo is sent, and that is said.
    let dear = three_rows(donor, joiner, 1)?;
    let with_redo = total(donor, joiner)?;
    for log in [donor.log_text(), joiner.log_since_start()] {
        ensure!(log.contains("MiB to send, about ") && log.contains("account lacks SUPER"), "{log}");
    }
    ensure!(dear.wire > waits / 2, "{dear:?}, {waits} bytes of redo");
    ensure!(joiner.log_since_start().contains("GRANT SUPER ON *.* TO"), "{}", joiner.log_since_start());

    donor.exec(&["GRANT SUPER ON *.* TO sst@localhost"])?;
    let cheap = three_rows(donor, joiner, 2)?;
    let without = total(donor, joiner)?;
    let log = joiner.log_since_start();
    ensure!(log.contains("the donor will ask its server for a checkpoint (1 round)"), "{log}");
    ensure!(log.contains("says: the server is asked for a checkpoint: "), "{log}");
    figures(&format!(
        "redo since the checkpoint: {waits}, sent without SUPER: {dear:?}, with it: {cheap:?}"
    ))?;
    ensure!(cheap.wire < waits / 10, "{cheap:?}, {waits} bytes of redo:\n{}", words_of(donor));
    // Hardly any page was read again, or more would have been sent.
    ensure!(with_redo > without + waits / 2, "{with_redo} bytes with {waits} of redo, {without} without");
    said(donor, "the server is asked for a checkpoint")
}

fn three_rows(donor: &Node, joiner: &Node, id: u32) -> Result<Sent> {
    joiner.stop()?;
    donor.exec(&[&format!("UPDATE sbtest.sbtest1 SET c = 'changed' WHERE id BETWEEN {id}00 AND {id}02")])?;
    joiner.remove_grastate()?;
    joiner.join()?;
    let sent = sent(joiner)?;
    compare::assert_equal(donor, joiner)?;
    joiner.wait_tidy()?;
    Ok(sent)
}

/// A donor that writes redo at a rate, and a limit below it: the transfer ends, and nothing is sent beyond the limit.
#[test]
fn a_limit_below_the_rate_of_the_redo_is_kept_and_the_transfer_ends() -> Result<()> {
    let builder = Cluster::builder().nodes(2).sst("compress=none").mysqld("innodb_log_file_size=12M");
    let cluster = builder.build()?;
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    donor.bootstrap()?;
    let rows = 5_000;
    data::sysbench_tables(donor, TABLES, rows)?;
    for part in [0.3, 1.0] {
        joiner.wipe()?;
        let load = Intensity { threads: 2, tables: TABLES, rows, pause: Duration::ZERO };
        let load = Load::start(donor, load)?;
        std::thread::sleep(Duration::from_secs(1));
        let rate = redo_rate(donor, Duration::from_secs(2))?;
        let limit = (rate * part) as u64;
        donor.add_options("sst", &[&format!("rlimit={limit}")])?;
        let began = Instant::now();
        let mark = donor.log_mark();
        let joined = joiner.join();
        let (took, rate) = (began.elapsed(), redo_rate(donor, Duration::from_secs(1))?);
        load.stop()?;
        joined?;
        let sent = sent(joiner)?;
        let seconds = seconds_of(&donor.log_since(mark))?;
        figures(&format!(
            "{part} of {rate:.0} B/s: limit {limit}, {sent:?} in {seconds} s, joined in {took:?}"
        ))?;
        // The handshakes and what TLS adds are not counted.
        let most = limit as f64 * (seconds + 0.2) * 1.1 + f64::from(1 << 20);
        ensure!((sent.wire as f64) < most, "{sent:?} in {seconds} s with a limit of {limit}");
        compare::assert_equal(donor, joiner)?;
        joiner.wait_tidy()?;
        joiner.stop()?;
    }
    Ok(())
}

/// The operator's limit of time ends what would take too long, on both hosts by its name.
#[test]
fn a_transfer_that_takes_too_long_is_ended() -> Result<()> {
    let options = ["rlimit=200k", "compress=none", "max-time=5"];
    let builder = options.iter().fold(Cluster::builder().nodes(2), |builder, line| builder.sst_of(1, line));
    let cluster = builder.build()?;
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    donor.bootstrap()?;
    joiner.wipe()?;
    let refused = joiner.fail_to_join()?;
    let why = "the transfer took longer than max-time=5 under [sst] on this node allows";
    ensure!(refused.contains(why), "{refused}");
    said(donor, why)
}

/// Bytes that the progress of the last transfer was of, which both hosts agree on.
fn total(donor: &Node, joiner: &Node) -> Result<u64> {
    let [ours, theirs] =
        [donor, joiner].map(|node| StatusReader::of(node).read().map(|status| status.total_bytes));
    ensure!(ours == theirs, "the donor counts {ours:?} bytes, the joiner {theirs:?}");
    ours.context("no status")
}

/// Bytes of redo since the checkpoint.
fn waits(node: &Node) -> Result<u64> {
    let number = |name: &str| -> Result<u64> { Ok(node.status(name)?.parse()?) };
    Ok(number("Innodb_lsn_current")? - number("Innodb_lsn_last_checkpoint")?)
}

/// Bytes of redo that are written a second.
fn redo_rate(node: &Node, during: Duration) -> Result<f64> {
    let lsn = || -> Result<f64> { Ok(node.status("Innodb_lsn_current")?.parse()?) };
    let (began, from) = (Instant::now(), lsn()?);
    std::thread::sleep(during);
    Ok((lsn()? - from) / began.elapsed().as_secs_f64())
}

/// What the programs said to this node's log.
fn words_of(node: &Node) -> String {
    let log = node.log_text();
    log.lines().filter(|line| line.contains("WSREP_SST")).collect::<Vec<_>>().join("\n")
}

/// How long the donor's program says that it took.
fn seconds_of(log: &str) -> Result<f64> {
    let line = log.lines().find(|line| line.contains(" on the network in ")).context("no line of totals")?;
    let text = line.split_once(" on the network in ").and_then(|(_, rest)| rest.split(' ').next());
    Ok(text.context("no seconds")?.parse()?)
}

fn said(node: &Node, text: &str) -> Result<()> {
    let log = node.log_text();
    ensure!(log.contains(text), "{} does not say {text:?}:\n{log}", node.name());
    Ok(())
}

/// Prints the measurements; shown if a test is run with `--nocapture`.
fn figures(text: &str) -> Result<()> {
    writeln!(std::io::stderr(), "{text}").context("stderr")
}
