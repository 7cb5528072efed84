//! Copying a part of a file to the same place in another file, and clearing a part. The filesystem does it
//! where it can.
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use anyhow::Result;
use rustix::fs::FallocateFlags;

use super::holes::DataOf;

/// Bytes per step where the kernel does not copy.
const STEP: usize = 1 << 20;

/// Bytes of a step of [`copy_ranges`].
const PROGRESS_BYTES: usize = 64 << 20;

/// As [`copy_range`], of several ranges. Calls `step` after each 64 MiB at most.
pub fn copy_ranges(
    from: &File,
    data: &DataOf,
    into: &File,
    ranges: &[Range<u64>],
    step: &dyn Fn(),
) -> Result<()> {
    for range in ranges {
        for at in range.clone().step_by(PROGRESS_BYTES) {
            copy_range(from, data, into, at..range.end.min(at.saturating_add(PROGRESS_BYTES as u64)))?;
            step();
        }
    }
    Ok(())
}

/// Copies bytes to the same place in another file. Holes stay holes.
pub fn copy_range(from: &File, data: &DataOf, into: &File, range: Range<u64>) -> Result<()> {
    let mut at = range.start;
    for data in data.within(from, range.clone()).iter() {
        clear(into, at, data.start - at)?;
        copy_data(from, into, data.clone())?;
        at = data.end;
    }
    Ok(clear(into, at, range.end - at)?)
}

fn copy_data(from: &File, into: &File, data: Range<u64>) -> Result<()> {
    let (mut at, mut to, end) = (data.start, data.start, data.end);
    while at < end {
        let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut at), into, Some(&mut to), wanted) {
            Ok(0) => anyhow::bail!("the file ends at {at}, before {end}"),
            Ok(_) => {}
            Err(_) => return copy_bytes(from, into, at, end),
        }
    }
    Ok(())
}

fn copy_bytes(from: &File, into: &File, mut at: u64, end: u64) -> Result<()> {
    let mut buffer = vec![0; STEP];
    while at < end {
        let step = (end - at).min(STEP as u64) as usize;
        from.read_exact_at(&mut buffer[..step], at)?;
        into.write_all_at(&buffer[..step], at)?;
        at += step as u64;
    }
    Ok(())
}

/// Zeroes bytes of a file, as a hole where the filesystem supports it. The file does not grow.
pub fn clear(file: &File, offset: u64, length: u64) -> std::io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(file, punch, offset, length) {
        Err(rustix::io::Errno::OPNOTSUPP) => write_zeros(file, offset, length),
        done => done.map_err(std::io::Error::from),
    }
}

fn write_zeros(file: &File, offset: u64, length: u64) -> std::io::Result<()> {
    let zeros = [0; 64 << 10];
    let mut done = 0;
    while done < length {
        let step = (length - done).min(zeros.len() as u64) as usize;
        file.write_all_at(&zeros[..step], offset + done)?;
        done += step as u64;
    }
    Ok(())
}
