//! The write-set cache of a real server (`tests/data/remake.sh gcache`): running and stopped, whole and damaged.

use std::convert::Infallible;

use proptest::prelude::*;
use rejoin_formats::Seqno;
use rejoin_formats::galera::conf_change::{ConfChange, MemberState};
use rejoin_formats::galera::gcache::{Action, BufferHeader, HEADER_LEN, PREAMBLE_LEN, Preamble, RING_START};
use rejoin_formats::galera::ring::{self, Layout, Ring};
use rejoin_formats::galera::write_set::WriteSet;
use rejoin_formats::mariadb::binlog_events;

const RUNNING: &[u8] = include_bytes!("data/gcache_running.bin");
const STOPPED: &[u8] = include_bytes!("data/gcache_stopped.bin");
const STATUS: &str = include_str!("data/gcache_status.txt");

/// A status variable of the server at the moment its running file was copied.
fn status(name: &str) -> Seqno {
    let line = STATUS.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    Seqno(line.trim().parse().unwrap())
}

fn reader(file: &[u8]) -> impl FnMut(u64) -> Result<Option<[u8; HEADER_LEN]>, Infallible> {
    |at| Ok(file.get(at as usize..).and_then(|rest| rest.first_chunk()).copied())
}

fn scan(file: &[u8], oldest: Option<u64>) -> Ring {
    let Ok(ring) = ring::scan(Layout::ring(file.len() as u64, true), oldest, &mut reader(file));
    ring
}

/// Every ordered buffer with its payload.
fn buffers<'a>(file: &'a [u8], ring: &Ring) -> Vec<(Seqno, BufferHeader, &'a [u8])> {
    let layout = Layout::ring(file.len() as u64, true);
    let mut all = Vec::new();
    for stretch in &ring.stretches {
        let Ok(end) = layout.walk(stretch.from, stretch.to, &mut reader(file), &mut |at, header| {
            let at = at as usize;
            if let Some(seqno) = header.seqno() {
                all.push((seqno, header, &file[at + HEADER_LEN..at + header.size as usize]));
            }
            Ok(true)
        });
        assert_eq!(end, stretch.to);
    }
    all
}

#[test]
fn the_range_of_a_running_server_is_what_it_says_itself() {
    let preamble = Preamble::parse(RUNNING).unwrap();
    assert_eq!((preamble.version, preamble.synced, preamble.range), (2, false, None));
    let ring = scan(RUNNING, None);
    let range = (status("wsrep_local_cached_downto"), status("wsrep_last_committed"));
    assert_eq!(ring.seqnos.newest_run(), Some(range));
    assert_eq!((ring.seqnos.runs(), ring.stretches.len()), (1, 2), "it has wrapped");
}

#[test]
fn the_range_of_a_stopped_server_is_found_with_and_without_its_preamble() {
    let preamble = Preamble::parse(STOPPED).unwrap();
    assert!(preamble.synced);
    for oldest in [preamble.offset, None] {
        assert_eq!(scan(STOPPED, oldest).seqnos.newest_run(), preamble.range, "{oldest:?}");
    }
    assert_eq!(scan(STOPPED, preamble.offset).next, scan(STOPPED, None).next);
}

#[test]
fn every_write_set_is_sound_and_what_was_written_is_in_them() {
    for file in [RUNNING, STOPPED] {
        let ring = scan(file, None);
        let all = buffers(file, &ring);
        let mut large = 0;
        for (seqno, header, payload) in &all {
            assert_eq!(header.action, Action::WriteSet);
            let set = WriteSet::parse(payload).unwrap_or_else(|error| panic!("{seqno}: {error}"));
            assert_eq!(set.header.seqno, *seqno);
            let data = set.data.unwrap().records;
            let kinds: Vec<u8> = binlog_events::events(data).map(|event| event.kind).collect();
            match set.header.is_total_order() {
                true => assert_eq!(kinds, [15, 2], "{seqno}"),
                false => assert!(kinds == [160, 19, 23] || kinds == [160, 19, 24], "{seqno}: {kinds:?}"),
            }
            large += usize::from(data.len() > 1 << 14);
        }
        assert_eq!(large, 1, "one of a long record set");
        assert!(all.len() > 100);
    }
}

/// The payload of the change with which a group of one began.
fn change() -> &'static [u8] {
    let file = include_bytes!("data/gcache_change.bin");
    let header = BufferHeader::parse(file[RING_START as usize..].first_chunk().unwrap()).unwrap();
    assert_eq!((header.action, header.seqno()), (Action::ConfChange, Some(Seqno(1))));
    &file[RING_START as usize + HEADER_LEN..][..header.payload_len()]
}

#[test]
fn a_change_names_its_members() {
    let change = ConfChange::parse(change()).unwrap();
    assert_eq!((change.state.seqno, change.conf_id), (Seqno(1), 1));
    assert_eq!(change.state.uuid, Preamble::parse(RUNNING).unwrap().history);
    let [member] = &change.members[..] else { panic!("{change:?}") };
    assert_eq!((member.name.as_str(), member.incoming.as_str()), ("n1", "127.0.0.1:3306"));
    assert_eq!((member.state, member.lowest_cached), (MemberState::Joined, None));
    assert_eq!(change.replication_protocol, 11);
}

#[test]
fn any_changed_bit_of_a_change_is_seen() {
    let real = change();
    for at in 0..real.len() * 8 {
        let mut damaged = real.to_vec();
        damaged[at / 8] ^= 1 << (at % 8);
        assert!(ConfChange::parse(&damaged).is_err(), "bit {at}");
    }
    (0..real.len()).for_each(|len| assert!(ConfChange::parse(&real[..len]).is_err(), "{len} bytes"));
}

#[test]
fn buffers_follow_each_other_in_the_order_of_their_seqnos() {
    let all = buffers(RUNNING, &scan(RUNNING, None));
    assert!(all.windows(2).all(|pair| pair[0].0.0 + 1 == pair[1].0.0));
}

proptest! {
    /// What a fuzzer would do, from real files: nothing panics, nothing leaves the file, and what is called
    /// sound carries the checksum of its bytes.
    #[test]
    fn damaged_files_are_read_without_harm(
        stopped: bool,
        damage in proptest::collection::vec((0usize..70_000, any::<u8>()), 0..40),
        headers in proptest::collection::vec((0usize..150, 0usize..HEADER_LEN, any::<u8>()), 0..20),
        len in 0usize..70_000,
        oldest in proptest::option::of(any::<u64>()),
    ) {
        let mut file = if stopped { STOPPED } else { RUNNING }.to_vec();
        let starts: Vec<usize> =
            buffers(&file, &scan(&file, None)).iter().map(|(_, _, payload)| payload.as_ptr() as usize - file.as_ptr() as usize).collect();
        // Bytes anywhere, and bytes of headers, which few of the former hit.
        for (at, byte) in damage {
            if let Some(place) = file.get_mut(at) { *place = byte; }
        }
        for (which, at, byte) in headers {
            if let Some(start) = starts.get(which) { file[start - HEADER_LEN + at] = byte; }
        }
        if len < file.len() && len % 4 == 0 { file.truncate(len); }
        let _ = Preamble::parse(&file);
        let ring = scan(&file, oldest);
        for stretch in &ring.stretches {
            prop_assert!(stretch.from >= RING_START && stretch.from <= stretch.to);
            prop_assert!(stretch.to <= (file.len() as u64).max(RING_START));
        }
        for (_, _, payload) in buffers(&file, &ring) {
            let _ = ConfChange::parse(payload);
            if let Ok(set) = WriteSet::parse(payload) {
                let data = set.data.map(|data| data.records).unwrap_or_default();
                let _ = (binlog_events::file_head(data), binlog_events::events(data).count());
            }
        }
        prop_assert!(PREAMBLE_LEN as u64 <= RING_START);
    }
}
