//! A server by itself: what it can load at all, and what the tools that come with it load.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rejoin_lab::places::{User, program};
use rejoin_lab::usage::CpuSeconds;
use rejoin_lab::{Node, Snapshot, process, sql};

use super::{Measured, NO_MEMBER, since, tables};

/// How a private server is set (crates/transfer/src/private_server/program.rs), as far as it matters for its speed.
const AS_PRIVATE: [&str; 8] = [
    "--skip-log-bin",
    "--performance-schema=OFF",
    "--innodb-doublewrite=OFF",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-autoinc-lock-mode=2",
    "--innodb-buffer-pool-load-at-startup=OFF",
    "--innodb-buffer-pool-dump-at-shutdown=OFF",
    "--innodb-fast-shutdown=0",
];
/// Its sessions that load.
const SESSION: &str = "SET SESSION sql_log_bin=0, foreign_key_checks=0, check_constraint_checks=0, sql_mode='NO_AUTO_VALUE_ON_ZERO', \
                       innodb_lock_wait_timeout=86400";
/// Sessions at a time.
const SESSIONS: usize = 2;
/// Files into which the large table is divided, for several statements.
const FILES: usize = 6;
const PATIENCE: Duration = Duration::from_secs(3600);

/// How rows are loaded.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    /// The large table by several statements.
    several: bool,
    /// Secondary keys after the rows.
    keys_after: bool,
}

impl Way {
    pub fn all() -> [Way; 4] {
        [(false, true), (false, false), (true, true), (true, false)]
            .map(|(several, keys_after)| Way { several, keys_after })
    }

    pub fn name(self) -> String {
        format!(
            "LOAD DATA, {}, keys {}",
            if self.several { "the large table in parts" } else { "one statement a table" },
            if self.keys_after { "afterwards" } else { "at once" }
        )
    }
}

/// A server that is no member.
pub struct Alone<'a> {
    node: &'a Node,
    fresh: Snapshot,
}

/// Rows of the tables in files: the whole table, and the large one in parts.
pub struct Files {
    dir: PathBuf,
    rows: Vec<String>,
}

impl<'a> Alone<'a> {
    pub fn of(node: &'a Node) -> Result<Alone<'a>> {
        Ok(Alone { node, fresh: node.snapshot("fresh")? })
    }

    /// `mariadb-dump | mariadb`, into a server as it is.
    pub fn pipe(&self, donor: &Node) -> Result<Measured> {
        self.start(&NO_MEMBER)?;
        let script = "set -o pipefail; \"$1\" --no-defaults -uroot -S \"$2\" --single-transaction --databases d | \
                      \"$3\" --no-defaults -uroot -S \"$4\"";
        let mut pipe = Command::new("bash");
        pipe.args(["-c", script, "bash"]);
        pipe.arg(program("mariadb-dump")?)
            .arg(donor.socket())
            .arg(program("mariadb")?)
            .arg(self.node.socket());
        let began = Instant::now();
        process::run(pipe, PATIENCE)?;
        let seconds = since(began);
        self.is_complete(&tables::rows(donor)?)?;
        self.node.stop()?;
        Ok(Measured {
            way: "mariadb-dump | mariadb".to_owned(),
            seconds,
            processors: None,
            parts: "into a running server".to_owned(),
        })
    }

    /// Writes the rows of the donor into files.
    pub fn files(&self, donor: &Node) -> Result<Files> {
        let dir = donor.dir().join("rows");
        fs::create_dir_all(&dir)?;
        User::for_servers()?.own(&dir)?;
        for name in tables::NAMES {
            let file = dir.join(name);
            donor.exec(&[
                "SET SESSION max_statement_time=0",
                &format!("SELECT * INTO OUTFILE '{}' CHARACTER SET binary FROM d.{name}", file.display()),
            ])?;
        }
        let mut split = Command::new("split");
        split.arg(format!("--number=l/{FILES}")).args(["--numeric-suffixes", "--suffix-length=1"]);
        split.arg(dir.join("large")).arg(dir.join("large."));
        process::run(split, PATIENCE)?;
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            // A server reads only what everybody may read.
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        }
        Ok(Files { dir, rows: tables::rows(donor)? })
    }

    /// Loads these files, and ends the server in order.
    pub fn load(&self, files: &Files, way: Way) -> Result<Measured> {
        // Of servers that have ended.
        let ended = || CpuSeconds::of(std::process::id()).map(|used| used.children);
        let before = ended()?;
        self.start(&[&NO_MEMBER[..], &AS_PRIVATE[..]].concat())?;
        let started = CpuSeconds::of(self.node.pid().context("no server")?)?.own;
        let began = Instant::now();
        let mut adds = Vec::new();
        let mut conn = self.node.connect()?;
        sql::exec(&mut conn, "CREATE DATABASE d")?;
        sql::exec(&mut conn, "USE d")?;
        for name in tables::NAMES {
            let (create, add) = tables::create(name, way.keys_after);
            sql::exec(&mut conn, &create)?;
            adds.push((name, add));
        }
        let large = match way.several {
            false => vec![("large", "large".to_owned())],
            true => (0..FILES).map(|n| ("large", format!("large.{n}"))).collect(),
        };
        let rest = tables::NAMES.iter().skip(1).map(|name| (*name, (*name).to_owned()));
        let work: Vec<(&str, String)> = large.into_iter().chain(rest).collect();
        let left = Mutex::new(work.iter());
        let loaded = Mutex::new(Vec::new());
        self.in_sessions(&|conn| {
            loop {
                let Some((table, file)) = left.lock().map_err(|_| anyhow!("a session panicked"))?.next()
                else {
                    return Ok(());
                };
                let unique = u8::from(way.several && *table == "large");
                sql::exec(conn, &format!("SET SESSION unique_checks={unique}"))?;
                let path = files.dir.join(file);
                sql::exec(
                    conn,
                    &format!(
                        "LOAD DATA INFILE '{}' INTO TABLE d.{table} CHARACTER SET binary",
                        path.display()
                    ),
                )?;
                let mut loaded = loaded.lock().map_err(|_| anyhow!("a session panicked"))?;
                loaded.push(*table);
                let all = work.iter().filter(|(other, _)| other == table).count();
                let add = adds.iter().find(|(name, _)| name == table).and_then(|(_, add)| add.as_deref());
                let is_last = loaded.iter().filter(|other| *other == table).count() == all;
                drop(loaded);
                if let Some(add) = add.filter(|_| is_last) {
                    sql::exec(conn, add)?;
                }
            }
        })?;
        let rows = since(began);
        self.is_complete(&files.rows)?;
        let ending = Instant::now();
        self.node.stop()?;
        let seconds = rows + since(ending);
        Ok(Measured {
            way: way.name(),
            seconds,
            processors: Some(ended()? - before - started),
            parts: format!("loaded after {rows:.1} s, then ended in order"),
        })
    }

    /// A new server.
    fn start(&self, args: &[&str]) -> Result<()> {
        self.node.restore(&self.fresh)?;
        start(self.node, args)
    }

    fn in_sessions(&self, work: &(dyn Fn(&mut mysql::Conn) -> Result<()> + Sync)) -> Result<()> {
        let session = || -> Result<()> {
            let mut conn = sql::connect(&self.node.socket(), PATIENCE)?;
            sql::exec(&mut conn, SESSION)?;
            work(&mut conn)
        };
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..SESSIONS).map(|_| scope.spawn(session)).collect();
            let all = all.into_iter().map(|one| one.join().map_err(|_| anyhow!("a session panicked"))?);
            all.collect()
        })
    }

    /// Every row must have arrived.
    fn is_complete(&self, rows: &[String]) -> Result<()> {
        let here = tables::rows(self.node)?;
        ensure!(here == rows, "{here:?} rows instead of {rows:?}");
        Ok(())
    }
}

/// Starts a server with these arguments and waits until it answers.
pub fn start(node: &Node, args: &[&str]) -> Result<()> {
    node.begin(args)?;
    let deadline = Instant::now() + Duration::from_secs(120);
    while node.connect().is_err() {
        ensure!(
            Instant::now() < deadline && node.is_alive(),
            "no server:\n{}",
            process::tail(&node.log_text(), 20)
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
