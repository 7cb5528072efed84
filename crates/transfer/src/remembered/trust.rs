//! When a fingerprint may be remembered, and when it counts later. Decision 0045 gives the argument for every rule.
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use protocol::remembered::{FileState, Written};
use rustix::time::{ClockId, clock_gettime};

use crate::disk::identity::{self, Look};
use crate::threads::lock;

/// A file must have been left alone for this long at an instant at which no write to its disk was in flight, before it was read.
/// The kernel sets a file's times before it writes the data, and a write may hang for longer than this ([`super::in_flight`]).
pub const SETTLED: Duration = Duration::from_secs(120);

/// How much smaller the clock minus the time since boot may be later without the clock having been set back: both are read within
/// [`TOGETHER_NS`]. What is installed waits longer than this and a tick of the kernel's clock.
const SET_BACK_NS: i64 = 5_000_000;
/// The two clocks are read again if more than this passed between them.
const TOGETHER_NS: i64 = 1_000_000;
/// So many times. A host that is so slow remembers nothing.
const READINGS: u32 = 100;

/// Filesystems of which it is known that every write sets the times first, in nanoseconds, and that device and inode name
/// one file as long as they are mounted.
const KNOWN_GOOD: [&str; 2] = ["ext4", "xfs"];

/// The mounts of the filesystems that were looked at. A filesystem on which this program has files open stays mounted.
static MOUNTS: Mutex<BTreeMap<(u32, u32), u64>> = Mutex::new(BTreeMap::new());

/// The boot of this host, and its clocks. `None` where they cannot be read: then nothing is remembered.
pub fn moment() -> Option<Written> {
    let boot = boot()?;
    let read = || {
        let (before, at, after) = (since_boot(), i64::try_from(identity::now()).ok()?, since_boot());
        Some(Written { boot, at, ahead: at.saturating_sub(before) }).filter(|_| after - before <= TOGETHER_NS)
    };
    (0..READINGS).find_map(|_| read())
}

/// The number of this host's boot.
pub fn boot() -> Option<[u8; 16]> {
    boot_of(&fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?)
}

/// Nanoseconds, those of a suspended host among them.
fn since_boot() -> i64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

/// A UUID as bytes.
fn boot_of(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32).map(u128::to_be_bytes)
}

/// Fails, with the reason, if nothing of a list counts any more that was `written` then.
///
/// # Errors
/// The host was started again, or its clock was set back.
pub fn counts(written: &Written, now: &Written) -> Result<(), &'static str> {
    // In a container every boot may have the same number.
    let since_boot = |moment: &Written| moment.at.saturating_sub(moment.ahead);
    if written.boot != now.boot || since_boot(now) < since_boot(written) {
        return Err("the host was started again since");
    }
    if now.at < written.at || now.ahead < written.ahead.saturating_sub(SET_BACK_NS) {
        return Err("the clock was set back since");
    }
    Ok(())
}

/// The state of a file.
pub fn state_of(look: &Look) -> FileState {
    FileState {
        device: look.identity.device(),
        mount: mount_of(look.identity.device()),
        inode: look.identity.inode(),
        birth: look.identity.birth() as i64,
        size: look.signature.size,
        modified: look.modified,
        changed: look.signature.changed() as i64,
    }
}

/// Whether a file had been left alone for long enough at this time in nanoseconds since 1970, before reading it began. A time
/// in the future is not long ago.
pub fn is_settled(state: &FileState, quiet: i128) -> bool {
    let newest = i128::from(state.modified.max(state.changed));
    newest + SETTLED.as_nanos() as i128 <= quiet
}

/// Whether a server that runs may write to a file of this name without setting its times: MyISAM, with
/// `myisam_use_mmap`, sets them once for many writes.
pub fn may_be_mapped(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "MYD" || extension == "MYI")
}

/// Whether the times of a file can be relied upon: it is on a filesystem that is known, and its inode has room for
/// nanoseconds. An inode without a time of birth has not (ext4 with inodes of 128 bytes, XFS of version 4).
pub fn is_good(state: &FileState) -> bool {
    state.birth != 0 && state.mount != 0
}

/// Which mount of a filesystem this is. The kernel makes a directory for each one and never gives its number again as long as
/// it runs. 0 for a filesystem that is not known to be good.
fn mount_of(device: (u32, u32)) -> u64 {
    *lock(&MOUNTS).entry(device).or_insert_with(|| find_mount(device).unwrap_or(0))
}

fn find_mount((major, minor): (u32, u32)) -> Option<u64> {
    let device = fs::read_link(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let name = device.file_name()?.to_str()?;
    let number = |kind: &&str| Some(fs::metadata(format!("/sys/fs/{kind}/{name}")).ok()?.ino());
    KNOWN_GOOD.iter().find_map(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn a_list_of_another_boot_or_of_a_later_time_does_not_count() {
        let written = Written { boot: [1; 16], at: 1000 * SECOND, ahead: 400 * SECOND };
        let now = |at, ahead| Written { at, ahead, ..written };
        assert_eq!(counts(&written, &written), Ok(()));
        assert_eq!(counts(&written, &now(1060 * SECOND, 400 * SECOND)), Ok(()));
        // The clock was set forward.
        assert_eq!(counts(&written, &now(5000 * SECOND, 900 * SECOND)), Ok(()));
        let back = Err("the clock was set back since");
        assert_eq!(counts(&written, &now(999 * SECOND, 398 * SECOND)), back);
        // It is later than then although the clock was set back meanwhile.
        assert_eq!(counts(&written, &now(1060 * SECOND, 399 * SECOND)), back);
        // By less than the 20 ms that an installed file waits for.
        assert_eq!(counts(&written, &now(1060 * SECOND, 400 * SECOND - 6_000_000)), back);
        let again = Err("the host was started again since");
        assert_eq!(counts(&written, &Written { boot: [2; 16], ..written }), again);
        // The same number of the boot, and a shorter time since it.
        assert_eq!(counts(&written, &now(1060 * SECOND, 1000 * SECOND)), again);
    }

    #[test]
    fn only_a_file_that_was_left_alone_is_settled() {
        let of = |modified: i64, changed: i64| FileState { modified, changed, ..FileState::default() };
        let (began, margin) = (10_000 * SECOND, SETTLED.as_secs() as i64 * SECOND);
        let is = |modified, changed| is_settled(&of(modified, changed), i128::from(began));
        assert!(is(began - margin, began - margin) && is(0, 0));
        // One of the two times is too new, or in the future.
        assert!(!is(began - margin + 1, 0) && !is(0, began - margin + 1) && !is(0, began + margin));
    }

    #[test]
    fn this_host_has_a_boot_and_clocks() {
        let [first, second] = [moment().unwrap(), moment().unwrap()];
        assert_eq!(counts(&first, &second), Ok(()));
        assert!(boot_of("8f2b7e6a-0c1d-4f5e-9a3b-1c2d3e4f5a6b\n").is_some());
        assert!(boot_of("").is_none() && boot_of("0\n").is_none());
    }

    #[test]
    fn a_filesystem_that_is_not_known_is_not_good() {
        let of = |path: &str| state_of(&identity::look(Path::new(path)).unwrap().unwrap());
        assert!(!is_good(&of("/proc/self/stat")), "no disk");
        let good = FileState { birth: 1, mount: 1, ..FileState::default() };
        assert!(is_good(&good) && !is_good(&FileState { birth: 0, ..good }), "no time of birth");
        assert!(may_be_mapped(Path::new("/d/t.MYD")) && !may_be_mapped(Path::new("/d/t.ibd")));
    }
}
