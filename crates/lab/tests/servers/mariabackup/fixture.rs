//! What these tests share: programs, changes on the donor, and the state after a join.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rejoin_lab::{Node, compare, places, process, sst};

pub const TABLES: u32 = 3;
pub const ROWS: u32 = 10_000;

/// An executable file of the servers' user.
pub fn script(path: &Path, text: &str) -> Result<PathBuf> {
    fs::write(path, format!("#!/bin/sh\n{text}\n"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    places::User::for_servers()?.own(path)?;
    Ok(path.to_owned())
}

pub fn changed(donor: &Node, round: &str) -> Result<()> {
    donor.exec(&[
        "USE sbtest",
        &format!("UPDATE sbtest1 SET c = 'changed in {round}' WHERE id BETWEEN 100 AND 120"),
        &format!("CREATE TABLE of_{round} (a INT PRIMARY KEY) SELECT seq a FROM seq_1_to_1000"),
    ])
}

pub fn joined_by_mariabackup(donor: &Node, joiner: &Node) -> Result<()> {
    sst::assert_snapshot(joiner, "mariabackup")?;
    let log = joiner.log_since_start();
    for said in ["read back: ", "the backup is prepared, at ", "the files that arrived recover to "] {
        ensure!(log.contains(said), "the joiner does not say {said:?}:\n{log}");
    }
    compare::assert_equal(donor, joiner)?;
    sst::assert_not_behind(donor, joiner)?;
    assert_eq!(joiner.unexpected_errors(&[]), Vec::<String>::new());
    joiner.wait_tidy()
}

pub fn keep_stream(node: &Node, stream: &Path) -> Result<()> {
    let text = format!(
        "mariadb-backup --no-defaults --backup --galera-info --stream=mbstream --user=root --socket={} --target-dir={} >{} 2>{}",
        node.socket().display(),
        node.dir().join("tmp").display(),
        stream.display(),
        node.dir().join("tmp/backup.log").display(),
    );
    let mut command = places::User::for_servers()?.command("/bin/sh");
    command.args(["-c", &text]);
    fs::write(stream, "")?;
    places::User::for_servers()?.own(stream)?;
    process::run(command, Duration::from_secs(120)).with_context(|| {
        process::tail(&fs::read_to_string(node.dir().join("tmp/backup.log")).unwrap_or_default(), 20)
    })?;
    Ok(())
}
