//! Tests that cannot run where they are. Rust's test harness knows only passed and failed; `scripts/test.sh` counts the lines
//! that are written here and takes them off the passed ones.
use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::{places::User, process};

/// In the environment of a test that runs again with mounts of its own.
const AGAIN: &str = "REJOIN_LAB_MAY_MOUNT";

/// Says in one line what the calling test needs and has not got. The test ends without an error.
pub fn skip(needs: &str) -> Result<()> {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("a test");
    // One write, past the harness, which would keep it to itself; with one thread that has begun a line.
    let line = format!("\nskipped: {name} needs {needs}\n");
    std::io::stderr().write_all(line.as_bytes()).context("standard error")
}

/// What a cluster with a network of its own needs and has not got.
pub fn missing_for_own_network() -> Option<&'static str> {
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "true"]);
    let may = rustix::process::geteuid().is_root() && process::run(unshare, Duration::from_secs(30)).is_ok();
    (!may).then_some("root and network namespaces (unshare --net)")
}

/// Runs the body of `test` where its mounts are invisible to other processes: runs the whole test again in a mount namespace of its
/// own, and without root in a user namespace too. Skipped if the kernel, or a container, does not allow that.
pub fn with_own_mounts(test: &str, body: impl FnOnce() -> Result<()>) -> Result<()> {
    if std::env::var_os(AGAIN).is_some() {
        return body();
    }
    let unshare = || -> Result<Command> {
        let mut unshare = Command::new("unshare");
        match User::for_servers()?.switch {
            true => unshare.args(["--mount", "--propagation", "private"]),
            false => unshare.args(["--user", "--map-current-user", "--keep-caps", "--mount"]),
        };
        Ok(unshare)
    };
    let mut allowed = unshare()?;
    allowed.arg("true");
    if process::run(allowed, Duration::from_secs(10)).is_err() {
        return skip("mount and user namespaces (unshare --user --mount), or root with CAP_SYS_ADMIN");
    }
    let mut again = unshare()?;
    again.arg(std::env::current_exe()?).args(["--exact", test, "--nocapture"]).env(AGAIN, "1");
    process::run(again, Duration::from_secs(300)).map(drop)
}
