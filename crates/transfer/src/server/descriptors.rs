//! Descriptors that the server leaks into its scripts: its error log, grastate.dat, pipes of other scripts.
use std::os::fd::{FromRawFd, OwnedFd};

/// Closes every descriptor above stderr. Must run before the process opens anything.
#[expect(unsafe_code, reason = "descriptors we were born with have no owner in this program")]
pub fn close_inherited() {
    let Ok(names) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers: Vec<i32> = names
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .collect();
    for number in numbers {
        // The descriptor that listed the directory is closed by now; closing it again must not abort.
        if std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_ok() {
            // SAFETY: nothing in this process has opened a descriptor yet, so nobody else will close or use it.
            drop(unsafe { OwnedFd::from_raw_fd(number) });
        }
    }
}
