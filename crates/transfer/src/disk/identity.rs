//! Which file a name refers to at the moment, and whether that file has changed.
//!
//! DDL renames files while they are copied, and filesystems reuse inode numbers at once. So a file is
//! identified by device, inode and birth time. For data files created during the copy the tablespace id is
//! compared as well, because the resolution of birth times is the kernel's clock tick (4 ms).
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, statx};
use serde::{Deserialize, Serialize};

/// A file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Identity {
    device: (u32, u32),
    inode: u64,
    /// Nanoseconds since the epoch; 0 if the filesystem does not record it.
    birth: i64,
}

/// Changes whenever a file's content may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Signature {
    changed: i64,
    /// Length in bytes.
    pub size: u64,
}

impl Signature {
    /// When the file changed, in nanoseconds since the epoch.
    pub fn changed(&self) -> i128 {
        i128::from(self.changed)
    }

    /// Returns a signature that no file has.
    pub fn unsure(self) -> Signature {
        Signature { changed: -1, ..self }
    }
}

/// The current time in the form of file times: nanoseconds since the epoch.
pub fn now() -> i128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| d.as_nanos() as i128)
}

/// What a look at a name shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Encoded", into = "Encoded")]
pub struct Look {
    /// Which file it is.
    pub identity: Identity,
    /// The state of its content.
    pub signature: Signature,
    /// When its content was last modified, in nanoseconds since the epoch. Whatever sets this sets the time in the signature
    /// too.
    pub modified: i64,
    /// Bytes allocated.
    pub allocated: u64,
    /// Whether it is a regular file.
    pub is_file: bool,
}

/// As it is encoded, for very many files at once: their times mostly are the same or near each other, and a small number takes few
/// bytes.
#[derive(Serialize, Deserialize)]
struct Encoded {
    device: (u32, u32),
    inode: u64,
    changed: i64,
    /// Nanoseconds before the change.
    modified: i64,
    born: i64,
    size: u64,
    allocated: u64,
    is_file: bool,
}

impl From<Look> for Encoded {
    fn from(look: Look) -> Encoded {
        let Look { identity, signature, modified, allocated, is_file } = look;
        let changed = signature.changed;
        Encoded {
            device: identity.device,
            inode: identity.inode,
            changed,
            modified: changed.wrapping_sub(modified),
            born: changed.wrapping_sub(identity.birth),
            size: signature.size,
            allocated,
            is_file,
        }
    }
}

impl From<Encoded> for Look {
    fn from(encoded: Encoded) -> Look {
        let Encoded { device, inode, changed, modified, born, size, allocated, is_file } = encoded;
        Look {
            identity: Identity { device, inode, birth: changed.wrapping_sub(born) },
            signature: Signature { changed, size },
            modified: changed.wrapping_sub(modified),
            allocated,
            is_file,
        }
    }
}

impl Identity {
    /// The birth time in nanoseconds since the epoch; 0 if the filesystem does not record it.
    pub fn birth(&self) -> i128 {
        i128::from(self.birth)
    }

    /// Major and minor number of its filesystem.
    pub fn device(&self) -> (u32, u32) {
        self.device
    }

    /// Its inode.
    pub fn inode(&self) -> u64 {
        self.inode
    }
}

/// Stats a path, following links. Returns `None` if nothing exists there.
///
/// # Errors
/// Any error other than absence.
pub fn look(path: &Path) -> io::Result<Option<Look>> {
    let flags = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    match statx(CWD, path, AtFlags::empty(), flags) {
        Ok(stat) => Ok(Some(from_statx(&stat))),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Like [`look`], for an open file.
///
/// # Errors
/// From the system call.
pub fn look_at(file: &File) -> io::Result<Look> {
    let stat = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?;
    Ok(from_statx(&stat))
}

fn from_statx(stat: &Statx) -> Look {
    let nanos = |t: &rustix::fs::StatxTimestamp| stamp(t.tv_sec, i64::from(t.tv_nsec));
    let known = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
    Look {
        identity: Identity {
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            birth: if known { nanos(&stat.stx_btime) } else { 0 },
        },
        signature: Signature { changed: nanos(&stat.stx_ctime), size: stat.stx_size },
        modified: nanos(&stat.stx_mtime),
        allocated: stat.stx_blocks.saturating_mul(512),
        is_file: rustix::fs::FileType::from_raw_mode(u32::from(stat.stx_mode)).is_file(),
    }
}

/// Nanoseconds since the epoch, for the years from 1678 to 2261.
fn stamp(seconds: i64, nanos: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// Converts metadata that was already read.
pub fn of(meta: &Metadata) -> Look {
    let born = meta.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    Look {
        identity: Identity {
            device: (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev())),
            inode: meta.ino(),
            birth: born.map_or(0, |born| stamp(born.as_secs() as i64, i64::from(born.subsec_nanos()))),
        },
        signature: Signature { changed: stamp(meta.ctime(), meta.ctime_nsec()), size: meta.len() },
        modified: stamp(meta.mtime(), meta.mtime_nsec()),
        allocated: meta.blocks().saturating_mul(512),
        is_file: meta.is_file(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn encoded_it_is_the_same_and_short_where_times_are_near(
            device in any::<(u32, u32)>(), inode: u64, times in any::<[i64; 3]>(), size: u64, allocated: u64, is_file: bool,
        ) {
            let [changed, modified, birth] = times;
            let identity = Identity { device, inode, birth };
            let look = Look { identity, signature: Signature { changed, size }, modified, allocated, is_file };
            let encoded = postcard::to_stdvec(&look).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Look>(&encoded).unwrap(), look);
            let identity = Identity { birth: changed.saturating_sub(1000), ..identity };
            let near = postcard::to_stdvec(&Look { identity, modified: changed, ..look }).unwrap();
            prop_assert!(near.len() <= 5 + 5 + 10 + 10 + 2 + 2 + 10 + 10 + 1);
        }
    }

    #[test]
    fn both_ways_to_look_show_the_same() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [1; 5000]).unwrap();
        let meta = std::fs::metadata(file.path()).unwrap();
        assert_eq!(Some(of(&meta)), look(file.path()).unwrap());
        assert_eq!(of(&meta), look_at(file.as_file()).unwrap());
    }
}
