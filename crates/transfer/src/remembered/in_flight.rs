//! When no write to a disk was in flight.
//!
//! The kernel sets a file's times before the write reaches the disk, and a write may be on its way for minutes: while a path of
//! multipath is lost, or a volume behind a network. Its file looks as if it had been left alone, and what is read meanwhile is
//! what that write will replace. At an instant at which the disk has no write in flight, everything that set a file's times
//! earlier has reached it, or was not begun.
//!
//! `inflight` of a block device: Documentation/ABI/stable/sysfs-block of Linux, `iostats` of its queue: queue-sysfs.
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::disk::identity::now;
use crate::threads::lock;

/// How long an instant is good enough for the files that are read next, and how long a disk without one is left alone.
const GOOD_FOR: Duration = Duration::from_secs(1);
const BUSY_FOR: Duration = Duration::from_secs(10);
/// How often a busy disk is looked at in a row, and how long after each other.
const LOOKS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(1);

static DISKS: Mutex<BTreeMap<(u32, u32), Disk>> = Mutex::new(BTreeMap::new());

/// What is known of a disk.
#[derive(Debug, Default)]
struct Disk {
    look_at: Option<Instant>,
    quiet: Option<i128>,
}

/// The last known time, in nanoseconds since 1970, at which no write to this device was in flight. `None` if none was seen, or if
/// the kernel does not count: then nothing that a server may write to is to be remembered.
pub fn quiet(device: (u32, u32)) -> Option<i128> {
    let mut disks = lock(&DISKS);
    let disk = disks.entry(device).or_default();
    if disk.look_at.is_none_or(|at| Instant::now() >= at) {
        let queue = queue_of(Path::new("/sys/dev/block"), device);
        let found = find(|| writes_in_flight(queue.as_deref()?));
        disk.look_at = Some(Instant::now() + if found.is_some() { GOOD_FOR } else { BUSY_FOR });
        disk.quiet = found.or(disk.quiet);
    }
    disk.quiet
}

/// Looks until no write is in flight.
fn find(mut writes: impl FnMut() -> Option<u64>) -> Option<i128> {
    for _ in 0..LOOKS {
        let at = now();
        if writes()? == 0 {
            return Some(at);
        }
        thread::sleep(PAUSE);
    }
    None
}

/// The directory of the device, if its requests are counted. A partition's are counted by the queue of its disk.
fn queue_of(devices: &Path, (major, minor): (u32, u32)) -> Option<PathBuf> {
    let device = devices.join(format!("{major}:{minor}"));
    let counts = |file: &str| fs::read_to_string(device.join(file)).ok().map(|text| text.trim() == "1");
    counts("queue/iostats").or_else(|| counts("../queue/iostats"))?.then_some(device)
}

/// The second number of `inflight`; the first one is that of reads.
fn writes_in_flight(device: &Path) -> Option<u64> {
    fs::read_to_string(device.join("inflight")).ok()?.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device as in `/sys/dev/block`.
    fn device(iostats: Option<&str>, inflight: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("8:1");
        fs::create_dir_all(device.join("queue")).unwrap();
        if let Some(text) = iostats {
            fs::write(device.join("queue/iostats"), text).unwrap();
        }
        fs::write(device.join("inflight"), inflight).unwrap();
        dir
    }

    #[test]
    fn only_a_device_that_counts_is_ever_quiet() {
        let of = |iostats, inflight: &str| {
            let dir = device(iostats, inflight);
            let queue = queue_of(dir.path(), (8, 1));
            queue.and_then(|queue| find(|| writes_in_flight(&queue)))
        };
        assert!(of(Some("1\n"), "       7        0\n").is_some(), "reads do not matter");
        assert_eq!(of(Some("1\n"), "       0        1\n"), None, "a write that hangs");
        assert_eq!(of(Some("0\n"), "       0        0\n"), None, "nothing is counted");
        assert_eq!(of(None, "       0        0\n"), None);
        assert_eq!(of(Some("1\n"), ""), None);
    }

    #[test]
    fn the_disk_of_a_partition_counts_for_it() {
        let dir = device(None, "0 0\n");
        fs::create_dir_all(dir.path().join("queue")).unwrap();
        fs::write(dir.path().join("queue/iostats"), "1\n").unwrap();
        assert!(queue_of(dir.path(), (8, 1)).is_some());
    }

    #[test]
    fn the_time_is_from_before_the_look_at_which_nothing_was_in_flight() {
        let (mut looks, mut last) = (0, 0);
        let quiet = find(|| {
            (looks, last) = (looks + 1, now());
            Some(u64::from(looks < 3))
        });
        assert!(looks == 3 && quiet.is_some_and(|at| at <= last));
        assert_eq!(find(|| Some(1)), None);
    }
}
