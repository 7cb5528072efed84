//! For tests: what a node remembers, as it should be or not.
use std::path::Path;

use protocol::fingerprint::FingerprintKey;
use protocol::limits::RANGE_BYTES;
use protocol::remembered::{Builder, FileRecord, FileState, Written};

use super::front::Front;
use super::learn::record_of;
use super::memory::Memory;
use super::{store, trust};
use crate::disk::identity::look;

/// The key of these lists.
pub(crate) const KEY: FingerprintKey = [6; 32];

/// Has the node remember these files as they are now, with this change to every record of a range.
pub(crate) fn plant(datadir: &Path, files: &[&Path], written: &Written, change: impl Fn(&mut [u8])) {
    plant_in_state(datadir, files, written, |_| {}, change);
}

/// As [`plant`], of files that were in this state.
pub(crate) fn plant_in_state(
    datadir: &Path,
    files: &[&Path],
    written: &Written,
    state: impl Fn(&mut FileState),
    change: impl Fn(&mut [u8]),
) {
    let mut list = Builder::default();
    for path in files {
        let (bytes, seen) = (std::fs::read(path).unwrap(), look(path).unwrap().unwrap());
        let mut ranges =
            bytes.chunks(RANGE_BYTES as usize).map(|range| record_of(&KEY, range)).collect::<Vec<_>>();
        ranges.iter_mut().for_each(|range| change(range));
        let front = Front::of(&bytes);
        let pages = front.as_ref().map(Front::encoded_pages).unwrap_or_default();
        let front = front.as_ref().map(|front| front.kept(&pages));
        let (ranges, mut then) = (ranges.concat(), trust::state_of(&seen));
        state(&mut then);
        assert!(list.push(&FileRecord { state: then, front, ranges: &ranges }));
    }
    store::take_key(datadir, &KEY).unwrap();
    store::save(datadir, &KEY, list.finish(written)).unwrap();
}

/// As [`plant`], with true records.
pub(crate) fn remembering(datadir: &Path, files: &[&Path]) -> Memory {
    plant(datadir, files, &trust::moment().unwrap(), |_| {});
    Memory::open(datadir).unwrap().unwrap()
}

/// As [`plant`], with wrong fingerprints.
pub(crate) fn misremembering(datadir: &Path, files: &[&Path]) -> Memory {
    plant(datadir, files, &trust::moment().unwrap(), |range| range[0] ^= 1);
    Memory::open(datadir).unwrap().unwrap()
}
