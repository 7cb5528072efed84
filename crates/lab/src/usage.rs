//! What processes cost, as the kernel counts it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process;
use crate::watcher::Watcher;

/// Seconds of processor time, user and system.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CpuSeconds {
    /// Of the process itself.
    pub own: f64,
    /// Of its children that ended and that it waited for, and of theirs. A server waits for its SST programs.
    pub children: f64,
}

impl CpuSeconds {
    /// Of the live process `pid`, since its start.
    pub fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let stat = fs::read_to_string(&path).context(path)?;
        Self::parse(&stat, rustix::param::clock_ticks_per_second()).context("processor times in /proc")
    }

    /// What was used since `before`.
    pub fn since(self, before: Self) -> Self {
        Self { own: self.own - before.own, children: self.children - before.children }
    }

    /// utime, stime, cutime and cstime are the fields 14 to 17 (proc(5)); the name, field 2, may hold spaces.
    fn parse(stat: &str, per_second: u64) -> Option<Self> {
        let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
        let ticks = |n: usize| fields.get(n - 3)?.parse::<u64>().ok();
        let seconds = |a: u64, b: u64| (a + b) as f64 / per_second as f64;
        Some(Self { own: seconds(ticks(14)?, ticks(15)?), children: seconds(ticks(16)?, ticks(17)?) })
    }
}

/// A thread that looks again and again at the memory of all descendants of a process.
#[derive(Debug)]
pub struct PeakMemory(Watcher<Peak>);

#[derive(Debug)]
struct Peak {
    of: u32,
    bytes: u64,
}

impl PeakMemory {
    const EVERY: Duration = Duration::from_millis(100);

    /// Of what the process `pid` starts.
    pub fn watch(pid: u32) -> Result<Self> {
        Watcher::start("memory", Self::EVERY, Peak { of: pid, bytes: 0 }, Peak::look).map(Self)
    }

    /// The most bytes that all of them together had resident at one time.
    pub fn stop(self) -> Result<u64> {
        Ok(self.0.stop()?.bytes)
    }
}

impl Peak {
    fn look(&mut self) {
        self.bytes = self.bytes.max(self.others().map(resident).sum());
    }

    fn look_back(&mut self) {
        self.bytes = self.others().map(high_water).fold(self.bytes, u64::max);
    }

    /// A child that has not become its program yet still has its parent's memory.
    fn others(&self) -> impl Iterator<Item = u32> + use<> {
        let program = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).ok();
        let parent = program(self.of);
        process::children(self.of).into_iter().filter(move |&pid| program(pid) != parent)
    }
}

/// A thread that reads what the kernel remembers of each descendant: nothing is missed between two looks.
#[derive(Debug)]
pub struct HighWater(Watcher<Peak>);

impl HighWater {
    const EVERY: Duration = Duration::from_millis(20);

    /// Of what the process `pid` starts.
    pub fn watch(pid: u32) -> Result<Self> {
        Watcher::start("high water", Self::EVERY, Peak { of: pid, bytes: 0 }, Peak::look_back).map(Self)
    }

    /// The most bytes that one of them ever had resident.
    pub fn stop(self) -> Result<u64> {
        Ok(self.0.stop()?.bytes)
    }
}

/// A thread that reads the processor time of each descendant of a process. What the kernel tells of children that ended is one sum
/// for all programs.
#[derive(Debug)]
pub struct ProgramSeconds(Watcher<Programs>);

#[derive(Debug)]
struct Programs {
    of: u32,
    /// Name and seconds of each process, as of the last look.
    seen: BTreeMap<u32, (String, f64)>,
}

impl ProgramSeconds {
    const EVERY: Duration = Duration::from_millis(50);

    /// Of what the process `pid` starts.
    pub fn watch(pid: u32) -> Result<Self> {
        let nothing = Programs { of: pid, seen: BTreeMap::new() };
        Watcher::start("processor time", Self::EVERY, nothing, Programs::look).map(Self)
    }

    /// The seconds of each program, by its name.
    pub fn stop(self) -> Result<BTreeMap<String, f64>> {
        let mut sums = BTreeMap::new();
        for (name, seconds) in self.0.stop()?.seen.into_values() {
            *sums.entry(name).or_default() += seconds;
        }
        Ok(sums)
    }
}

impl Programs {
    fn look(&mut self) {
        for pid in process::children(self.of) {
            let exe = fs::read_link(format!("/proc/{pid}/exe")).ok();
            let name = exe.and_then(|exe| Some(exe.file_name()?.to_string_lossy().into_owned()));
            if let (Some(name), Ok(seconds)) = (name, CpuSeconds::of(pid)) {
                self.seen.insert(pid, (name, seconds.own));
            }
        }
    }
}

/// The most bytes a process ever had resident, since it became its program; 0 when it is gone.
pub(crate) fn high_water(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Bytes of a process in memory; 0 when it is gone.
fn resident(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages = text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn times_of_a_process_whose_name_holds_a_parenthesis() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 200 0 0 150 50 300 100 20 0 1 0 5 0 0";
        assert_eq!(CpuSeconds::parse(stat, 100), Some(CpuSeconds { own: 2.0, children: 4.0 }));
        assert_eq!(CpuSeconds::parse("7 (a) S 1", 100), None);
    }

    #[test]
    fn what_a_child_used_is_seen_after_its_end() {
        let before = CpuSeconds::of(std::process::id()).unwrap();
        let burn = "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done";
        assert!(Command::new("sh").args(["-c", burn]).status().unwrap().success());
        let used = CpuSeconds::of(std::process::id()).unwrap().since(before);
        assert!(used.children > 0.02, "{used:?}");
    }

    #[test]
    fn a_program_is_counted_under_its_own_name() {
        let watch = ProgramSeconds::watch(std::process::id()).unwrap();
        let burn = "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done";
        assert!(Command::new("sh").args(["-c", burn]).status().unwrap().success());
        let sh = crate::places::program("sh").unwrap().canonicalize().unwrap();
        let sums = watch.stop().unwrap();
        assert!(sums[sh.file_name().unwrap().to_str().unwrap()] > 0.02, "{sums:?}");
    }

    #[test]
    fn the_memory_of_grandchildren_counts() {
        let mut shell = Command::new("sh").args(["-c", "sleep 60 & wait"]).spawn().unwrap();
        let watch = PeakMemory::watch(std::process::id()).unwrap();
        std::thread::sleep(Duration::from_millis(500));
        let found = process::children(shell.id()).len();
        let peak = watch.stop().unwrap();
        process::children(shell.id())
            .into_iter()
            .for_each(|pid| process::signal(pid, rustix::process::Signal::KILL));
        shell.wait().unwrap();
        assert_eq!(found, 1);
        assert!(peak > 2 * 100_000, "{peak}");
    }
}
