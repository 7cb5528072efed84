//! What the figures were measured on.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use rejoin_lab::Installation;

/// One line: processors, memory, disk, kernel and server.
pub fn line() -> Result<String> {
    let cores = std::thread::available_parallelism()?;
    let info = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let memory = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next());
    let kib: u64 = memory.and_then(|kib| kib.parse().ok()).context("MemTotal in /proc/meminfo")?;
    let kernel = rustix::system::uname();
    Ok(format!(
        "{cores} cores ({model}), {:.0} GiB of memory, {}, Linux {}, {}; joiner, donor and clients share it",
        kib as f64 / f64::from(1 << 20),
        disk(&tempfile::env::temp_dir())?,
        kernel.release().to_string_lossy(),
        Installation::system()?.version(),
    ))
}

/// The filesystem at `path` and the device below it.
fn disk(path: &Path) -> Result<String> {
    let device = path.metadata().with_context(|| path.display().to_string())?.dev();
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some(&number));
    let filesystem = mount.and_then(|line| line.split_once(" - ")?.1.split(' ').next()).unwrap_or("unknown");
    let Ok(link) = fs::read_link(format!("/sys/dev/block/{number}")) else {
        return Ok(format!("{filesystem} on no disk"));
    };
    let name = link.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // A partition has no queue: its disk has.
    let queues = [format!("{number}/queue"), format!("{number}/../queue")];
    let rotational =
        queues.iter().find_map(|queue| fs::read_to_string(format!("/sys/dev/block/{queue}/rotational")).ok());
    let kind = match rotational.as_deref().map(str::trim) {
        _ if link.to_string_lossy().contains("virtio") => "virtual disk",
        _ if name.starts_with("loop") => "a file",
        Some("0") => "solid state",
        Some(_) => "rotating disk",
        None => "unknown kind of disk",
    };
    Ok(format!("{filesystem} on {name} ({kind})"))
}
