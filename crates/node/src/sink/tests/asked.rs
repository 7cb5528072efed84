//! What a joiner answers about its own files.
use std::sync::mpsc;

use protocol::inventory::{FileEntry, FileId, FileRole, Place};
use protocol::marks::{self, Mark, MarkKey};
use protocol::message::Message;

use crate::cancel::Cancel;
use crate::datadir::testing::Tree;
use crate::failure::kind_of;
use crate::sink::base::Base;
use crate::sink::staging::Staging;

const KEY: MarkKey = [6; 32];

fn entry(id: u32, path: &str) -> FileEntry {
    let (id, path, role) = (FileId(id), path.to_owned(), FileRole::Table);
    FileEntry { id, place: Place::Datadir, path, size: 5, allocated: 4096, role }
}

fn range(bytes: &[u8]) -> Mark {
    marks::range_mark(&KEY, &marks::block_marks(&KEY, bytes))
}

#[test]
fn files_that_are_asked_for_together_get_one_mark() {
    let tree = Tree::new();
    tree.file("data/d/a.frm", "first");
    tree.file("data/d/b.frm", "longer");
    let (layout, cancel) = (tree.layout(&[]), Cancel::new());
    let staging = Staging::new(&layout.datadir).unwrap();
    let base = Base::new(&layout, &staging, None, KEY, 1, &cancel);
    let asked = vec![entry(3, "d/a.frm"), entry(4, "d/gone.frm"), entry(5, "d/b.frm")];
    base.take(Message::LookTogether(asked.clone())).unwrap();
    base.take(Message::LookApart { first: FileId(3) }).unwrap();
    base.take(Message::LooksEnd).unwrap();

    let answers = |base: &Base<'_>| -> Vec<Message> {
        let (say, said) = mpsc::sync_channel(64);
        base.mark_pieces(&say).unwrap();
        drop(say);
        said.iter().collect()
    };
    // What waits when the donor asks no more is of no use to it.
    assert_eq!(answers(&base), []);

    let base = Base::new(&layout, &staging, None, KEY, 1, &cancel);
    base.take(Message::LookTogether(asked.clone())).unwrap();
    base.take(Message::LookApart { first: FileId(3) }).unwrap();
    let mut together = marks::Together::new(&KEY);
    together.add(Some(5), &[range(b"first")]);
    together.add(None, &[]);
    together.add(Some(6), &[range(b"longer")]);
    let each = |file, bytes: &[u8]| {
        let size = Some(bytes.len() as u64);
        [
            Message::Base { file: FileId(file), size },
            Message::Marks { file: FileId(file), first: 0, marks: vec![range(bytes)] },
        ]
    };
    let mut expected = each(3, b"first").to_vec();
    expected.push(Message::Base { file: FileId(4), size: None });
    expected.extend(each(5, b"longer"));
    expected.push(Message::Together { first: FileId(3), mark: together.mark() });
    let (say, said) = mpsc::sync_channel(64);
    std::thread::scope(|scope| {
        scope.spawn(|| base.mark_pieces(&say).unwrap());
        let heard: Vec<Message> = said.iter().take(expected.len()).collect();
        base.take(Message::LooksEnd).unwrap();
        assert_eq!(heard, expected);
    });

    // What was asked for is known by its number from then on, and nothing else is.
    assert_eq!(base.entry(FileId(4)).unwrap(), asked[1]);
    assert_eq!(base.together(FileId(3)).unwrap()[..], [FileId(3), FileId(4), FileId(5)]);
    let unknown = base.entry(FileId(9)).unwrap_err();
    assert!(unknown.to_string().contains("file number 9, which it did not ask for"), "{unknown}");
    assert!(base.together(FileId(4)).is_err());
}

#[test]
fn questions_that_make_no_sense_are_named() {
    let tree = Tree::new();
    let (layout, cancel) = (tree.layout(&[]), Cancel::new());
    let staging = Staging::new(&layout.datadir).unwrap();
    let base = Base::new(&layout, &staging, None, KEY, 1, &cancel);
    let fails = |message, text: &str| {
        let error = base.take(message).unwrap_err();
        assert!(format!("{error:#}").contains(text), "{error:#}");
        kind_of(&error)
    };
    let peer = crate::failure::Kind::Peer;
    assert_eq!(fails(Message::LookApart { first: FileId(1) }, "nothing together with file number 1"), peer);
    assert_eq!(fails(Message::Stored, "the donor said Stored where Look or LooksEnd was due"), peer);
    fails(Message::Look(vec![entry(1, "../x")]), "cannot be accepted");
    fails(Message::LookTogether(vec![entry(1, "a/b.frm"), entry(u32::MAX, "a/c.frm")]), "beyond the limit");
}
