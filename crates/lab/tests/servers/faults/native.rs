//! Which snapshot is taken, and what both hosts log about it: rights, settings, corruption, an overrun log, killed sessions.
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rejoin_lab::{Cluster, LogMark, Node, compare};
use rustix::process::Signal;

use super::fake_transfer::SOON;
use super::pair::{Pair, program_pid, set_sst, signal, until, words_of};

const SLOWLY: [&str; 3] = ["rlimit=2M", "compress=none", "incremental=0"];

/// One test, because each case leaves what the next one starts from.
#[test]
fn which_source_serves() -> Result<()> {
    let builder = Cluster::builder().mysqld("log_bin=bin").mysqld("log_slave_updates=ON");
    let mut pair = Pair::new(builder)?;
    rights(&mut pair).context("rights")?;
    settings(&mut pair).context("settings")?;
    corruption(&mut pair).context("corruption")?;
    killed_sessions(&mut pair).context("killed sessions")
}

/// The donor's options for one join.
fn joins_with(pair: &mut Pair, options: &[&str]) -> Result<(LogMark, LogMark)> {
    let marks = (pair.donor().log_mark(), pair.joiner().log_mark());
    pair.begin(options)?;
    pair.joiner().wait_synced(Duration::from_secs(60)).with_context(|| words_of(pair.donor()))?;
    compare::assert_equal(pair.donor(), pair.joiner())?;
    Ok(marks)
}

/// A line that both hosts must have since the marks.
fn both_say(pair: &Pair, marks: (LogMark, LogMark), line: &str) -> Result<()> {
    for (node, mark) in [(pair.donor(), marks.0), (pair.joiner(), marks.1)] {
        // A donor tells its server of a failure a second after the joiner has ended.
        until(line, Duration::from_secs(4), || Ok(node.log_since(mark).contains(line)))
            .with_context(|| format!("{}:\n{}", node.name(), words_of(node)))?;
    }
    Ok(())
}

fn rights(pair: &mut Pair) -> Result<()> {
    pair.donor().exec(&["CREATE USER locked@localhost IDENTIFIED BY 'x' ACCOUNT LOCK"])?;
    let marks = joins_with(pair, &["wsrep-sst-auth=locked:x"])?;
    both_say(pair, marks, "snapshot: blocking (no login to the donor's server: ")?;
    both_say(pair, marks, "ALTER USER 'locked'@'localhost' ACCOUNT UNLOCK;")?;
    pair.donor().exec(&[
        "CREATE USER weak@localhost IDENTIFIED BY 'x'",
        "CREATE USER enough@localhost IDENTIFIED BY 'x'",
        "GRANT RELOAD, BINLOG MONITOR ON *.* TO enough@localhost",
        "CREATE USER mysql@localhost IDENTIFIED VIA unix_socket",
        "GRANT RELOAD, BINLOG MONITOR ON *.* TO mysql@localhost",
    ])?;
    let marks = joins_with(pair, &["wsrep-sst-auth=weak:x"])?;
    both_say(pair, marks, "snapshot: blocking (")?;
    both_say(pair, marks, "GRANT RELOAD, BINLOG MONITOR ON *.* TO `weak`@`localhost`;")?;
    let marks = joins_with(pair, &["wsrep-sst-auth=enough:x"])?;
    both_say(pair, marks, "snapshot: online")?;
    both_say(pair, marks, "the consistency point is at ")?;
    // Without an account, and with one that is gone: the login of the server's own user of the system.
    for auth in ["wsrep-sst-auth=", "wsrep-sst-auth=gone:x"] {
        let marks = joins_with(pair, &[auth])?;
        both_say(pair, marks, "snapshot: online")?;
    }
    Ok(())
}

fn settings(pair: &mut Pair) -> Result<()> {
    let marks = joins_with(pair, &["snapshot=blocking"])?;
    both_say(pair, marks, "snapshot: blocking (snapshot=blocking is set on the donor)")?;
    pair.donor().exec(&["SET GLOBAL wsrep_mode = 'BF_ABORT_MARIABACKUP'"])?;
    let marks = joins_with(pair, &[])?;
    both_say(pair, marks, "snapshot: blocking (wsrep_mode of the donor has BF_ABORT_MARIABACKUP")?;
    let marks = (pair.donor().log_mark(), pair.joiner().log_mark());
    pair.begin(&["snapshot=online"])?;
    pair.joiners_server_ended()?;
    both_say(
        pair,
        marks,
        "the online snapshot is not possible: wsrep_mode of the donor has BF_ABORT_MARIABACKUP",
    )?;
    pair.donor_is_released()?;
    pair.donor().exec(&["SET GLOBAL wsrep_mode = ''"])?;
    let marks = joins_with(pair, &["snapshot=online"])?;
    both_say(pair, marks, "snapshot: online")
}

/// A page that is damaged on the donor's disk goes nowhere, whichever snapshot reads it.
fn corruption(pair: &mut Pair) -> Result<()> {
    pair.donor().exec(&[
        "USE sbtest",
        "CREATE TABLE sbtest.rotten (a INT PRIMARY KEY, b CHAR(200)) ENGINE=InnoDB",
        "INSERT INTO sbtest.rotten SELECT seq, REPEAT('r', 200) FROM seq_1_to_2000",
        "FLUSH TABLES sbtest.rotten FOR EXPORT",
        "UNLOCK TABLES",
    ])?;
    let path = pair.donor().datadir().join("sbtest/rotten.ibd");
    let file = File::options().read(true).write(true).open(path)?;
    let mut good = vec![0; 16384];
    file.read_exact_at(&mut good, 10 * 16384)?;
    file.write_all_at(&[0x5a; 16384], 10 * 16384)?;
    file.sync_all()?;
    for snapshot in ["snapshot=online", "snapshot=blocking"] {
        let marks = (pair.donor().log_mark(), pair.joiner().log_mark());
        pair.begin(&[snapshot])?;
        pair.joiners_server_ended().context(snapshot)?;
        both_say(pair, marks, "sbtest/rotten.ibd page 10")?;
        both_say(pair, marks, "choose another donor")?;
        pair.donor_is_released()?;
    }
    let marks = (pair.donor().log_mark(), pair.joiner().log_mark());
    pair.begin(&["allow-corrupt-pages=1"])?;
    pair.joiner().wait_synced(SOON)?;
    both_say(pair, marks, "sent a corrupt page (allow-corrupt-pages=1)")?;
    ensure!(pair.joiner().value("SELECT COUNT(*) FROM sbtest.sbtest1")? == "3000");
    file.write_all_at(&good, 10 * 16384)?;
    file.sync_all()?;
    pair.donor().exec(&["DROP TABLE sbtest.rotten"])?;
    joins_with(pair, &[]).map(drop)
}

/// The server ends our sessions, as an operator or a proxy does: they are opened again.
fn killed_sessions(pair: &mut Pair) -> Result<()> {
    let marks = (pair.donor().log_mark(), pair.joiner().log_mark());
    pair.begin(&[&["wsrep-sst-auth=enough:x"], &SLOWLY[..]].concat())?;
    pair.wait_for_data()?;
    let ours = "SELECT ID FROM information_schema.PROCESSLIST WHERE USER='enough'";
    let mut killed = 0;
    for session in pair.donor().rows(ours)?.into_iter().flatten() {
        killed += u32::from(pair.donor().exec(&[&format!("KILL CONNECTION {session}")]).is_ok());
    }
    ensure!(killed >= 2, "only {killed} sessions");
    pair.joiner().wait_synced(Duration::from_secs(60))?;
    both_say(pair, marks, "snapshot: online")?;
    ensure!(!pair.donor().log_since(marks.0).contains("snapshot: blocking"), "{}", words_of(pair.donor()));
    compare::assert_equal(pair.donor(), pair.joiner())
}

/// The log comes round while the program is stopped: it begins anew once, and then takes the other snapshot.
#[test]
fn an_overrun_log() -> Result<()> {
    let builder = Cluster::builder().mysqld_of(1, "innodb_log_file_size=8M");
    let mut pair = Pair::new(builder)?;
    let marks = (pair.donor().log_mark(), pair.joiner().log_mark());
    pair.begin(&SLOWLY)?;
    pair.wait_for_data()?;
    overrun(pair.donor())?;
    until("it began anew", SOON, || {
        Ok(pair.joiner().log_since(marks.1).contains("snapshot: online (the server overwrote redo"))
    })?;
    // What the status file says may still be of the first attempt; the log is followed before the first page is read.
    std::thread::sleep(Duration::from_secs(2));
    overrun(pair.donor())?;
    set_sst(pair.donor(), &[])?;
    pair.joiner().wait_synced(Duration::from_secs(120)).with_context(|| words_of(pair.donor()))?;
    both_say(&pair, marks, "snapshot: blocking (the server overwrote redo before it could be read")?;
    both_say(&pair, marks, "innodb_log_file_size=")?;
    compare::assert_equal(pair.donor(), pair.joiner())
}

/// More redo than the log holds while nobody reads it.
fn overrun(donor: &Node) -> Result<()> {
    let pid = program_pid(donor)?;
    signal(donor, Signal::STOP)?;
    let written = || -> Result<u64> { Ok(donor.status("Innodb_lsn_current")?.parse()?) };
    let before = written()?;
    while written()? < before + (10 << 20) {
        donor.exec(&["UPDATE sbtest.sbtest1 SET pad = MD5(RAND()), c = MD5(RAND())"])?;
    }
    rejoin_lab::process::signal(pid, Signal::CONT);
    Ok(())
}

/// A server changes their number at its start only when no undo log is left; one that works always has some.
#[test]
fn another_number_of_undo_tablespaces() -> Result<()> {
    let cluster = Cluster::builder().mysqld_of(2, "innodb_undo_tablespaces=3").build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    rejoin_lab::data::sysbench_tables(n1, 2, 3000)?;
    let load = rejoin_lab::load::Sysbench::start(n1, 2, 3000, 1)?;
    n2.wipe()?;
    let joined = n2.join();
    load.stop()?;
    joined?;
    for node in [n1, n2] {
        let log = node.log_text();
        ensure!(log.contains("keeps the donor's number of undo tablespaces"), "{}", words_of(node));
    }
    assert_eq!(n2.value("SELECT @@innodb_undo_tablespaces")?, n1.value("SELECT @@innodb_undo_tablespaces")?);
    compare::assert_equal(n1, n2)
}
