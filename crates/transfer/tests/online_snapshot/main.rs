//! The online snapshot against one real server: what it survives and why it declines. Needs root and MariaDB 10.11;
//! without them it says so and fails. Rounds under a storm are the lab's (`lab storm`).
#![allow(clippy::disallowed_methods, reason = "not the program: threads are started as they come")]
#[allow(dead_code)]
mod server;
mod sink;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Result;
use formats::wsrep::credentials::{Account, Secret};
use mysql::prelude::Queryable;
use protocol::inventory::{FileEntry, FileId};
use rejoin_transfer::cancel::Cancel;
use rejoin_transfer::snapshot::declined::{Declined, SnapshotError};
use rejoin_transfer::snapshot::online::rounds::Policy;
use rejoin_transfer::snapshot::online::snapshot::{Options, TakenOnline, take};
use rejoin_transfer::snapshot::sink::{Manifest, SnapshotSink};
use rejoin_transfer::sql::{Listens, Login};
use server::Server;

fn options(server: &Server, account: Option<&str>, budget: u64) -> Options {
    let account = account.map(|user| Account { user: user.to_owned(), password: Secret::new("x") });
    Options {
        login: Login { at: Listens::Socket(server.socket()), account },
        roots: server.roots().expect("layout"),
        threads: 2,
        budget: Duration::from_secs(budget),
        desynced: 0,
        spill_dir: std::env::temp_dir(),
        spill_max: Some(1 << 30),
        memory: None,
        newer: Policy::Never,
        allow_corrupt_pages: false,
        creator: "rejoin".to_owned(),
    }
}

/// A snapshot into `dir/data` with `during` running beside it.
fn snapshot(
    options: &Options,
    dir: &Path,
    pause: Duration,
    during: impl FnOnce() + Send,
) -> Result<TakenOnline, SnapshotError> {
    let sink = sink::DirectorySink::new(&dir.join("data"))?;
    std::thread::scope(|scope| {
        scope.spawn(during);
        take(options, &sink::Slow(&sink, pause), &Cancel::new())
    })
}

fn declined(result: Result<TakenOnline, SnapshotError>) -> Declined {
    match result {
        Err(SnapshotError::Declined(why)) => why,
        other => panic!("not declined: {:?}", other.map(|taken| taken.point)),
    }
}

/// Starts a server on the copy and counts rows of the big table.
fn rows_of(dir: &Path) -> Option<u64> {
    let mut copy = Server::new(dir, &[], 0, &[]).expect("files");
    copy.own().expect("chown");
    copy.start(&[]).expect("the copy starts");
    let rows = copy.connect().expect("login").query_first("SELECT COUNT(*) FROM test.big").expect("rows");
    let log = copy.log_tail();
    copy.stop();
    assert_eq!(log, "");
    rows
}

#[test]
fn one_server() {
    if !rustix::process::geteuid().is_root() {
        let why = "\nskipped: one_server needs root: its servers run as another user than the files that they must not read\n";
        std::io::Write::write_all(&mut std::io::stderr(), why.as_bytes()).expect("standard error");
        return;
    }
    assert!(Command::new("mariadbd").arg("--version").output().is_ok(), "this test needs mariadbd in PATH");
    let base = tempfile::Builder::new().prefix("natlive").tempdir().expect("temporary directory");
    server::run(Command::new("chmod").arg("755").arg(base.path())).expect("chmod");
    let mut server = Server::new(&base.path().join("n"), &[], 0, &["log_bin".to_owned()]).expect("files");
    server.install().expect("install");
    server.start(&[]).expect("start");
    let mut conn = server.connect().expect("login");
    for statement in [
        "CREATE DATABASE test",
        "CREATE USER plain@localhost IDENTIFIED BY 'x'",
        "CREATE USER enough@localhost IDENTIFIED BY 'x'",
        "GRANT RELOAD, BINLOG MONITOR ON *.* TO enough@localhost",
        "CREATE TABLE test.big (id INT PRIMARY KEY, pad CHAR(200)) SELECT seq id, 'x' pad FROM test.seq_1_to_100000",
        "CREATE TABLE test.imp (id INT PRIMARY KEY)",
    ] {
        conn.query_drop(statement).expect(statement);
    }
    missing_rights(&server, base.path());
    a_held_lock_is_named(&server, base.path());
    a_pause_that_ended_early_is_not_used(&server, base.path());
    killed_sessions_and_a_resized_log(&server, base.path());
    recovery_starts_at_a_newer_checkpoint(&server, base.path());
    damage_is_named(&server, base.path());
    an_import_declines(&server, base.path());
    an_import_of_what_was_discarded_before_declines(&server, base.path());
    an_overrun_is_named(&server, base.path());
    assert_eq!(conn.query_first::<u64, _>("SELECT COUNT(*) FROM test.big").expect("rows"), Some(100_000));
    drop(conn);
    server.stop();
}

fn missing_rights(server: &Server, base: &Path) {
    let why = declined(snapshot(&options(server, Some("plain"), 5), &base.join("c1"), Duration::ZERO, || {}));
    let grant = "GRANT RELOAD, BINLOG MONITOR ON *.* TO `plain`@`localhost`;".to_owned();
    assert_eq!(why, Declined::MissingPrivilege { grant });
    // An account that is not let in: the operating system's user is tried.
    snapshot(&options(server, Some("nobody"), 5), &base.join("c2"), Duration::ZERO, || {})
        .expect("socket login");
    snapshot(&options(server, Some("enough"), 5), &base.join("c3"), Duration::ZERO, || {}).expect("enough");
    assert_eq!(rows_of(&base.join("c3")), Some(100_000));
}

fn a_held_lock_is_named(server: &Server, base: &Path) {
    let mut holder = server.connect().expect("login");
    let id: Option<u64> = holder.query_first("SELECT CONNECTION_ID()").expect("number");
    let id = id.expect("a number");
    holder.query_drop("BACKUP STAGE START").expect("lock");
    match declined(snapshot(&options(server, None, 3), &base.join("c4"), Duration::ZERO, || {})) {
        Declined::NotGranted { holder, .. } => {
            assert!(holder.contains(&format!("session {id} (root@localhost, idle for ")), "{holder}");
        }
        why => panic!("{why}"),
    }
    holder.query_drop("BACKUP STAGE END").expect("unlock");
    holder.query_drop("UPDATE test.big SET pad = 'y' WHERE id = 1").expect("nothing is held");
}

/// Ends the session with the locks when everything was read under them and only END is left to say: once.
struct EndsIt<'a> {
    sink: &'a sink::DirectorySink,
    server: &'a Server,
    ended: AtomicBool,
}

impl SnapshotSink for EndsIt<'_> {
    fn announce(&self, entry: &FileEntry) -> Result<()> {
        self.sink.announce(entry)
    }

    fn write(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<()> {
        self.sink.write(file, offset, bytes)
    }

    fn end_consistency_point(&self) {
        if self.ended.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut conn = self.server.connect().expect("login");
        // The newest session is that with the locks.
        let newest = "SELECT MAX(ID) FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID()";
        let newest: Option<u64> = conn.query_first(newest).expect("sessions");
        conn.query_drop(format!("KILL {}", newest.expect("a session"))).expect("kill");
        conn.query_drop("CREATE TABLE test.late (id INT PRIMARY KEY)").expect("nothing is held");
    }

    fn finish(&self, manifest: &Manifest) -> Result<()> {
        assert!(manifest.files.iter().any(|file| file.path == "test/late.ibd"), "the void moment was used");
        self.sink.finish(manifest)
    }
}

/// What was read while the pause may have ended already is not used.
fn a_pause_that_ended_early_is_not_used(server: &Server, base: &Path) {
    let sink = sink::DirectorySink::new(&base.join("c12/data")).expect("directory");
    let sink = EndsIt { sink: &sink, server, ended: AtomicBool::new(false) };
    let taken = take(&options(server, None, 20), &sink, &Cancel::new()).expect("a snapshot");
    assert_eq!(taken.point.tries, 2);
    assert_eq!(rows_of(&base.join("c12")), Some(100_000));
    server.connect().expect("login").query_drop("DROP TABLE test.late").expect("drop");
}

fn killed_sessions_and_a_resized_log(server: &Server, base: &Path) {
    let disturb = || {
        let mut conn = server.connect().expect("login");
        std::thread::sleep(Duration::from_millis(300));
        let ours = "SELECT ID FROM information_schema.PROCESSLIST WHERE USER='root' AND ID <> CONNECTION_ID() ORDER BY ID";
        let sessions: Vec<u64> = conn.query(ours).expect("sessions");
        assert!(sessions.len() >= 3, "{sessions:?}");
        // After the test's own and that for questions: the tail's.
        for session in sessions.iter().skip(2) {
            let _ = conn.query_drop(format!("KILL {session}"));
        }
        for n in 0..20 {
            conn.query_drop(format!("UPDATE test.big SET pad = 'r{n}' WHERE id % 7 = 0")).expect("update");
            if n == 5 {
                conn.query_drop("SET GLOBAL innodb_log_file_size = 64*1024*1024").expect("resize");
            }
        }
    };
    let pause = Duration::from_millis(120);
    let taken = snapshot(&options(server, None, 20), &base.join("c5"), pause, disturb).expect("survives");
    assert_eq!(taken.redo_resized, 1);
    assert_eq!(rows_of(&base.join("c5")), Some(100_000));
}

/// Overwrites a page in the file, takes a snapshot, and puts the page back.
fn with_damage(server: &Server, dir: &Path, page: u64) -> Result<TakenOnline, SnapshotError> {
    use std::os::unix::fs::FileExt;
    let path = server.data().join("test/big.ibd");
    let file = std::fs::File::options().read(true).write(true).open(path).expect("open");
    let mut good = vec![0; 16384];
    file.read_exact_at(&mut good, page * 16384).expect("read");
    file.write_all_at(&[0x55; 16384], page * 16384).expect("write");
    file.sync_all().expect("sync");
    let result = snapshot(&options(server, None, 5), dir, Duration::ZERO, || {});
    file.write_all_at(&good, page * 16384).expect("write");
    file.sync_all().expect("sync");
    result
}

fn damage_is_named(server: &Server, base: &Path) {
    let pages = std::fs::metadata(server.data().join("test/big.ibd")).expect("file").len() / 16384;
    match declined(with_damage(server, &base.join("c7"), 20)) {
        Declined::CorruptPages { count: 1, first } => assert!(first.contains("big.ibd page 20"), "{first}"),
        other => panic!("{other}"),
    }
    // The end of the file was allocated ahead.
    with_damage(server, &base.join("c8"), pages - 1).expect("a free page does not count");
}

/// Discards a table's file; a copy of it lies there instead, to be imported.
fn discard_and_put_back(server: &Server, conn: &mut mysql::Conn, table: &str) {
    let data = server.data().join("test");
    let (file, kept) = (data.join(format!("{table}.ibd")), data.join("keep.ibd_"));
    conn.query_drop(format!("FLUSH TABLES test.{table} FOR EXPORT")).expect("export");
    std::fs::copy(&file, &kept).expect("copy");
    conn.query_drop("UNLOCK TABLES").expect("unlock");
    conn.query_drop(format!("ALTER TABLE test.{table} DISCARD TABLESPACE")).expect("discard");
    std::fs::rename(&kept, &file).expect("rename");
    server.own().expect("chown");
}

fn an_import_declines(server: &Server, base: &Path) {
    let import = || {
        let mut conn = server.connect().expect("login");
        std::thread::sleep(Duration::from_millis(300));
        discard_and_put_back(server, &mut conn, "imp");
        conn.query_drop("ALTER TABLE test.imp IMPORT TABLESPACE").expect("import");
    };
    let pause = Duration::from_millis(120);
    let why = declined(snapshot(&options(server, None, 20), &base.join("c6"), pause, import));
    assert!(matches!(why, Declined::Import { .. }), "{why}");
}

/// Tells when a file of this name begins.
struct Telling<'a> {
    sink: sink::Slow<'a>,
    name: &'a str,
    begun: mpsc::Sender<()>,
}

impl SnapshotSink for Telling<'_> {
    fn announce(&self, entry: &FileEntry) -> Result<()> {
        if entry.path == self.name {
            self.begun.send(())?;
        }
        self.sink.announce(entry)
    }

    fn write(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<()> {
        self.sink.write(file, offset, bytes)
    }

    fn finish(&self, manifest: &Manifest) -> Result<()> {
        self.sink.finish(manifest)
    }
}

/// The log says nothing of the DISCARD any more, the file that is imported was copied as it lay there, and rows that come
/// afterwards bring redo for the first page.
fn an_import_of_what_was_discarded_before_declines(server: &Server, base: &Path) {
    let mut conn = server.connect().expect("login");
    conn.query_drop(
        "CREATE TABLE test.wide (id INT PRIMARY KEY, pad CHAR(200)) SELECT seq id, 'w' pad FROM test.seq_1_to_150000",
    )
    .expect("create");
    discard_and_put_back(server, &mut conn, "wide");
    conn.query_drop("SET GLOBAL innodb_log_checkpoint_now = ON").expect("checkpoint");
    let sink = sink::DirectorySink::new(&base.join("c11/data")).expect("directory");
    let (begun, begins) = mpsc::channel();
    let sink = Telling { sink: sink::Slow(&sink, Duration::from_millis(150)), name: "test/wide.ibd", begun };
    let why = declined(std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut conn = server.connect().expect("login");
            // What was copied after it was imported needs no redo.
            begins.recv_timeout(Duration::from_secs(60)).expect("the file is copied");
            conn.query_drop("ALTER TABLE test.wide IMPORT TABLESPACE").expect("import");
            conn.query_drop("INSERT INTO test.wide SELECT seq, 'later' FROM test.seq_200000_to_240000")
                .expect("insert");
        });
        take(&options(server, None, 20), &sink, &Cancel::new())
    }));
    assert!(matches!(&why, Declined::Import { name, .. } if name.contains("wide")), "{why}");
    conn.query_drop("DROP TABLE test.wide").expect("drop");
}

/// A sink that takes no redo for a while, and no room to keep any: the log itself comes round.
fn an_overrun_is_named(server: &Server, base: &Path) {
    struct Stuck<'a>(sink::Slow<'a>);
    impl SnapshotSink for Stuck<'_> {
        fn announce(&self, entry: &FileEntry) -> Result<()> {
            self.0.announce(entry)
        }
        fn write(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<()> {
            std::thread::sleep(Duration::from_secs(if file.0 == 0 { 5 } else { 0 }));
            self.0.write(file, offset, bytes)
        }
        fn finish(&self, manifest: &Manifest) -> Result<()> {
            self.0.finish(manifest)
        }
    }
    let mut conn = server.connect().expect("login");
    conn.query_drop("SET GLOBAL innodb_log_file_size = 16*1024*1024").expect("resize");
    let sink = sink::DirectorySink::new(&base.join("c9/data")).expect("directory");
    let small = Options { spill_max: Some(0), ..options(server, None, 20) };
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(200));
            (0..6)
                .for_each(|n| conn.query_drop(format!("UPDATE test.big SET pad = 'o{n}'")).expect("update"));
        });
        take(&small, &Stuck(sink::Slow(&sink, Duration::from_millis(150))), &Cancel::new())
    });
    let why = declined(result);
    assert!(matches!(why, Declined::RedoOverrun { wanted, .. } if wanted > 16 << 20), "{why}");
}

/// A copy that took long: recovery starts at a newer checkpoint, and pages of which only older versions had been
/// copied were read again. The table is the largest, so it is read first and changed behind the reader.
fn recovery_starts_at_a_newer_checkpoint(server: &Server, base: &Path) {
    let change = || {
        let mut conn = server.connect().expect("login");
        std::thread::sleep(Duration::from_millis(300));
        for n in 0..8 {
            conn.query_drop(format!("UPDATE test.big SET pad = 'n{n}' WHERE id % 3 = {}", n % 3))
                .expect("update");
        }
        conn.query_drop("INSERT INTO test.big SELECT id + 1000000, pad FROM test.big WHERE id < 30000")
            .expect("insert");
    };
    let newer = Options { newer: Policy::Always, ..options(server, None, 20) };
    let dir = base.join("c10");
    let taken = snapshot(&newer, &dir, Duration::from_millis(150), change).expect("a snapshot");
    let rounds = taken.redo_rounds;
    assert!(rounds.rounds > 0 && rounds.reread > 10 << 20 && rounds.dropped > 20 << 20, "{rounds:?}");
    assert!(taken.redo.bytes < rounds.dropped, "{} left, {rounds:?}", taken.redo.bytes);
    let mut conn = server.connect().expect("login");
    let checksum = |conn: &mut mysql::Conn| -> Option<(String, u64)> {
        conn.query_first("CHECKSUM TABLE test.big").expect("checksum")
    };
    let mut copy = Server::new(&dir, &[], 0, &[]).expect("files");
    copy.own().expect("chown");
    copy.start(&[]).expect("the copy starts");
    let mut there = copy.connect().expect("login");
    assert_eq!(checksum(&mut there), checksum(&mut conn));
    let check: Option<(String, String, String, String)> =
        there.query_first("CHECK TABLE test.big EXTENDED").expect("check");
    assert_eq!(check.map(|c| c.3), Some("OK".to_owned()));
    let log = copy.log_tail();
    drop(there);
    copy.stop();
    assert_eq!(log, "");
    conn.query_drop("DELETE FROM test.big WHERE id > 1000000").expect("delete");
}
