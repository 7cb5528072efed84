//! What the kernel tells of the load: pressure (PSI), the statistics of a disk, and a process's waits for a processor. All of
//! it is counted since some start, so two looks give a difference.
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Threads of a server that are looked at: a look at each is a system call.
const THREADS_MAX: usize = 4096;

/// Writes and flushes of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskWrites {
    count: u64,
    /// How long they took together.
    ms: u64,
}

impl DiskWrites {
    /// The mean time of those since another look; `None` if there were none.
    pub fn mean_since(self, before: DiskWrites) -> Option<Duration> {
        let count = self.count.checked_sub(before.count).filter(|count| *count > 0)?;
        let ms = self.ms.checked_sub(before.ms)?;
        Some(Duration::from_secs_f64(ms as f64 / 1e3 / count as f64))
    }
}

/// The kernel's file for the disk that a directory is on; `None` where its filesystem has no disk of its own.
pub fn disk_file(dir: &Path) -> Option<PathBuf> {
    let device = fs::metadata(dir).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let file = PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat"));
    file.exists().then_some(file)
}

/// Reads it.
pub fn disk_writes(file: &Path) -> Option<DiskWrites> {
    parse_disk(&fs::read_to_string(file).ok()?)
}

/// Fields of `/sys/block/DISK/stat`: see Documentation/block/stat.rst. Flushes are counted since Linux 5.5, and a partition
/// has none of its own.
fn parse_disk(text: &str) -> Option<DiskWrites> {
    let fields: Vec<u64> = text.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
    let (writes, write_ms) = (fields.get(4)?, fields.get(7)?);
    let (flushes, flush_ms) = (fields.get(15).unwrap_or(&0), fields.get(16).unwrap_or(&0));
    Some(DiskWrites { count: writes + flushes, ms: write_ms + flush_ms })
}

/// For how long some thread of this host has waited for a resource (`cpu` or `io`); `None` where the kernel does not tell.
pub fn pressure(resource: &str) -> Option<Duration> {
    parse_pressure(&fs::read_to_string(format!("/proc/pressure/{resource}")).ok()?)
}

/// The line `some avg10=1.44 avg60=6.89 avg300=6.90 total=41584673`, whose total is in microseconds.
fn parse_pressure(text: &str) -> Option<Duration> {
    let line = text.lines().find(|line| line.starts_with("some "))?;
    let total = line.split(' ').find_map(|word| word.strip_prefix("total="))?;
    total.parse().ok().map(Duration::from_micros)
}

/// How long the threads of a process that still live have run, and waited for a processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTimes {
    ran: Duration,
    waited: Duration,
}

impl CpuTimes {
    /// Seconds of waiting for each second of running since another look; `None` if they hardly ran, or threads have
    /// ended meanwhile that were counted before.
    pub fn waits_since(self, before: CpuTimes) -> Option<f64> {
        let ran = self.ran.checked_sub(before.ran).filter(|ran| *ran >= Duration::from_millis(10))?;
        Some(self.waited.checked_sub(before.waited)?.as_secs_f64() / ran.as_secs_f64())
    }
}

/// Of a process; `None` where the kernel does not count waits.
pub fn cpu_times(pid: u32) -> Option<CpuTimes> {
    let mut sum = CpuTimes::default();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten().take(THREADS_MAX) {
        let text = fs::read_to_string(thread.path().join("schedstat"));
        if let Some(times) = text.ok().and_then(|text| parse_cpu_times(&text)) {
            sum = CpuTimes { ran: sum.ran + times.ran, waited: sum.waited + times.waited };
        }
    }
    (sum != CpuTimes::default()).then_some(sum)
}

/// `RAN WAITED TIMES`, in nanoseconds: see Documentation/scheduler/sched-stats.rst.
fn parse_cpu_times(text: &str) -> Option<CpuTimes> {
    let mut numbers = text.split_ascii_whitespace().map_while(|word| word.parse().ok());
    let (ran, waited) = (numbers.next()?, numbers.next()?);
    Some(CpuTimes { ran: Duration::from_nanos(ran), waited: Duration::from_nanos(waited) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        let disk =
            " 64256 9581 3516690 47235 17202 30274 5946680 30667 0 10100 78821 8271 23 1036424 824 2396 94\n";
        let later = " 64256 9581 3516690 47235 17302 30274 5946680 31667 0 10100 78821 8271 23 1036424 824 2496 394\n";
        let (disk, later) = (parse_disk(disk).unwrap(), parse_disk(later).unwrap());
        assert_eq!(disk, DiskWrites { count: 19598, ms: 30761 });
        assert_eq!(later.mean_since(disk), Some(Duration::from_micros(6500)));
        assert_eq!((disk.mean_since(disk), disk.mean_since(later)), (None, None));
        // Of a kernel before 5.5.
        assert_eq!(parse_disk("1 2 3 4 5 6 7 8 9 10 11"), Some(DiskWrites { count: 5, ms: 8 }));
        assert_eq!(parse_disk("1 2 3 4 x"), None);
        let pressure = "some avg10=1.44 avg60=6.89 avg300=6.90 total=41584673\nfull avg10=0.00 total=7\n";
        assert_eq!(parse_pressure(pressure), Some(Duration::from_micros(41_584_673)));
        assert_eq!(parse_pressure("full avg10=0.00 total=7\n"), None);
        assert_eq!(parse_cpu_times("5 7 1"), parse_cpu_times(" 5 7\n"));
        assert_eq!(parse_cpu_times(""), None);
    }

    #[test]
    fn waits_are_counted_for_each_second_that_was_run() {
        let times =
            |ran, waited| CpuTimes { ran: Duration::from_millis(ran), waited: Duration::from_millis(waited) };
        assert_eq!(times(300, 500).waits_since(times(100, 400)), Some(0.5));
        assert_eq!(times(105, 500).waits_since(times(100, 400)), None);
        assert_eq!(times(50, 500).waits_since(times(100, 400)), None);
    }

    #[test]
    fn a_process_that_works_has_run() {
        let own = cpu_times(std::process::id());
        assert!(own.is_none_or(|times| times.ran > Duration::ZERO));
        assert_eq!(cpu_times(u32::MAX), None);
        assert!(disk_file(Path::new("/proc")).is_none(), "no disk");
    }
}
