//! Lists of files: batches, groups, and paths that are refused.
use rejoin_protocol::codec;
use rejoin_protocol::inventory::{FileEntry, FileId, FileRole, Place, batches, groups};
use rejoin_protocol::limits::{PATH_BYTES_MAX, RANGE_BYTES};
use rejoin_protocol::message::Message;

use crate::entry;

#[test]
fn lists_are_split_so_that_they_fit_into_messages() {
    let file = |number: u32, path: usize| FileEntry { id: FileId(number), path: "x".repeat(path), ..entry() };
    let short: Vec<FileEntry> = (0..2500).map(|n| file(n, 20)).collect();
    assert_eq!(batches(&short).map(<[_]>::len).collect::<Vec<_>>(), [1024, 1024, 452]);
    let long: Vec<FileEntry> = (0..1000).map(|n| file(n, PATH_BYTES_MAX)).collect();
    for files in [&short, &long] {
        assert_eq!(batches(files).collect::<Vec<_>>().concat(), **files);
        for batch in batches(files) {
            codec::encode(&Message::Files(batch.to_vec()), 0, &mut Vec::new()).expect("it fits");
        }
    }
    assert_eq!(batches(&[]).count(), 0);
}

#[test]
fn small_files_are_grouped_until_they_make_a_range() {
    let half = u64::from(RANGE_BYTES) / 2;
    let files: Vec<FileEntry> = [1, half, half, half, half, 5, u64::MAX, 7]
        .into_iter()
        .map(|size| FileEntry { size, ..entry() })
        .collect();
    let sizes = |group: &[FileEntry]| group.iter().map(|file| file.size).collect::<Vec<_>>();
    let groups: Vec<Vec<u64>> = groups(&files).map(sizes).collect();
    assert_eq!(groups, [vec![1, half, half], vec![half, half], vec![5, u64::MAX], vec![7]]);
}

#[test]
fn paths_cannot_leave_their_place() {
    let at = |place, path: &str, role| FileEntry { place, path: path.into(), role, ..entry() };
    assert!(at(Place::Datadir, "db/t.frm", FileRole::Table).check().is_ok());
    assert!(entry().check().is_ok());
    for bad in [
        "",
        "/etc/x",
        "../x",
        "a/../b",
        "a//b",
        "./a",
        "a\0b",
        "a\nb",
        ".rejoin/x",
        "db/.rejoin/x",
        "#sql-rejoin/x",
    ] {
        assert!(at(Place::Datadir, bad, FileRole::Table).check().is_err(), "{bad:?}");
    }
    assert!(at(Place::External, "relative", FileRole::Table).check().is_err());
    assert!(at(Place::Datadir, "db/t.MYD", FileRole::Link { target: "relative".into() }).check().is_err());
    assert!(at(Place::Datadir, "db/t.MYD", FileRole::Link { target: "/a/../b".into() }).check().is_err());
    let owner = FileRole::TableElsewhere { owner: "../t.isl".into() };
    assert!(at(Place::External, "/x/t.ibd", owner).check().is_err());
}
