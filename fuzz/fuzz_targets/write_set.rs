//! A write-set in pieces has the verdict of the whole, whatever was changed in a real one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rejoin_formats::galera::write_set::WriteSet;
use rejoin_formats::galera::write_set_check::WriteSetCheck;

/// A real one, behind the header of its buffer.
const REAL: &[u8] = include_bytes!("../../crates/formats/tests/data/writeset-653465.bin");
const BUFFER_HEADER: usize = 24;

fuzz_target!(|data: &[u8]| {
    let Some((&[piece, kind], rest)) = data.split_first_chunk() else { return };
    let mut bytes = if kind & 1 != 0 { REAL[BUFFER_HEADER..].to_vec() } else { rest.to_vec() };
    if kind & 1 != 0 {
        for change in rest.chunks_exact(3) {
            let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % bytes.len();
            bytes[at] ^= change[2];
        }
        bytes.extend_from_slice(&rest[..rest.len().min(usize::from(kind >> 1) % 20)]);
    }
    let at_once = WriteSet::parse(&bytes).map(|set| set.header).ok();
    let mut check = WriteSetCheck::default();
    let taken = bytes.chunks(usize::from(piece).max(1)).try_for_each(|piece| check.take(piece));
    assert_eq!(taken.and_then(|()| check.finish()).ok(), at_once);
});
