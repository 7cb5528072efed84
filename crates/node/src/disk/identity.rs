//! Which file a name stands for at the moment, and whether it changed since.
//!
//! DDL renames files while they are copied, and filesystems use inode numbers again at once. So a file is known by
//! device, inode and birth time; of data files made during the copy the tablespace's number is looked at as well,
//! because birth times are only as fine as the kernel's clock tick (4 ms).
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

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

/// What a look at a name has shown.
pub fn of(meta: &Metadata) -> Look {
    let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    let born = meta.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    Look {
        identity: Identity {
            device: (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev())),
            inode: meta.ino(),
            birth: born.map_or(0, |born| born.as_nanos() as i128),
        },
        signature: Signature { changed: nanos(meta.ctime(), meta.ctime_nsec()), size: meta.len() },
        allocated: meta.blocks().saturating_mul(512),
        is_file: meta.is_file(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_look_show_the_same() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [1; 5000]).unwrap();
        let meta = std::fs::metadata(file.path()).unwrap();
        assert_eq!(Some(of(&meta)), look(file.path()).unwrap());
        assert_eq!(of(&meta), look_at(file.as_file()).unwrap());
    }
}
