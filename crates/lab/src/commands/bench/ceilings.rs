//! What the machine itself can do: how fast its disk reads and writes, the rate of the link, and the number of processors.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use rejoin_lab::link::Link;
use rejoin_lab::page_cache::data_files;
use transfer::disk::direct::Buffer;

use super::samples::{Counters, disk_of};

/// Bytes of a request.
const BLOCK: usize = 4 << 20;
/// Requests under way at the same time: a disk is not as fast as it can be with one.
const AT_ONCE: usize = 4;
/// Requests of one measurement, at most: 1 GiB.
const REQUESTS: usize = 256;
/// How often each is measured. The best one counts: what else the machine does makes a disk slower, never faster.
const TIMES: u32 = 3;

/// Bytes a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Disk {
    pub read: f64,
    pub write: f64,
}

/// What no transfer can be faster than.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ceilings {
    /// `None` where the filesystem has no disk of its own, or reads and writes only through the page cache.
    pub disk: Option<Disk>,
    /// `None` on loopback.
    pub link: Option<Link>,
    pub processors: usize,
}

impl Ceilings {
    /// Reads the files of `datadir` and writes others in `dir` on the same filesystem, both past the page cache.
    pub fn measure(datadir: &Path, dir: &Path, link: Option<Link>) -> Result<Self> {
        let processors = std::thread::available_parallelism()?.get();
        let mut best: Option<Disk> = None;
        for _ in 0..TIMES {
            let Some(disk) = measure_disk(datadir, dir)? else { break };
            let last = best.unwrap_or(disk);
            best = Some(Disk { read: disk.read.max(last.read), write: disk.write.max(last.write) });
        }
        Ok(Self { disk: best, link, processors })
    }

    /// The slowest of what all bytes of a full transfer have to pass: the donor's disk, the link and the joiner's disk.
    pub fn slowest(&self) -> Option<f64> {
        let disk = self.disk.map(|disk| disk.read.min(disk.write));
        disk.into_iter().chain(self.link.map(|link| link.rate as f64)).reduce(f64::min)
    }
}

impl fmt::Display for Ceilings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.disk {
            None => f.write_str("disk not known")?,
            Some(Disk { read, write }) => {
                write!(f, "disk reads {:.0} MB/s and writes {:.0} MB/s", read / 1e6, write / 1e6)?;
            }
        }
        match self.link {
            None => f.write_str(", loopback")?,
            Some(link) => write!(f, ", a link of {link}")?,
        }
        write!(f, ", {} processors", self.processors)
    }
}

fn measure_disk(datadir: &Path, dir: &Path) -> Result<Option<Disk>> {
    let Some(stat) = disk_of(dir) else { return Ok(None) };
    match rates(&stat, datadir, dir) {
        Err(e) if is_refused(&e) => Ok(None),
        disk => disk.map(Some),
    }
}

fn rates(stat: &Path, datadir: &Path, dir: &Path) -> Result<Disk> {
    let rate = |work: &dyn Fn() -> Result<()>, counted: fn(&Counters) -> f64| -> Result<f64> {
        let (before, began) = (Counters::now(Some(stat))?, Instant::now());
        work()?;
        let seconds = began.elapsed().as_secs_f64();
        // What the disk did, not what was asked of it: a file may have parts that are not on the disk.
        Ok((counted(&Counters::now(Some(stat))?) - counted(&before)) / seconds)
    };
    let write = rate(&|| write_all(dir), |counters| counters.written)?;
    Ok(Disk { read: rate(&|| read_all(datadir), |counters| counters.read)?, write })
}

/// Filesystems that know no direct requests say so when a file is opened.
fn is_refused(error: &anyhow::Error) -> bool {
    let refused = |e: &io::Error| e.kind() == io::ErrorKind::InvalidInput;
    error.downcast_ref::<io::Error>().is_some_and(refused)
}

/// Reads the first of the largest files of a datadir.
fn read_all(datadir: &Path) -> Result<()> {
    let files = data_files(datadir)?;
    let mut files: Vec<(u64, PathBuf)> =
        files.into_iter().filter_map(|path| Some((path.metadata().ok()?.len(), path))).collect();
    files.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    let starts =
        |(length, path): (u64, PathBuf)| (0..length).step_by(BLOCK).map(move |at| (path.clone(), at));
    let blocks: Vec<(PathBuf, u64)> = files.into_iter().flat_map(starts).take(REQUESTS).collect();
    let next = AtomicUsize::new(0);
    each_thread(|_| {
        let mut buffer = Buffer::new(BLOCK);
        while let Some((path, at)) = blocks.get(next.fetch_add(1, Relaxed)) {
            let file = direct().read(true).open(path).with_context(|| path.display().to_string())?;
            file.read_at(buffer.bytes(), *at)?;
        }
        Ok(())
    })
}

/// Writes and syncs a file for each thread.
fn write_all(dir: &Path) -> Result<()> {
    each_thread(|number| {
        let path = dir.join(format!("ceiling-{number}"));
        let written = write_file(&path);
        // Also when the disk is full.
        let removed = fs::remove_file(&path);
        written.and(removed).with_context(|| path.display().to_string())
    })
}

fn write_file(path: &Path) -> io::Result<()> {
    let mut buffer = Buffer::new(BLOCK);
    fastrand::Rng::with_seed(1).fill(buffer.bytes());
    let file: File = direct().write(true).create(true).truncate(true).open(path)?;
    (0..REQUESTS / AT_ONCE).try_for_each(|n| file.write_all_at(buffer.bytes(), (n * BLOCK) as u64))?;
    file.sync_all()
}

fn direct() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.custom_flags(rustix::fs::OFlags::DIRECT.bits() as i32);
    options
}

fn each_thread(work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..AT_ONCE).map(|number| scope.spawn(move || work(number))).collect();
        let ended =
            threads.into_iter().map(|t| t.join().map_err(|_| anyhow!("a measuring thread panicked"))?);
        ended.collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIGABIT: Link = Link { rate: 125_000_000, round_trip: None };

    #[test]
    fn the_slowest_of_what_all_bytes_pass() {
        let disk = Some(Disk { read: 3e9, write: 1e9 });
        let slowest = |disk, link| Ceilings { disk, link, processors: 2 }.slowest();
        assert_eq!(slowest(disk, None), Some(1e9));
        assert_eq!(slowest(disk, Some(GIGABIT)), Some(125e6));
        assert_eq!(slowest(None, None), None);
    }

    #[test]
    fn they_are_told_with_their_units() {
        let ceilings =
            Ceilings { disk: Some(Disk { read: 2.8e9, write: 1.4e9 }), link: Some(GIGABIT), processors: 2 };
        let told = "disk reads 2800 MB/s and writes 1400 MB/s, a link of 125 MB/s, 2 processors";
        assert_eq!(ceilings.to_string(), told);
        let unknown = Ceilings { disk: None, link: None, processors: 1 };
        assert_eq!(unknown.to_string(), "disk not known, loopback, 1 processors");
    }
}
