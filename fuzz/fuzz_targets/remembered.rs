//! A list of remembered fingerprints: whatever the bytes are, and with a checksum that fits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rejoin_protocol::remembered::{Builder, Remembered};

fuzz_target!(|bytes: &[u8]| {
    let _ = Remembered::parse(bytes.to_vec());
    let mut whole = b"rjfngrpt\x02\0\0\0".to_vec();
    whole.extend_from_slice(bytes);
    whole.extend_from_slice(&xxhash_rust::xxh3::xxh3_64(&whole).to_le_bytes());
    let Ok(read) = Remembered::parse(whole) else { return };
    // What was read can be written, and is found again.
    let mut builder = Builder::default();
    for at in 44..bytes.len() as u32 + 12 {
        let Some(record) = read.get(at) else { continue };
        if read.find(&record.state).is_some() {
            let _ = (record.range(0), record.range(u32::MAX), record.len_of(u32::MAX));
            builder.push(&record);
        }
    }
    let again = Remembered::parse(builder.finish(&read.written())).unwrap();
    assert_eq!(again.written(), read.written());
});
