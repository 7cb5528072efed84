//! How much memory a private server takes for its pages: enough to load quickly, within what this host has left.
use std::fs;
use std::path::{Path, PathBuf};

/// Enough for rows that come in order, and keys that are sorted.
const ENOUGH: u64 = 1 << 30;
/// What a server of this kind takes by default.
const LEAST: u64 = 128 << 20;

/// The size of its buffer pool. `configured`: that of the joiner's server.
pub(super) fn buffer_pool(configured: Option<u64>) -> u64 {
    chosen(configured, available().unwrap_or(0))
}

/// The joiner's server may be running beside it, or wait until it can take its own memory.
fn chosen(configured: Option<u64>, available: u64) -> u64 {
    let wanted = configured.unwrap_or(LEAST).max(ENOUGH.min(available / 4));
    wanted.min((available / 2).max(LEAST))
}

/// Bytes that can be taken without others being swapped out; none if the system does not say.
fn available() -> Option<u64> {
    let host = in_meminfo(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let own = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| directory(&text));
    Some(own.and_then(|own| left_in(&own)).map_or(host, |left| left.min(host)))
}

fn in_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

/// The directory of the control group (version 2) that a container's limit is in.
fn directory(text: &str) -> Option<PathBuf> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new("/sys/fs/cgroup").join(path))
}

/// Bytes that a limited group has left.
fn left_in(group: &Path) -> Option<u64> {
    let number = |name: &str| fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    Some(number("memory.max")?.saturating_sub(number("memory.current")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_what_is_configured_or_enough_within_what_is_left() {
        let mib = |n: u64| n << 20;
        assert_eq!(chosen(Some(mib(96)), mib(16_000)), mib(1024));
        assert_eq!(chosen(Some(mib(6000)), mib(16_000)), mib(6000));
        assert_eq!(chosen(Some(mib(12_000)), mib(16_000)), mib(8000));
        assert_eq!(chosen(None, mib(1000)), mib(250));
        assert_eq!(chosen(Some(mib(600)), 0), LEAST);
    }

    #[test]
    fn what_the_system_says_is_read() {
        assert_eq!(in_meminfo("MemTotal: 9 kB\nMemAvailable:   12 kB\n"), Some(12 << 10));
        assert_eq!(in_meminfo("MemTotal: 9 kB\n"), None);
        assert_eq!(directory("1:x:/y\n0::/a/b\n"), Some(PathBuf::from("/sys/fs/cgroup/a/b")));
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("memory.max"), "1000\n").unwrap();
        fs::write(dir.path().join("memory.current"), "1200\n").unwrap();
        assert_eq!(left_in(dir.path()), Some(0));
        fs::write(dir.path().join("memory.max"), "max\n").unwrap();
        assert_eq!(left_in(dir.path()), None);
        assert!(available().is_some());
    }
}
