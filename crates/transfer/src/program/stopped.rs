//! Stopping a program for a while, without ending it.
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// How long it may take to stand still once it was told to stop.
const STOPS_WITHIN: Duration = Duration::from_secs(1);
/// After this time it is told again.
const STOPS_AT_ONCE: Duration = Duration::from_millis(100);
/// How often we look whether it stands still.
const LOOK_FOR_STOP: Duration = Duration::from_millis(1);

/// A program that stands still until this is dropped.
pub(super) struct Stopped(Pid);

impl Stopped {
    /// Returns `None` if it does not stop, because it has ended for example.
    pub(super) fn stop(group: Pid) -> Option<Stopped> {
        let (stopped, began) = (Stopped(group), Instant::now());
        while began.elapsed() < STOPS_WITHIN {
            kill_process_group(group, Signal::STOP).ok()?;
            if stands_still(group) {
                return Some(stopped);
            }
            // A program that starts another one (vfork) waits for that one, which was stopped as well, before it can stop itself.
            let _ = kill_process_group(group, Signal::CONT);
        }
        None
    }
}

/// Waits until the kernel says that it has stopped each of its threads.
fn stands_still(program: Pid) -> bool {
    let how = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    let began = Instant::now();
    while began.elapsed() < STOPS_AT_ONCE {
        if matches!(waitid(WaitId::Pid(program), how), Ok(Some(_))) {
            return true;
        }
        std::thread::sleep(LOOK_FOR_STOP);
    }
    false
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill_process_group(self.0, Signal::CONT);
    }
}
