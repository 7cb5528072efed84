use std::sync::Mutex;

use protocol::inventory::{FileId, Place};

use super::*;
use crate::datadir::testing::Tree;
use crate::threads::lock;

fn ours(text: &str) -> Counts {
    Counts::Ours(text.as_bytes().to_vec())
}

fn held<const N: usize>(files: [(&str, Counts); N]) -> Held {
    Held { files: files.map(|(path, counts)| (path.to_owned(), counts)).into(), in_time: true }
}

fn sent<const N: usize>(files: [(&str, u64); N]) -> BTreeMap<String, u64> {
    files.map(|(path, size)| (path.to_owned(), size)).into()
}

#[test]
fn what_the_datadir_has_under_the_locks_counts() {
    let stream =
        sent([("shop/old.frm", 3), ("shop/again.MAD", 5), ("shop/gone.MAD", 7), ("shop/large.MYD", 9)]);
    let now = || {
        held([
            ("shop/old.frm", Counts::Theirs),
            // Dropped and created again: which of the two is in the stream is not known.
            ("shop/again.MAD", ours("newer")),
            ("shop/lost.MAD", ours("lost")),
            ("shop/large.MYD", Counts::TheirsOf(9)),
        ])
    };
    let decision = decide(&stream, now()).unwrap();
    let expected = [("shop/again.MAD", "newer"), ("shop/lost.MAD", "lost")];
    let expected = expected.map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec()));
    assert_eq!((decision.ours, decision.lost), (expected.to_vec(), 1));
    assert_eq!(decision.dropped, BTreeSet::from(["shop/gone.MAD".to_owned()]));

    // Without its locks nothing may differ.
    let late = decide(&stream, Held { in_time: false, ..now() }).unwrap_err();
    assert!(late.contains("shop/again.MAD"), "{late}");
    let gone = Held { in_time: false, ..held([("shop/old.frm", Counts::Theirs)]) };
    assert!(decide(&sent([("shop/old.frm", 3), ("shop/gone.frm", 3)]), gone).is_err());
}

#[test]
fn a_backup_of_which_nothing_changed_is_left_as_it_is() {
    let stream = sent([("shop/t.frm", 3), ("shop/t.MAD", 8192)]);
    for in_time in [true, false] {
        let same = held([("shop/t.frm", Counts::Theirs), ("shop/t.MAD", Counts::Theirs)]);
        assert_eq!(decide(&stream, Held { in_time, ..same }), Ok(Decision::default()));
    }
}

#[test]
fn a_backup_is_made_again_if_a_file_was_not_read_and_is_not_in_it() {
    let stream = sent([("shop/t.frm", 3)]);
    let lacks = decide(&stream, held([("shop/t.frm", Counts::Theirs), ("shop/t.MYD", Counts::Theirs)]));
    assert_eq!(lacks, Err("its backup lacks shop/t.MYD".to_owned()));
    for size in [2, 4] {
        let other = decide(&stream, held([("shop/t.frm", Counts::TheirsOf(size))]));
        assert!(other.unwrap_err().contains("another length"));
    }
    assert!(decide(&stream, held([("shop/t.MYD", Counts::TheirsOf(0))])).is_err());
}

fn listed(tree: &Tree, before: &Before<'_>) -> BTreeMap<String, Counts> {
    list(&tree.layout(&[]), &Skipped::default(), before, &Cancel::new()).unwrap()
}

#[test]
fn tables_that_ddl_has_touched_are_read() {
    let tree = Tree::with_engine_files();
    for name in
        ["same.frm", "same.MAD", "again.frm", "again.MAD", "altered.frm", "altered#P#p0.MYD", "inno.frm"]
    {
        tree.file(&format!("data/shop/{name}"), name);
    }
    tree.file("data/mysql/slow_log.CSV", "rows");
    tree.file("data/shop/inno.ibd", "pages");
    let mut files = Vec::new();
    scan::list(&tree.layout(&[]), &Skipped::default(), &mut |_, _| {}, &mut |file| files.push(file)).unwrap();
    let before = Before::of(&files);
    assert!(listed(&tree, &before).values().all(|counts| *counts == Counts::Theirs));

    let replace = |name: &str, text: &str| {
        // Not at the same inode, nor within the same clock tick.
        std::thread::sleep(Duration::from_millis(20));
        tree.file("data/new", text);
        fs::rename(tree.path("data/new"), tree.path(name)).unwrap();
    };
    replace("data/shop/again.MAD", "newer");
    replace("data/mysql/slow_log.CSV", "others");
    // Its definition is the same file with other bytes.
    tree.file("data/shop/altered.frm", "altered");
    tree.file("data/shop/made.MAI", "made");
    fs::remove_file(tree.path("data/shop/inno.frm")).unwrap();
    // Rows are written all the time.
    tree.file("data/shop/same.MAD", "more rows");
    let now: Vec<(String, Counts)> = listed(&tree, &before).into_iter().collect();
    let expected = [
        ("mysql/slow_log.CSV", Counts::Theirs),
        ("shop/again.MAD", ours("newer")),
        ("shop/again.frm", ours("again.frm")),
        ("shop/altered#P#p0.MYD", ours("altered#P#p0.MYD")),
        ("shop/altered.frm", ours("altered")),
        ("shop/made.MAI", ours("made")),
        ("shop/same.MAD", Counts::Theirs),
        ("shop/same.frm", Counts::Theirs),
    ];
    assert_eq!(now, expected.map(|(path, counts)| (path.to_owned(), counts)));
}

#[test]
fn too_large_a_table_is_not_read_under_locks() {
    let tree = Tree::with_engine_files();
    tree.file("data/shop/large.MYI", "index");
    tree.file("data/shop/large.MYD", "");
    let file = fs::File::options().write(true).open(tree.path("data/shop/large.MYD")).unwrap();
    file.set_len(READ_BYTES_MAX).unwrap();
    tree.file("data/shop/small.MYD", "rows");
    let now: Vec<Counts> = listed(&tree, &Before::of(&[])).into_values().collect();
    assert_eq!(now, [Counts::TheirsOf(READ_BYTES_MAX), Counts::TheirsOf(5), ours("rows")]);
}

/// Announced entries, and bytes by their offsets.
#[derive(Default)]
struct Sink {
    announced: Mutex<Vec<FileEntry>>,
    written: Mutex<Vec<(FileId, u64, usize)>>,
}

impl SnapshotSink for Sink {
    fn announce(&self, entry: &FileEntry) -> Result<()> {
        lock(&self.announced).push(entry.clone());
        Ok(())
    }

    fn write(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<()> {
        lock(&self.written).push((file, offset, bytes.len()));
        Ok(())
    }
}

#[test]
fn what_was_read_is_sent_instead_of_what_was_in_the_stream() {
    let tree = Tree::with_engine_files();
    let (layout, skipped) = (tree.layout(&[]), Skipped::default());
    let mut names = Names::new(&layout, &skipped, &[]);
    let mut unpacked = Unpacked::default();
    for path in ["shop/again.MAD", "shop/gone.MAD", "shop/inno.ibd"] {
        let (_, entry) = names.of(path);
        unpacked.files.insert(&FileEntry { size: 5, ..entry });
    }
    let range = RANGE_BYTES as usize;
    let (sink, cancel) = (Sink::default(), Cancel::new());
    let now = held([("shop/again.MAD", Counts::Ours(vec![1; range + 3]))]);
    let said = take_from_datadir(&mut unpacked, now, &mut names, &sink, &cancel).unwrap().unwrap();
    assert!(said.contains("1 files without redo") && said.contains("had lost 0"), "{said}");
    let files: Vec<(String, u64)> = unpacked.files.iter().map(|entry| (entry.path, entry.size)).collect();
    assert_eq!(files, [("shop/inno.ibd".to_owned(), 5), ("shop/again.MAD".to_owned(), range as u64 + 3)]);
    let announced = lock(&sink.announced).pop().unwrap();
    assert_eq!((announced.id, announced.place, announced.role), (FileId(3), Place::Datadir, FileRole::Table));
    assert_eq!(*lock(&sink.written), [(FileId(3), 0, range), (FileId(3), range as u64, 3)]);

    let none = take_from_datadir(
        &mut unpacked,
        held([("shop/again.MAD", Counts::Theirs)]),
        &mut names,
        &sink,
        &cancel,
    );
    assert_eq!(none.unwrap(), None);
}
