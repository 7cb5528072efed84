//! Ring files, write-sets and configuration changes. The first bytes decide how the rest is laid out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rejoin_formats::galera::conf_change::ConfChange;
use rejoin_formats::galera::gcache::{HEADER_LEN, Preamble, RING_START};
use rejoin_formats::galera::ring::{self, Layout};
use rejoin_formats::galera::seqnos::Seqnos;
use rejoin_formats::galera::write_set::{WriteSet, WriteSetHeader};
use rejoin_formats::mariadb::binlog_events;

fuzz_target!(|data: &[u8]| {
    let _ = Preamble::parse(data);
    let _ = WriteSetHeader::parse(data);
    let _ = WriteSet::parse(data);
    let _ = ConfChange::parse(data);
    assert!(binlog_events::events(data).map(|event| event.bytes.len()).sum::<usize>() <= data.len());
    let _ = binlog_events::file_head(data);

    let Some((&[kind, low, high], buffers)) = data.split_first_chunk() else { return };
    let mut file = vec![0; RING_START as usize];
    file.extend(buffers);
    let len = file.len() as u64;
    let mut read = |at: u64| -> Result<Option<[u8; HEADER_LEN]>, ()> {
        let at = usize::try_from(at).map_err(drop)?;
        Ok(file.get(at..).and_then(|rest| rest.first_chunk()).copied())
    };
    // With an offset from the preamble, which may be anything, and without.
    let oldest = (kind & 2 != 0).then(|| RING_START + u64::from(u16::from_le_bytes([low, high])));
    let found = ring::scan(Layout::ring(len, kind & 1 == 0), oldest, &mut read).expect("reading does not fail");
    for stretch in &found.stretches {
        assert!(stretch.from <= stretch.to && stretch.to <= len);
        assert!(stretch.marks.iter().all(|mark| (stretch.from..stretch.to).contains(&mark.at)));
    }
    if let Some((first, last)) = found.seqnos.newest_run() {
        assert!(0 < first.0 && first <= last);
    }
    let page = Layout::page(len);
    let stretch = ring::stretch(page, RING_START, len, &mut read, &mut Seqnos::default()).expect("no failure");
    assert!(stretch.to <= len);
});
