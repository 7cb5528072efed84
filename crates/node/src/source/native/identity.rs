//! Which file a name stands for at the moment, and whether it changed since.
//!
//! DDL renames files while they are copied, and filesystems use inode numbers again at once. So a file is known by
//! device, inode and birth time; of data files made during the copy the tablespace's number is looked at as well,
//! because birth times are only as fine as the kernel's clock tick (4 ms).
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use formats::SpaceId;
use formats::innodb::tablespace::{PAGE0_BYTES, parse_page0};
use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, statx};

/// A file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    device: (u32, u32),
    inode: u64,
    /// Nanoseconds since the epoch; 0 where the filesystem does not tell.
    birth: i128,
}

/// Changes whenever a file's content may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    changed: i128,
    /// Length in bytes.
    pub size: u64,
}

impl Signature {
    /// When the file changed, in nanoseconds since the epoch.
    pub fn changed(&self) -> i128 {
        self.changed
    }

    /// One that no file has.
    pub fn unsure(self) -> Signature {
        Signature { changed: -1, ..self }
    }
}

/// The time, as files are stamped: nanoseconds since the epoch.
pub fn now() -> i128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| d.as_nanos() as i128)
}

/// What a look at a name shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Which file.
    pub identity: Identity,
    /// In which state.
    pub signature: Signature,
    /// Bytes allocated.
    pub allocated: u64,
    /// What kind of thing it is.
    pub is_file: bool,
}

impl Identity {
    /// When the file was made, in nanoseconds since the epoch; 0 where the filesystem does not tell.
    pub fn birth(&self) -> i128 {
        self.birth
    }
}

/// Looks at a path, links followed. `None` when nothing is there.
///
/// # Errors
/// Anything but absence.
pub fn look(path: &Path) -> io::Result<Option<Look>> {
    let flags = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    match statx(CWD, path, AtFlags::empty(), flags) {
        Ok(stat) => Ok(Some(from_statx(&stat))),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// As [`look`], of an open file.
///
/// # Errors
/// From the system call.
pub fn look_at(file: &File) -> io::Result<Look> {
    let stat = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?;
    Ok(from_statx(&stat))
}

fn from_statx(stat: &Statx) -> Look {
    let nanos = |t: &rustix::fs::StatxTimestamp| i128::from(t.tv_sec) * 1_000_000_000 + i128::from(t.tv_nsec);
    let known = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
    Look {
        identity: Identity {
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            birth: if known { nanos(&stat.stx_btime) } else { 0 },
        },
        signature: Signature { changed: nanos(&stat.stx_ctime), size: stat.stx_size },
        allocated: stat.stx_blocks.saturating_mul(512),
        is_file: rustix::fs::FileType::from_raw_mode(u32::from(stat.stx_mode)).is_file(),
    }
}

/// The tablespace's number, from the file's first page; `None` while that is not written or cannot be read.
pub fn space_of(path: &Path) -> Option<SpaceId> {
    let mut head = [0; PAGE0_BYTES];
    File::open(path).ok()?.read_exact_at(&mut head, 0).ok()?;
    parse_page0(&head).ok().map(|header| header.space)
}
