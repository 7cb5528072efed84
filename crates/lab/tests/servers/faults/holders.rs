//! The consistency point and others on the donor: who holds what it needs is waited for by name, and the server lets go by
//! itself when our program does not.
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mysql::Conn;
use rejoin_lab::progress::StatusReader;
use rejoin_lab::{Cluster, LogMark, compare, process, sql};
use rustix::process::Signal;

use super::fake_transfer::SOON;
use super::pair::{PROMPTLY, Pair, program_pid, signal, until, words_of};

const WAITING: &str = "waiting for the consistency point: ";

/// One test, because each case leaves what the next one starts from.
#[test]
fn whoever_holds_the_donor() -> Result<()> {
    let mut pair = Pair::new(Cluster::builder())?;
    a_table_read_under_the_locks(&pair)?;
    a_program_that_is_stopped(&mut pair).context("a stopped program")?;
    a_program_that_is_told_to_stop(&mut pair).context("SIGTERM in the consistency point")?;
    pair.donor().exec(&["DROP TABLE sbtest.big"])?;
    another_backup(&mut pair).context("another backup")?;
    a_real_backup(&mut pair).context("mariadb-backup")?;
    locked_tables(&mut pair).context("LOCK TABLES")?;
    a_global_read_lock(&mut pair).context("FLUSH TABLES WITH READ LOCK")?;
    a_forbidden_block(&mut pair).context("blocking=never")?;
    a_bounded_block(&mut pair).context("blocking=2")
}

type Marks = (LogMark, LogMark);

fn begin(pair: &mut Pair, options: &[&str]) -> Result<Marks> {
    let marks = (pair.donor().log_mark(), pair.joiner().log_mark());
    pair.begin(options)?;
    Ok(marks)
}

fn both_say(pair: &Pair, marks: Marks, line: &str) -> Result<()> {
    for (node, mark) in [(pair.donor(), marks.0), (pair.joiner(), marks.1)] {
        until(line, SOON, || Ok(node.log_since(mark).contains(line)))
            .with_context(|| format!("{}:\n{}", node.name(), words_of(node)))?;
    }
    Ok(())
}

/// Both hosts show in their status whom they wait for.
fn both_wait_for(pair: &Pair, holder: &str) -> Result<()> {
    for node in [pair.donor(), pair.joiner()] {
        let status = StatusReader::of(node);
        until(holder, SOON, || {
            Ok(status.read().is_some_and(|s| s.phase.starts_with(WAITING) && s.phase.contains(holder)))
        })
        .with_context(|| format!("{}: {:?}\n{}", node.name(), status.read(), words_of(node)))?;
    }
    Ok(())
}

/// The joiner comes in from the working donor, and is equal.
fn joined(pair: &Pair, marks: Marks) -> Result<()> {
    pair.joiner().wait_synced(Duration::from_secs(90)).with_context(|| words_of(pair.donor()))?;
    both_say(pair, marks, "the consistency point is at ")?;
    let log = pair.donor().log_since(marks.0);
    ensure!(!log.contains("snapshot: blocking"), "{}", words_of(pair.donor()));
    ensure!(!log.contains("BACKUP STAGE END failed"), "{}", words_of(pair.donor()));
    compare::assert_equal(pair.donor(), pair.joiner())
}

fn number_of(conn: &mut Conn) -> Result<String> {
    Ok(sql::value(conn, "SELECT CONNECTION_ID()")?.unwrap_or_default())
}

/// All files are copied while another backup holds its lock, tables that come meanwhile too.
fn another_backup(pair: &mut Pair) -> Result<()> {
    let mut holder = pair.donor().connect()?;
    sql::exec(&mut holder, "BACKUP STAGE START")?;
    let id = number_of(&mut holder)?;
    let marks = begin(pair, &[])?;
    both_wait_for(pair, &format!("session {id} (root@localhost"))?;
    both_say(pair, marks, WAITING)?;
    let status = StatusReader::of(pair.joiner());
    let received = || Ok(status.read().is_some_and(|s| s.done_bytes > 10 << 20));
    until("the files have arrived although the lock is held", SOON, received)?;
    pair.donor().exec(&[
        "CREATE TABLE sbtest.meanwhile (a INT PRIMARY KEY, b CHAR(200)) ENGINE=InnoDB",
        "INSERT INTO sbtest.meanwhile VALUES (1, 'meanwhile')",
        "UPDATE sbtest.sbtest1 SET pad = 'meanwhile' WHERE id % 3 = 0",
    ])?;
    sql::exec(&mut holder, "BACKUP STAGE END")?;
    joined(pair, marks)
}

/// A backup that begins while we copy does not wait for us, and both end right.
fn a_real_backup(pair: &mut Pair) -> Result<()> {
    let marks = begin(pair, &["rlimit=4M", "compress=none", "incremental=0"])?;
    pair.wait_for_data()?;
    let dir = tempfile::Builder::new().prefix("rejoin-backup").tempdir()?;
    let target = dir.path().join("b");
    let backup = |args: &[&str]| -> Result<()> {
        let mut command = Command::new("mariadb-backup");
        command.arg(format!("--defaults-file={}", pair.donor().option_file().display()));
        command.args(args).arg(format!("--target-dir={}", target.display()));
        process::run(command, SOON).map(drop)
    };
    let socket = format!("--socket={}", pair.donor().socket().display());
    backup(&["--backup", "--user=root", &socket])?;
    ensure!(
        StatusReader::of(pair.joiner()).read().is_some_and(|s| s.phase == "receiving"),
        "the backup waited for the transfer"
    );
    joined(pair, marks)?;
    backup(&["--prepare"])?;
    ensure!(Path::new(&target).join("sbtest/sbtest1.ibd").exists(), "the backup has no table");
    Ok(())
}

/// A limit of the operator's ends the wait, and nothing is held afterwards.
fn locked_tables(pair: &mut Pair) -> Result<()> {
    let mut holder = pair.donor().connect()?;
    sql::exec(&mut holder, "LOCK TABLES sbtest.written WRITE")?;
    let id = number_of(&mut holder)?;
    let marks = begin(pair, &["consistency-point-timeout=4"])?;
    pair.joiners_server_ended()?;
    both_say(pair, marks, "no consistency point within ")?;
    both_say(pair, marks, &format!("session {id} (root@localhost"))?;
    both_say(pair, marks, "sbtest.written")?;
    both_say(pair, marks, &format!("KILL {id}"))?;
    let log = pair.donor().log_since(marks.0);
    ensure!(!log.contains("snapshot: blocking"), "{}", words_of(pair.donor()));
    ensure!(!log.contains("BACKUP STAGE END failed"), "{}", words_of(pair.donor()));
    pair.donor().exec(&["UPDATE sbtest.sbtest1 SET k = k + 1 WHERE id = 1"])?;
    // The server itself says who holds a lock, where it is asked.
    pair.donor().exec(&["INSTALL SONAME 'metadata_lock_info'"])?;
    let marks = begin(pair, &[])?;
    both_wait_for(pair, "holds a lock (LOCK TABLES on sbtest.written)")?;
    sql::exec(&mut holder, "UNLOCK TABLES")?;
    joined(pair, marks)?;
    pair.donor().exec(&["UNINSTALL SONAME 'metadata_lock_info'"])
}

/// `FLUSH TABLES WITH READ LOCK` has paused replication itself, and a second pause waits for it without a timeout.
fn a_global_read_lock(pair: &mut Pair) -> Result<()> {
    let mut holder = pair.donor().connect()?;
    let marks = begin(pair, &["rlimit=4M", "compress=none", "incremental=0"])?;
    pair.wait_for_data()?;
    sql::exec(&mut holder, "FLUSH TABLES WITH READ LOCK")?;
    let id = number_of(&mut holder)?;
    both_wait_for(pair, "another session has paused or desynced replication")?;
    both_wait_for(pair, &format!("session {id} (root@localhost"))?;
    sql::exec(&mut holder, "UNLOCK TABLES")?;
    joined(pair, marks)?;
    ensure!(pair.donor().status("wsrep_desync_count")? == "0", "the donor stays desynced");
    Ok(())
}

fn a_forbidden_block(pair: &mut Pair) -> Result<()> {
    pair.donor().exec(&["CREATE USER weak@localhost IDENTIFIED BY 'x'"])?;
    let marks = begin(pair, &["wsrep-sst-auth=weak:x", "blocking=never"])?;
    pair.joiners_server_ended()?;
    both_say(pair, marks, "blocking=never forbids it")?;
    both_say(pair, marks, "GRANT RELOAD")?;
    pair.donor_is_released()
}

/// Whatever the link does, the donor's server is let go in time.
fn a_bounded_block(pair: &mut Pair) -> Result<()> {
    let options = ["snapshot=blocking", "blocking=2", "rlimit=60k", "compress=none", "incremental=0"];
    let marks = begin(pair, &options)?;
    let held = "the donor's server blocks writes at ";
    until(held, SOON, || Ok(pair.donor().log_since(marks.0).contains(held)))?;
    let began = Instant::now();
    pair.donor().exec(&["INSERT INTO sbtest.written (what) VALUES ('after the block')"])?;
    ensure!(began.elapsed() < Duration::from_secs(8), "a write took {:?}", began.elapsed());
    pair.joiners_server_ended()?;
    both_say(pair, marks, "has blocked writes for 2 s, which is the limit")?;
    pair.donor_is_released()
}

/// Read again under the locks, over a slow link: that takes seconds.
fn a_table_read_under_the_locks(pair: &Pair) -> Result<()> {
    pair.donor().exec(&[
        "CREATE TABLE sbtest.big (id INT PRIMARY KEY, n INT NOT NULL, pad VARCHAR(1000)) ENGINE=MyISAM CHARACTER SET latin1",
        "INSERT INTO sbtest.big SELECT seq, 0, REPEAT(MD5(seq), 31) FROM sbtest.seq_1_to_120000",
    ])
}

/// Lets the table be written to until the donor's program has its locks, which it reads the table under, and does this then.
fn while_held<T>(pair: &Pair, then: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut watcher = pair.donor().connect()?;
    let mut desynced = || sql::status(&mut watcher, "wsrep_desync_count");
    let before = desynced()?;
    let held = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| -> Result<()> {
            let mut conn = pair.donor().connect()?;
            while !held.load(Ordering::Acquire) {
                sql::exec(&mut conn, "UPDATE sbtest.big SET n = n + 1 WHERE id = 1")?;
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(())
        });
        let is_held = until("the locks are held", SOON, || Ok(desynced()? != before));
        held.store(true, Ordering::Release);
        is_held?;
        then()
    })
}

/// Told to stop in its consistency point, while it copies under the locks: it ends at once, and so do they.
fn a_program_that_is_told_to_stop(pair: &mut Pair) -> Result<()> {
    let marks = begin(pair, &["rlimit=30M", "compress=none", "incremental=0"])?;
    pair.wait_for_data()?;
    let told = while_held(pair, || {
        let told = Instant::now();
        signal(pair.donor(), Signal::TERM)?;
        pair.ends(pair.donor(), told, PROMPTLY).map(|()| told)
    })?;
    pair.donor().exec(&["INSERT INTO sbtest.written (what) VALUES ('after a cancel')"])?;
    ensure!(told.elapsed() < PROMPTLY * 2, "a write took {:?}", told.elapsed());
    let log = pair.donor().log_since(marks.0);
    ensure!(!log.contains("the consistency point is at "), "the moment was over: {}", words_of(pair.donor()));
    ensure!(pair.donor().status("wsrep_desync_count")? == "0", "the donor stays desynced");
    pair.joiners_server_ended()?;
    pair.donor_is_released()
}

/// Stopped at its consistency point: writes pass within seconds while it is stopped, and what it was about to say is
/// not used when it goes on.
fn a_program_that_is_stopped(pair: &mut Pair) -> Result<()> {
    let marks = begin(pair, &["rlimit=30M", "compress=none", "incremental=0"])?;
    let pair = &*pair;
    pair.wait_for_data()?;
    let before = pair.donor().status("wsrep_desync_count")?;
    let waited = while_held(pair, || {
        signal(pair.donor(), Signal::STOP)?;
        let pid = program_pid(pair.donor())?;
        std::thread::scope(|scope| {
            let (tell, told) = mpsc::channel();
            let began = Instant::now();
            scope.spawn(move || {
                let written = pair.donor().exec(&[
                    "INSERT INTO sbtest.written (what) VALUES ('while it is stopped')",
                    "CREATE TABLE sbtest.stopped (a INT PRIMARY KEY) ENGINE=InnoDB",
                    "INSERT INTO sbtest.stopped VALUES (1)",
                ]);
                let _ = tell.send((written, began.elapsed()));
            });
            let passed = told.recv_timeout(Duration::from_secs(10));
            let count = pair.donor().status("wsrep_desync_count");
            process::signal(pid, Signal::CONT);
            let (written, waited) = passed.context("a write waits for as long as the program is stopped")?;
            written?;
            ensure!(count? == before, "replication is still paused");
            Ok(waited)
        })
    })?;
    ensure!(waited < Duration::from_secs(8), "a write took {waited:?}");
    ensure!(waited > Duration::from_secs(1), "nothing was held: {waited:?}");
    pair.joiner().wait_synced(Duration::from_secs(90)).with_context(|| words_of(pair.donor()))?;
    let log = pair.donor().log_since(marks.0);
    ensure!(log.contains("the backup locks were lost before"), "{}", words_of(pair.donor()));
    joined(pair, marks)
}
