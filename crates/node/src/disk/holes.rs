//! Where a sparse file has data. Holes are read as zeros, but reading and copying zeros costs what data costs.
use std::fs::File;
use std::ops::Range;

use protocol::extents::Extents;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// Which bytes of a range lie in no hole. On a filesystem that knows no holes, all that are in the file or, where it does
/// not even tell this, all.
pub fn data_in(file: &File, range: Range<u64>) -> Extents {
    let mut found = Extents::default();
    let mut at = range.start;
    while at < range.end {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) if start < range.end => start,
            Ok(_) | Err(Errno::NXIO) => break,
            Err(_) => at,
        };
        let hole = seek(file, SeekFrom::Hole(start)).ok().filter(|hole| *hole > start);
        let stop = hole.unwrap_or(range.end).min(range.end);
        found.add(start..stop);
        at = stop;
    }
    found
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
        let found = |range: Range<u64>| {
            data_in(&file, range).iter().map(|data| (data.start, data.end)).collect::<Vec<_>>()
        };
        assert_eq!(found(0..1 << 20), [(65_536, 73_728), (524_288, 528_384)]);
        assert_eq!(found(69_632..524_288), [(69_632, 73_728)]);
        assert!(found(528_384..1 << 30).is_empty(), "a hole, and what is beyond the end");
        assert!(found(5..5).is_empty());
    }
}
