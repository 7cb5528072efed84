//! What a joiner answers about its own files.
use std::sync::mpsc;

use protocol::fingerprint::{self, Fingerprint, FingerprintKey};
use protocol::inventory::{FileEntry, FileId, FileRole, Place};
use protocol::message::Message;

use crate::cancel::Cancel;
use crate::datadir::testing::Tree;
use crate::failure::kind_of;
use crate::flavor::mariadb::MariaDb;
use crate::receive::base::Base;
use crate::receive::staging::Staging;

const KEY: FingerprintKey = [6; 32];

fn entry(id: u32, path: &str) -> FileEntry {
    let (id, path, role) = (FileId(id), path.to_owned(), FileRole::Table);
    FileEntry { id, place: Place::Datadir, path, size: 5, allocated: 4096, role }
}

fn range(bytes: &[u8]) -> Fingerprint {
    fingerprint::range_fingerprint(&KEY, &fingerprint::block_fingerprints(&KEY, bytes))
}

#[test]
fn files_that_are_asked_for_together_get_one_fingerprint() {
    let tree = Tree::new();
    tree.file("data/d/a.frm", "first");
    tree.file("data/d/b.frm", "longer");
    let (layout, cancel) = (tree.layout(&[]), Cancel::new());
    let staging = Staging::new(&MariaDb, &layout.datadir).unwrap();
    let base = Base::new(&layout, &staging, None, KEY, 1, &cancel);
    let asked = vec![entry(3, "d/a.frm"), entry(4, "d/gone.frm"), entry(5, "d/b.frm")];
    base.take(Message::CompareGroups(asked.clone())).unwrap();
    base.take(Message::SplitGroup { first: FileId(3) }).unwrap();
    base.take(Message::CompareEnd).unwrap();

    let answers = |base: &Base<'_>| -> Vec<Message> {
        let (say, said) = mpsc::sync_channel(64);
        base.fingerprint_pieces(&say).unwrap();
        drop(say);
        said.iter().collect()
    };
    // Questions that are still open when the donor asks no more are not answered.
    assert_eq!(answers(&base), []);

    let base = Base::new(&layout, &staging, None, KEY, 1, &cancel);
    base.take(Message::CompareGroups(asked.clone())).unwrap();
    base.take(Message::SplitGroup { first: FileId(3) }).unwrap();
    let mut together = fingerprint::GroupHasher::new(&KEY);
    together.add(Some(5), &[range(b"first")]);
    together.add(None, &[]);
    // Its length differs, so its bytes are not read.
    together.add(Some(6), &[]);
    let each = |file, bytes: &[u8]| {
        let size = Some(bytes.len() as u64);
        [
            Message::JoinersFile { file: FileId(file), size },
            Message::RangeFingerprints { file: FileId(file), first: 0, fingerprints: vec![range(bytes)] },
        ]
    };
    let mut expected = each(3, b"first").to_vec();
    expected.push(Message::JoinersFile { file: FileId(4), size: None });
    expected.extend(each(5, b"longer"));
    expected.push(Message::GroupFingerprint { first: FileId(3), fingerprint: together.fingerprint() });
    let (say, said) = mpsc::sync_channel(64);
    std::thread::scope(|scope| {
        scope.spawn(|| base.fingerprint_pieces(&say).unwrap());
        let sent: Vec<Message> = said.iter().take(expected.len()).collect();
        base.take(Message::CompareEnd).unwrap();
        assert_eq!(sent, expected);
    });

    // From then on files that were asked for are known by their numbers, and no others.
    assert_eq!(base.entry(FileId(4)).unwrap(), asked[1]);
    assert_eq!(base.together(FileId(3)).unwrap()[..], [FileId(3), FileId(4), FileId(5)]);
    let unknown = base.entry(FileId(9)).unwrap_err();
    assert!(unknown.to_string().contains("file number 9, for which it did not ask"), "{unknown}");
    assert!(base.together(FileId(4)).is_err());
}

#[test]
fn questions_that_make_no_sense_are_named() {
    let tree = Tree::new();
    let (layout, cancel) = (tree.layout(&[]), Cancel::new());
    let staging = Staging::new(&MariaDb, &layout.datadir).unwrap();
    let base = Base::new(&layout, &staging, None, KEY, 1, &cancel);
    let fails = |message, text: &str| {
        let error = base.take(message).unwrap_err();
        assert!(format!("{error:#}").contains(text), "{error:#}");
        kind_of(&error)
    };
    let peer = crate::failure::Kind::Peer;
    assert_eq!(
        fails(Message::SplitGroup { first: FileId(1) }, "no group of files that begins with number 1"),
        peer
    );
    assert_eq!(fails(Message::Stored, "the donor sent Stored, expected CompareFiles or CompareEnd"), peer);
    fails(Message::CompareFiles(vec![entry(1, "../x")]), "cannot be accepted");
    fails(Message::CompareGroups(vec![entry(1, "a/b.frm"), entry(u32::MAX, "a/c.frm")]), "beyond the limit");
}

/// The donor's table was truncated meanwhile: what the joiner has beyond its length is neither read nor described.
#[test]
fn no_more_of_a_file_is_marked_than_the_donor_has() {
    let tree = Tree::new();
    let old = "7".repeat(9 << 20);
    tree.file("data/d/long.ibd", &old);
    tree.file("data/d/small.ibd", &old);
    let (layout, cancel) = (tree.layout(&[]), Cancel::new());
    let staging = Staging::new(&MariaDb, &layout.datadir).unwrap();
    let base = Base::new(&layout, &staging, None, KEY, 1, &cancel);
    let sized = |id, path, size| FileEntry { size, ..entry(id, path) };
    base.take(Message::CompareFiles(vec![sized(1, "d/long.ibd", (2 << 20) + 98_304)])).unwrap();
    base.take(Message::CompareGroups(vec![sized(2, "d/small.ibd", 98_304), sized(3, "d/gone.ibd", 5)]))
        .unwrap();
    let (say, said) = mpsc::sync_channel(64);
    let mut together = fingerprint::GroupHasher::new(&KEY);
    together.add(Some(9 << 20), &[]);
    together.add(None, &[]);
    let fingerprint = range(&old.as_bytes()[..1 << 20]);
    let expected = [
        Message::JoinersFile { file: FileId(1), size: Some(9 << 20) },
        Message::RangeFingerprints { file: FileId(1), first: 0, fingerprints: vec![fingerprint; 3] },
        Message::GroupFingerprint { first: FileId(2), fingerprint: together.fingerprint() },
    ];
    std::thread::scope(|scope| {
        scope.spawn(|| base.fingerprint_pieces(&say).unwrap());
        let sent: Vec<Message> = said.iter().take(expected.len()).collect();
        assert_eq!(sent, expected);
        base.take(Message::SplitGroup { first: FileId(2) }).unwrap();
        let each: Vec<Message> = said.iter().take(3).collect();
        assert!(
            matches!(&each[1], Message::RangeFingerprints { file: FileId(2), fingerprints, .. } if fingerprints.len() == 1),
            "{each:?}"
        );
        base.take(Message::CompareEnd).unwrap();
    });
}
