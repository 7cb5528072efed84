//! The archive's files: what is written is read, a torn end is recognised wherever it was cut, damage is named.
use std::fs;
use std::path::Path;

use formats::archive::{BlockKind, GapReason, PartHead, push_entry};
use formats::galera::gcache::Action;
use formats::{Seqno, Uuid};
use rejoin_transfer::writesets::archive::{Archive, Block, Retention, Writer};
use rejoin_transfer::writesets::store::WriteSetStore;

const HISTORY: Uuid = Uuid([7; 16]);

fn block(first: i64, last: i64) -> Block {
    let mut body = Vec::new();
    for n in first..=last {
        push_entry(&mut body, Action::Other(9), n % 3 == 0, format!("action {n}").as_bytes());
    }
    Block { history: HISTORY, kind: BlockKind::Actions, first: Seqno(first), last: Seqno(last), body }
}

fn gap(first: i64, last: i64, reason: GapReason) -> Block {
    let (first, last) = (Seqno(first), Seqno(last));
    Block { history: HISTORY, kind: BlockKind::Gap(reason), first, last, body: Vec::new() }
}

fn part(seqno: i64, offset: u64, piece: &[u8], total: u64) -> Block {
    let head = PartHead { offset, total, action: Action::Other(9), skipped: false };
    let is_last = offset + piece.len() as u64 == total;
    let kind = if is_last { BlockKind::LastPart } else { BlockKind::Part };
    let (first, last) = (Seqno(seqno), Seqno(seqno));
    Block { history: HISTORY, kind, first, last, body: head.body(piece) }
}

fn write(dir: &Path, blocks: &[Block], close: bool) {
    let mut writer = Writer::open(dir).unwrap();
    blocks.iter().for_each(|block| writer.append(block).unwrap());
    if close {
        writer.close().unwrap();
    }
}

/// The newest range, all of which is read.
fn read(dir: &Path) -> Option<(i64, i64)> {
    let archive = Archive::open(dir).unwrap();
    let (first, last) = archive.range()?;
    let mut next = first.0;
    let take = &mut |action: rejoin_transfer::writesets::store::StoredAction| {
        assert_eq!(action.seqno.0, next);
        if action.bytes.starts_with(b"action") {
            assert_eq!(action.bytes, format!("action {next}").as_bytes());
            assert_eq!(action.skipped, next % 3 == 0);
        }
        next += 1;
        Ok(true)
    };
    archive.read(first, last, take).unwrap();
    assert_eq!(next, last.0 + 1);
    Some((first.0, last.0))
}

fn faults(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    Archive::open(dir).unwrap().verify(&mut |what| found.push(what)).unwrap();
    found
}

#[test]
fn an_archive_is_continued_and_gaps_are_honoured() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &[block(5, 9), block(10, 20)], false);
    write(dir.path(), &[block(21, 30)], true);
    assert_eq!(read(dir.path()), Some((5, 30)));
    write(dir.path(), &[gap(31, 33, GapReason::Lost), block(34, 40)], true);
    assert_eq!(read(dir.path()), Some((34, 40)));
    let archive = Archive::open(dir.path()).unwrap();
    let error = archive.read(Seqno(29), Seqno(35), &mut |_| Ok(true)).unwrap_err();
    assert!(error.to_string().contains("write-set 31 is not in the archive"), "{error}");
    assert_eq!(archive.branched_at(), None);
    // The group began again from an older state: the same seqnos, other actions.
    write(dir.path(), &[gap(41, 40, GapReason::OtherBranch), block(36, 50)], true);
    assert_eq!(read(dir.path()), Some((36, 50)));
    assert_eq!(Archive::open(dir.path()).unwrap().branched_at(), Some(Seqno(40)));
    assert_eq!(faults(dir.path()), Vec::<String>::new());
    // Another history.
    write(dir.path(), &[Block { history: Uuid([8; 16]), ..block(1, 2) }], true);
    assert_eq!(read(dir.path()), Some((1, 2)));
    assert_eq!(Archive::open(dir.path()).unwrap().runs().0.len(), 4);
    assert_eq!(Archive::open(dir.path()).unwrap().branched_at(), None);
}

#[test]
fn large_actions_behind_many_small_ones_count_in_the_estimate() {
    let dir = tempfile::tempdir().unwrap();
    let large = vec![1; 3_000_000];
    write(dir.path(), &[block(1, 1000), part(1001, 0, &large, large.len() as u64)], true);
    let archive = Archive::open(dir.path()).unwrap();
    let bytes = |from, to| archive.bytes_of(Seqno(from), Seqno(to)).unwrap();
    assert!((3_000_000..3_100_000).contains(&bytes(1, 1001)), "{}", bytes(1, 1001));
    assert_eq!((bytes(1002, 1001), bytes(1002, 2000)), (0, 0));
}

#[test]
fn a_large_action_counts_with_its_last_part() {
    let dir = tempfile::tempdir().unwrap();
    let attempt = [block(1, 3), part(4, 0, &[1; 5000], 9000)];
    write(dir.path(), &attempt, false);
    assert_eq!(read(dir.path()), Some((1, 3)));
    write(dir.path(), &[part(4, 0, &[1; 5000], 9000), part(4, 5000, &[1; 4000], 9000), block(5, 6)], true);
    assert_eq!(read(dir.path()), Some((1, 6)));
}

#[test]
fn wherever_a_segment_is_cut_it_is_continued_from_its_last_whole_block() {
    let whole = tempfile::tempdir().unwrap();
    write(whole.path(), &[block(1, 3), block(4, 6), block(7, 9)], false);
    let bytes = fs::read(whole.path().join("0000000001.segment")).unwrap();
    for len in (64..bytes.len()).step_by(7) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("0000000001.segment"), &bytes[..len]).unwrap();
        let last = read(dir.path()).map_or(0, |(_, last)| last);
        assert!([0, 3, 6].contains(&last), "{last} of {len} bytes");
        write(dir.path(), &[block(last + 1, 12)], true);
        assert_eq!(read(dir.path()), Some((1, 12)), "{len} bytes");
        assert_eq!(faults(dir.path()), Vec::<String>::new());
    }
}

#[test]
fn a_flipped_bit_is_found_and_its_seqnos_are_named() {
    for close in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &[block(1, 30), block(31, 60), block(61, 90)], close);
        let path = dir.path().join("0000000001.segment");
        let bytes = fs::read(&path).unwrap();
        let blocks: Vec<usize> =
            bytes.windows(4).enumerate().filter(|(_, four)| *four == b"rjbl").map(|(at, _)| at).collect();
        for at in (blocks[1] + 64..blocks[2]).step_by(5) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            fs::write(&path, damaged).unwrap();
            let found = faults(dir.path());
            let named = found.iter().any(|text| text.contains("seqnos 31 to 60"));
            assert!(named, "byte {at}, closed {close}: {found:?}");
        }
    }
}

#[test]
fn the_oldest_segments_go_and_the_newest_stays() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..4 {
        write(dir.path(), &[block(n * 10 + 1, n * 10 + 10)], true);
    }
    let mut writer = Writer::open(dir.path()).unwrap();
    let one = writer.segments()[0].len;
    let keep = |bytes| Retention { bytes: Some(bytes), time: None };
    assert_eq!(writer.retire(keep(one * 5)).unwrap().0, 0);
    assert_eq!(writer.retire(keep(one * 5 / 2)).unwrap().0, 2);
    assert_eq!(read(dir.path()), Some((21, 40)));
    assert_eq!(writer.retire(keep(0)).unwrap().0, 1);
    assert_eq!(read(dir.path()), Some((31, 40)));
    let hour = Retention { bytes: None, time: Some(std::time::Duration::from_secs(3600)) };
    assert_eq!(writer.retire(hour).unwrap().0, 0);
}
