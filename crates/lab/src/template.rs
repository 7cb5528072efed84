//! New datadirs: made once for each configuration, then copied.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

use crate::installation::Installation;
use crate::places::{self, User};
use crate::process;

const INSTALL_TIMEOUT: Duration = Duration::from_secs(180);

/// Puts a fresh datadir for a server with these `shaping` lines at `to`.
pub fn fresh_datadir(of: &Installation, shaping: &[String], user: User, to: &Path) -> Result<()> {
    let template = template(of, shaping, user)?;
    copy_tree(&template, to)
}

/// Copies a tree with its owners, times and holes.
pub fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let mut copy = Command::new("cp");
    copy.args(["-a", "--reflink=auto", "--sparse=auto", "-T"]).arg(from).arg(to);
    process::run(copy, Duration::from_secs(600)).map(drop)
}

fn template(of: &Installation, shaping: &[String], user: User) -> Result<PathBuf> {
    // Threads of one process do not exclude each other by flock alone when they share the file; they do here.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock();
    let cache = places::profile_dir()?.join("lab-templates");
    fs::create_dir_all(&cache).with_context(|| cache.display().to_string())?;
    let mut hash = DefaultHasher::new();
    (of.version(), shaping, user.uid).hash(&mut hash);
    let ready = cache.join(format!("{:016x}", hash.finish()));
    let lock = fs::File::create(cache.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive).context("lock of the templates")?;
    if !ready.exists() {
        // The server's user may not reach the cache: the datadir is made in the temporary directory.
        let work = tempfile::Builder::new().prefix("rejoin-lab-template-").tempdir()?;
        let config = work.path().join("my.cnf");
        fs::write(&config, format!("[mysqld]\n{}\n", shaping.join("\n")))?;
        user.own(work.path())?;
        install(of, &config, &work.path().join("data"), user)?;
        let part = cache.join("part");
        let _ = fs::remove_dir_all(&part);
        copy_tree(&work.path().join("data"), &part)?;
        fs::rename(&part, &ready)?;
    }
    Ok(ready)
}

/// Runs the `mariadb-install-db` of an installation with the option file `config` for the datadir `data`.
pub fn install(of: &Installation, config: &Path, data: &Path, user: User) -> Result<()> {
    let (program, base) = of.install_db();
    let mut command = user.command(program);
    command.arg(format!("--defaults-file={}", config.display()));
    command.arg(format!("--datadir={}", data.display()));
    command.args(["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]);
    command.arg(format!("--basedir={}", base.display()));
    command.args(["--wsrep-on=OFF", "--log-error="]);
    process::run(command, INSTALL_TIMEOUT).context("making a new datadir").map(drop)
}
