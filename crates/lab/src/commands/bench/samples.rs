//! What the whole machine did during a join: bytes that the disk below the nodes read and wrote, and processor seconds.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rejoin_lab::watcher::Watcher;

/// What Linux calls a sector, whatever the disk's own are.
const SECTOR: f64 = 512.0;

/// What the kernel has counted since the machine's start.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Counters {
    /// Bytes that the disk read.
    pub read: f64,
    /// Bytes that it wrote.
    pub written: f64,
    /// Seconds in which the processors worked, all of them together.
    pub busy: f64,
}

/// The kernel's counters of the disk that a directory is on; `None` where its filesystem has no disk of its own.
pub fn disk_of(dir: &Path) -> Option<PathBuf> {
    let device = dir.metadata().ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    Some(PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat"))).filter(|file| file.exists())
}

impl Counters {
    /// As they are now. Without a disk its bytes stay 0.
    pub fn now(disk: Option<&Path>) -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("/proc/stat")?;
        let busy = busy(&stat, rustix::param::clock_ticks_per_second()).context("processor times")?;
        let Some(disk) = disk else { return Ok(Self { busy, ..Self::default() }) };
        let text = fs::read_to_string(disk).with_context(|| disk.display().to_string())?;
        let (read, written) = disk_bytes(&text).with_context(|| disk.display().to_string())?;
        Ok(Self { read, written, busy })
    }

    fn between(self, next: Self, part: f64) -> Self {
        let at = |a: f64, b: f64| a + (b - a) * part;
        Self {
            read: at(self.read, next.read),
            written: at(self.written, next.written),
            busy: at(self.busy, next.busy),
        }
    }
}

/// Fields of `/sys/block/DISK/stat`: see Documentation/block/stat.rst.
fn disk_bytes(text: &str) -> Option<(f64, f64)> {
    let fields: Vec<u64> = text.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
    Some((*fields.get(2)? as f64 * SECTOR, *fields.get(6)? as f64 * SECTOR))
}

/// The line `cpu` of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal (proc(5)). What was stolen was not to be
/// had, so that it counts as work.
fn busy(stat: &str, per_second: u64) -> Option<f64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let work = [0, 1, 2, 5, 6, 7].iter().filter_map(|n| fields.get(*n)).sum::<u64>();
    (fields.len() >= 5).then_some(work as f64 / per_second as f64)
}

/// A thread that looks at the counters again and again, so that they are known for any part of a join afterwards.
#[derive(Debug)]
pub struct Samples(Watcher<History>);

/// What it saw.
#[derive(Debug)]
pub struct History {
    disk: Option<PathBuf>,
    all: Vec<(Instant, Counters)>,
}

/// What was used within some time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Used {
    pub seconds: f64,
    /// Bytes read and written; `None` where the disk is not known.
    pub disk: Option<(f64, f64)>,
    /// Processor seconds.
    pub busy: f64,
}

impl Samples {
    const EVERY: Duration = Duration::from_millis(25);

    /// Of the processors, and the disk below `dir`.
    pub fn start(dir: &Path) -> Result<Self> {
        let history = History { disk: disk_of(dir), all: Vec::new() };
        Watcher::start("samples", Self::EVERY, history, History::look).map(Self)
    }

    pub fn stop(self) -> Result<History> {
        self.0.stop()
    }
}

impl History {
    fn look(&mut self) {
        if let Ok(counters) = Counters::now(self.disk.as_deref()) {
            self.all.push((Instant::now(), counters));
        }
    }

    /// What was used between two instants.
    pub fn used(&self, (from, to): (Instant, Instant)) -> Result<Used> {
        let (before, after) = (self.at(from)?, self.at(to)?);
        Ok(Used {
            seconds: (to - from).as_secs_f64(),
            disk: self.disk.is_some().then_some((after.read - before.read, after.written - before.written)),
            busy: after.busy - before.busy,
        })
    }

    /// The counters at an instant: what was counted between two looks is taken to have come evenly.
    fn at(&self, when: Instant) -> Result<Counters> {
        let next = self.all.partition_point(|(seen, _)| *seen < when).min(self.all.len().saturating_sub(1));
        let (later, after) = self.all.get(next).context("no look at the machine's counters")?;
        let Some((earlier, before)) = next.checked_sub(1).map(|last| &self.all[last]) else {
            return Ok(*after);
        };
        let part = (when - *earlier).as_secs_f64() / (*later - *earlier).as_secs_f64().max(1e-9);
        Ok(before.between(*after, part.min(1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_read() {
        let disk = "   29836     5491  2660866     6899    16475    25274  4843640    28501        0\n";
        assert_eq!(disk_bytes(disk), Some((2_660_866.0 * 512.0, 4_843_640.0 * 512.0)));
        assert_eq!(disk_bytes("1 2 3"), None);
        let stat = "cpu  100 20 30 4000 500 6 7 8 0 0\ncpu0 1 2 3 4\n";
        assert_eq!(busy(stat, 100), Some(1.71));
        assert_eq!(busy("intr 1\n", 100), None);
    }

    #[test]
    fn a_part_of_a_join_has_its_share_of_what_was_counted() {
        let start = Instant::now();
        let look = |ms: u64, n: f64| {
            (start + Duration::from_millis(ms), Counters { read: n, written: 2.0 * n, busy: n / 10.0 })
        };
        let disk = Some(PathBuf::new());
        let history = History { disk, all: vec![look(0, 0.0), look(100, 10.0), look(200, 30.0)] };
        let within = |from, to| {
            let at = |ms| start + Duration::from_millis(ms);
            history.used((at(from), at(to))).unwrap()
        };
        let used = within(50, 150);
        let (read, written) = used.disk.unwrap();
        assert!((read - 15.0).abs() < 1e-6 && (written - 30.0).abs() < 1e-6, "{used:?}");
        assert!((used.busy - 1.5).abs() < 1e-6 && (used.seconds - 0.1).abs() < 1e-6, "{used:?}");
        // Nothing is known of what comes after the last look.
        assert_eq!(within(0, 5000).disk, Some((30.0, 60.0)));
        let blind = History { disk: None, all: vec![look(0, 0.0)] };
        assert_eq!(blind.used((start, start)).unwrap().disk, None);
        assert!(History { disk: None, all: Vec::new() }.used((start, start)).is_err());
    }

    #[test]
    fn this_machine_is_counted() {
        let before = Counters::now(None).unwrap();
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(100) {}
        assert!(Counters::now(None).unwrap().busy > before.busy);
    }
}
