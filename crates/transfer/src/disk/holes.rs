//! Where a sparse file has data. A hole reads as zeros, but reading and copying zeros costs as much as data.
use std::fs::File;
use std::ops::Range;
use std::sync::Mutex;

use protocol::extents::Extents;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::threads::lock;

/// Where a file has data, if no other process punches holes into it. The last range of data is cached: to
/// find its end, a filesystem walks all extents, and a large table needs that a million times.
#[derive(Debug, Default)]
pub struct DataOf {
    last: Mutex<Stretch>,
}

/// There is no data between `asked` and the start of this range.
#[derive(Clone, Debug, Default)]
struct Stretch {
    asked: u64,
    data: Range<u64>,
}

impl DataOf {
    /// Returns the bytes of a range that lie in no hole. If the filesystem does not support holes, these are
    /// all bytes within the file or, if it does not even report that, the whole range.
    pub fn within(&self, file: &File, range: Range<u64>) -> Extents {
        let mut found = Extents::default();
        let mut at = range.start;
        while at < range.end {
            let data = self.stretch(file, at);
            found.add(data.start.max(at)..data.end.min(range.end));
            at = data.end;
        }
        found
    }

    /// The range of data that contains `at`, or the next one.
    fn stretch(&self, file: &File, at: u64) -> Range<u64> {
        let mut last = lock(&self.last);
        if !(last.asked..last.data.end).contains(&at) {
            *last = Stretch { asked: at, data: data_from(file, at) };
        }
        last.data.clone()
    }
}

/// The first data at or after `at`, up to the next hole.
fn data_from(file: &File, at: u64) -> Range<u64> {
    let start = match seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return u64::MAX..u64::MAX,
        Err(_) => at,
    };
    let hole = seek(file, SeekFrom::Hole(start)).ok().filter(|hole| *hole > start);
    start..hole.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn data_between_holes_is_found() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(&[1; 8192], 65_536).unwrap();
        file.write_all_at(&[1; 4096], 524_288).unwrap();
        let known = DataOf::default();
        let found = |range: Range<u64>| {
            known.within(&file, range).iter().map(|data| (data.start, data.end)).collect::<Vec<_>>()
        };
        assert_eq!(found(0..1 << 20), [(65_536, 73_728), (524_288, 528_384)]);
        assert_eq!(found(69_632..524_288), [(69_632, 73_728)]);
        assert!(found(528_384..1 << 30).is_empty(), "a hole, and what is beyond the end");
        assert!(found(5..5).is_empty());
        assert_eq!(found(0..70_000), [(65_536, 70_000)]);
        // A cached result is not looked up again.
        file.set_len(0).unwrap();
        assert_eq!(found(66_000..70_000), [(66_000, 70_000)]);
    }
}
