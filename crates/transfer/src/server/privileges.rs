//! Running root's verbs as the server's user. That user wrote everything in the datadir, and root must not
//! trust it.
//!
//! This process changes its own user and starts no other program for that. The kernel does not let the new
//! user trace a process that has changed its user, so root's environment, terminal and descriptors stay out
//! of that user's reach.
use std::fs;
use std::sync::OnceLock;

use anyhow::{Result, bail};
use rustix::fs::Mode;
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::users::{group_of_user, home_of_user};
use crate::failure::{Failure, Kind};

/// The home of the user that this process became.
static HOME: OnceLock<Option<String>> = OnceLock::new();

/// Whether this process runs as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The user who started this process, as long as it has not become another one.
pub fn own_user() -> u32 {
    rustix::process::getuid().as_raw()
}

/// The home directory whose option file applies: that of the user this process became, otherwise that of the
/// environment.
pub fn home() -> Option<String> {
    HOME.get().cloned().unwrap_or_else(|| std::env::var("HOME").ok())
}

/// Becomes this user. Must run before the first thread starts. `group` is used if the user database has none
/// for the user; it is never root's.
///
/// # Errors
/// The system does not allow it, or other threads run.
pub fn become_user(uid: u32, group: u32) -> Result<()> {
    let gid = group_of_user(uid).unwrap_or(if group == 0 { uid } else { group });
    // The system calls below change one thread only.
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads != 1 {
        bail!(Failure::new(Kind::Server, format!("cannot become user {uid}: {threads} threads are running")));
    }
    let (uid_, gid_) = (Uid::from_raw(uid), Gid::from_raw(gid));
    let change = || -> rustix::io::Result<()> {
        set_thread_groups(&[gid_])?;
        set_thread_res_gid(gid_, gid_, gid_)?;
        set_thread_res_uid(uid_, uid_, uid_)
    };
    if let Err(errno) = change() {
        let text = format!("root cannot become user {uid}, group {gid}: {errno}");
        bail!(Failure::new(Kind::Configuration, text).hint("run rejoin as that user"));
    }
    if is_root()
        || rustix::process::getuid().is_root()
        || set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).is_ok()
    {
        bail!(Failure::new(Kind::Server, format!("became user {uid}, but could become root again")));
    }
    // New files are not accessible for others, like those of servers.
    rustix::process::umask(Mode::RWXO);
    let _ = HOME.set(home_of_user(uid));
    Ok(())
}
