//! What writes to the donor during a transfer.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mysql::Conn;
use rejoin_lab::load::Load;
use rejoin_lab::watcher::Watcher;
use rejoin_lab::{Node, sql};

use super::fixture::TABLES;

/// Rows that a statement of a steady writer changes: well below a megabyte of redo.
const STEP: u32 = 500;
/// How often it looks whether it is behind.
const LOOKS_EVERY: Duration = Duration::from_millis(2);
/// What a server does not keep up with for so many seconds is not made up for.
const MADE_UP_S: f64 = 1.0;

/// It is running.
pub enum Writes {
    /// As many transactions as there can be, or with pauses.
    Load(Load),
    /// A rate of redo.
    Steady(Watcher<Steady>),
}

impl Writes {
    /// Ends it. Returns the number of transactions.
    pub fn stop(self) -> Result<u64> {
        match self {
            Writes::Load(load) => Ok(load.stop()?.commits),
            Writes::Steady(watcher) => {
                let Steady { commits, failed, .. } = watcher.stop()?;
                failed.filter(|_| commits == 0).map_or(Ok(commits), Err)
            }
        }
    }
}

/// A connection that rewrites rows, one stretch after the other, as long as there is less redo than its rate asks for.
pub struct Steady {
    socket: PathBuf,
    /// None after an error: rsync's donor lets a statement wait for longer than a client does.
    conn: Option<Conn>,
    /// Of each table.
    rows: u32,
    /// Bytes a second.
    rate: f64,
    began: Instant,
    /// LSN then.
    from: u64,
    commits: u64,
    failed: Option<anyhow::Error>,
}

impl Steady {
    /// Writes to `donor` so many bytes of redo a second.
    pub fn start(donor: &Node, rows: u32, rate: f64) -> Result<Writes> {
        let (began, from) = (Instant::now(), lsn(&mut donor.connect()?)?);
        let socket = donor.socket();
        let steady = Steady { socket, conn: None, rows, rate, began, from, commits: 0, failed: None };
        Watcher::start("writer", LOOKS_EVERY, steady, Steady::look).map(Writes::Steady)
    }

    fn look(&mut self) {
        if let Err(error) = self.go_on() {
            (self.conn, self.failed) = (None, Some(error));
        }
    }

    fn go_on(&mut self) -> Result<()> {
        let conn = match &mut self.conn {
            Some(conn) => conn,
            none => none.insert(sql::connect(&self.socket, sql::STATEMENT_TIMEOUT)?),
        };
        let now = lsn(conn)?;
        let behind = self.began.elapsed().as_secs_f64() * self.rate - now.saturating_sub(self.from) as f64;
        if behind > self.rate * MADE_UP_S {
            (self.began, self.from) = (Instant::now(), now);
        }
        if behind > 0.0 {
            sql::exec(conn, &rewrite(self.commits as u32, STEP, self.rows))?;
            self.commits += 1;
        }
        Ok(())
    }
}

/// A statement that changes `step` rows and their entries in an index: the stretch with this number, over all tables of so many rows.
pub fn rewrite(number: u32, step: u32, rows: u32) -> String {
    let (table, from) = (number % TABLES + 1, number / TABLES * step % rows);
    let to = from + step;
    format!("UPDATE sbtest.sbtest{table} SET c = REVERSE(c), k = k + 1 WHERE id BETWEEN {from} AND {to}")
}

fn lsn(conn: &mut Conn) -> Result<u64> {
    sql::status(conn, "Innodb_lsn_current")?.parse().context("the LSN")
}
