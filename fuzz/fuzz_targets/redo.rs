//! Redo: any bytes as a stream of mini-transactions, cut anywhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rejoin_formats::Lsn;
use rejoin_formats::innodb::redo_flat::{FlatLog, push_mtr};
use rejoin_formats::innodb::redo_header::Checkpoint;
use rejoin_formats::innodb::redo_mtr::{Geometry, MtrReader};

fuzz_target!(|data: &[u8]| {
    let Some((&[flags, cut], stream)) = data.split_first_chunk::<2>() else { return };
    let geometry = Geometry { first_lsn: Lsn(12288), capacity: 1 + u64::from(flags >> 1) * 64 };
    let mut reader = MtrReader::new(geometry, flags & 1 != 0, Lsn(12288));
    let mut flat = Vec::new();
    for part in stream.chunks(usize::from(cut).max(1)) {
        reader.feed(part);
        while let Ok(Some(mtr)) = reader.next_mtr() {
            let _ = mtr.records().count();
            let _ = mtr.file_events().count();
            push_mtr(&mut flat, &mtr);
        }
    }
    let _ = FlatLog::new(Checkpoint { lsn: reader.at(), end_lsn: reader.at() }).head(data, "rejoin");
});
