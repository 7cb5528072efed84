//! What must be true when a round is over.
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use rejoin_lab::{Node, process, sql};

use super::fixture::{self, Fixture};
use super::survivors::takes_a_write;

const SOON: Duration = Duration::from_secs(60);

/// The donor serves, and nothing of the transfer stays on it. One that was silent does not know at once that the group has
/// expelled it: that it is fine may have to be asked again.
pub fn donor_is_free(donor: &Node, marks: &[&str]) -> Result<()> {
    let began = Instant::now();
    loop {
        match is_free(donor, marks) {
            Err(error) if began.elapsed() > SOON => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
            Ok(()) => return Ok(()),
        }
    }
}

fn is_free(donor: &Node, marks: &[&str]) -> Result<()> {
    let state = donor.status("wsrep_local_state_comment")?;
    ensure!(state == "Synced" && donor.status("wsrep_ready")? == "ON", "the donor is {state}");
    let left = donor.sst_processes();
    ensure!(left.is_empty(), "programs are left on the donor: {left:?}");
    let desynced = donor.status("wsrep_desync_count")?;
    ensure!(desynced == "0", "wsrep_desync_count of the donor is {desynced}");
    for mark in marks {
        ensure!(!donor.datadir().join(mark).exists(), "{mark} is left on the donor");
    }
    let mut conn = donor.connect()?;
    for statement in
        ["SET lock_wait_timeout=5", "BACKUP STAGE START", "BACKUP STAGE BLOCK_DDL", "BACKUP STAGE END"]
    {
        sql::exec(&mut conn, statement).context("a lock stays on the donor")?;
    }
    takes_a_write(donor)
}

/// What an operator may do to a joiner whose server has ended. Each leaves a datadir that no server serves, or a whole one.
pub fn handle(fixture: &Fixture, newest: u64, rng: &mut Rng) -> Result<Vec<String>> {
    let mut done = Vec::new();
    for _ in 0..rng.u32(0..3) {
        let what = match rng.u32(0..8) {
            0..=3 => format!("plain start: {}", plain_start(fixture.joiner(), newest)?),
            4 => verb(fixture, &["finish"])?,
            5 => verb(fixture, &["finish", "--let-join"])?,
            6 => verb(fixture, &["rollback"])?,
            _ => verb(fixture, &["release"])?,
        };
        done.push(what);
    }
    // Nothing but a start as a member may follow it.
    if done.last().is_some_and(|last| last.contains("never alone")) {
        return Ok(done);
    }
    if rng.bool() {
        done.push(format!("plain start: {}", plain_start(fixture.joiner(), newest)?));
    }
    Ok(done)
}

fn verb(fixture: &Fixture, words: &[&str]) -> Result<String> {
    let node = fixture.joiner();
    let mut command = Command::new(fixture.cluster.program_dir().join("rejoin"));
    command.args(words).arg("--datadir").arg(node.datadir()).arg("--defaults-file").arg(node.option_file());
    let output = command.output().context("rejoin")?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned();
    let code = output.status.code().with_context(|| format!("{words:?} died: {said}"))?;
    // Refusals are answers: nothing to put back, say.
    ensure!(![101, 125].contains(&code), "{words:?} panicked: {said}");
    Ok(format!("{}: {code} {}", words.join(" "), process::tail(&said, 1)))
}

/// A server without its cluster refuses, or serves the whole old or the whole new state.
pub fn plain_start(node: &Node, newest: u64) -> Result<String> {
    node.begin(&["--wsrep-on=OFF", "--wsrep-provider=none", "--skip-networking"])?;
    let began = Instant::now();
    loop {
        if !node.is_alive() {
            let status = node.wait_exit(SOON).context("no exit status")?;
            ensure!(
                status.code() == Some(1),
                "a plain start ended with {status}\n{}",
                process::tail(&node.log_since_start(), 30)
            );
            return Ok("refused".to_owned());
        }
        if node.log_since_start().contains("ready for connections") {
            break;
        }
        ensure!(
            began.elapsed() < SOON,
            "a plain start neither serves nor ends\n{}",
            process::tail(&node.log_since_start(), 30)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let looked = looks_whole(node, newest);
    node.stop()?;
    looked.with_context(|| {
        format!("a plain start serves a broken database\n{}", process::tail(&node.log_since_start(), 30))
    })
}

fn looks_whole(node: &Node, newest: u64) -> Result<String> {
    let state = fixture::state_of(node)?;
    ensure!(state <= newest, "it has the state {state}, which never was");
    let tables = "SELECT CONCAT('`', table_schema, '`.`', table_name, '`') FROM information_schema.tables \
                  WHERE table_type = 'BASE TABLE' AND engine IS NOT NULL AND table_schema NOT LIKE '%\\_schema'";
    let tables: Vec<String> = node.rows(tables)?.into_iter().flatten().collect();
    ensure!(tables.len() > 60, "only {} tables", tables.len());
    for row in node.rows(&format!("CHECK TABLE {} QUICK", tables.join(", ")))? {
        let fine = row[2] != "error" && row[2] != "Error";
        ensure!(fine, "{}: {}", row[0], row[3]);
    }
    Ok(format!("state {state}"))
}

pub fn wait(what: &str, is: impl Fn() -> bool) -> Result<()> {
    let began = Instant::now();
    while !is() {
        if began.elapsed() > SOON {
            bail!("not within {SOON:?}: {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
