use std::collections::BTreeMap;

use protocol::inventory::Place;

use super::*;
use crate::datadir::testing::Tree;
use crate::failure::{Failure, Kind};

/// A chunk of a file, as mariadb-backup writes it; without bytes the file's end.
fn chunk(path: &str, offset: u64, bytes: Option<&[u8]>) -> Vec<u8> {
    let mut chunk = b"XBSTCK01\0".to_vec();
    chunk.push(if bytes.is_some() { b'P' } else { b'E' });
    chunk.extend((path.len() as u32).to_le_bytes());
    chunk.extend(path.as_bytes());
    if let Some(bytes) = bytes {
        chunk.extend((bytes.len() as u64).to_le_bytes());
        chunk.extend(offset.to_le_bytes());
        chunk.extend(crc32fast::hash(bytes).to_le_bytes());
        chunk.extend(bytes);
    }
    chunk
}

fn whole(path: &str, bytes: &[u8]) -> Vec<u8> {
    [chunk(path, 0, Some(bytes)), chunk(path, 0, None)].concat()
}

#[derive(Default)]
struct Sink {
    announced: Mutex<BTreeMap<FileId, FileEntry>>,
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    fails: bool,
}

impl SnapshotSink for Sink {
    fn announce(&self, entry: &FileEntry) -> Result<()> {
        lock(&self.announced).insert(entry.id, entry.clone());
        Ok(())
    }

    fn write(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<()> {
        if self.fails {
            return Err(Failure::new(Kind::Peer, "the joiner is gone").into());
        }
        let range = u64::from(RANGE_BYTES);
        assert_eq!(offset / range, (offset + bytes.len() as u64 - 1) / range, "of one range");
        let path = lock(&self.announced)[&file].path.clone();
        let mut files = lock(&self.files);
        let to = files.entry(path).or_default();
        let end = offset as usize + bytes.len();
        to.resize(to.len().max(end), 0);
        to[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }
}

fn unpacked(stream: &[u8], sink: &Sink) -> Result<Unpacked> {
    let tree = Tree::with_engine_files();
    let layout = tree.layout(&["--log-bin=binlog"]);
    let skipped = [("skipped".to_owned(), "t".to_owned())].into();
    let mut names = Names::new(&layout, &skipped, &[]);
    unpack(&mut &*stream, &mut names, sink, 3, &Cancel::new())
}

fn declined(stream: &[u8]) -> String {
    let error = unpacked(stream, &Sink::default()).unwrap_err();
    error.downcast::<Declined>().unwrap().to_string()
}

#[test]
fn files_arrive_whole_and_in_ranges() {
    let range = RANGE_BYTES as usize;
    let large: Vec<u8> = (0..2 * range + 4321).map(|n| (n % 251) as u8).collect();
    let stream = [
        chunk("shop/t.ibd", 0, Some(&large[..range - 100])),
        whole("shop/t.frm", b"definition"),
        // The rest, behind what another file has sent; with a hole.
        chunk("shop/t.ibd", range as u64 - 100, Some(&large[range - 100..range + 50])),
        chunk("shop/t.ibd", range as u64 + 51, Some(&large[range + 51..])),
        chunk("shop/t.ibd", 0, None),
        whole("shop/empty.MYD", b""),
        whole("skipped/t.MYD", b"not sent"),
        whole("#rocksdb/000001.sst", b"not sent"),
        whole("binlog.000007", b"\xfebin"),
        whole("xtrabackup_galera_info", b"af3649e7-8d5c-11ef-8ba6-7a1b3f7c9d2e:17\n"),
        whole("ib_logfile0", b"redo"),
    ]
    .concat();
    let sink = Sink::default();
    let unpacked = unpacked(&stream, &sink).unwrap();
    let files = sink.files.into_inner().unwrap();
    let mut expected = large.clone();
    expected[range + 50] = 0;
    assert!(files["shop/t.ibd"] == expected);
    assert_eq!(files["shop/t.frm"], b"definition");
    let listed: Vec<_> = unpacked.files.iter().map(|f| (f.path, f.size, f.place, f.role)).collect();
    assert_eq!(
        listed,
        [
            ("shop/t.ibd".to_owned(), large.len() as u64, Place::Datadir, FileRole::Table),
            ("shop/t.frm".to_owned(), 10, Place::Datadir, FileRole::Table),
            ("shop/empty.MYD".to_owned(), 0, Place::Datadir, FileRole::Table),
            ("xtrabackup_galera_info".to_owned(), 40, Place::Datadir, FileRole::Backup),
            ("ib_logfile0".to_owned(), 4, Place::LogHome, FileRole::Redo),
        ]
    );
    assert_eq!(unpacked.position.unwrap(), b"af3649e7-8d5c-11ef-8ba6-7a1b3f7c9d2e:17\n");
    assert_eq!(unpacked.binlog.unwrap(), b"\xfebin");
}

#[test]
fn what_is_no_backup_is_declined() {
    assert!(declined(b"mariadb-backup: [ERROR] unknown option").contains("no chunk begins"));
    let one = whole("shop/t.frm", b"definition");
    assert!(declined(&one[..one.len() - 1]).contains("breaks off"));
    assert!(declined(&chunk("shop/t.frm", 0, Some(b"x"))).contains("has no end"));
    assert!(declined(&[one.clone(), one.clone()].concat()).contains("twice"));
    assert!(declined(&renamed("shop/t.ibd", "shop/u.ibd")).contains("does not contain"));
    let mut damaged = one;
    let at = damaged.windows(10).position(|w| w == b"definition").unwrap();
    damaged[at] ^= 1;
    assert!(declined(&damaged).contains("checksum"));
}

fn renamed(path: &str, new: &str) -> Vec<u8> {
    let mut chunk = chunk(path, 0, None);
    chunk[9] = b'R';
    [chunk, (new.len() as u32).to_le_bytes().to_vec(), new.as_bytes().to_vec()].concat()
}

/// mariadb-backup does this when tables change while it works.
#[test]
fn files_are_removed_renamed_and_replaced() {
    let range = RANGE_BYTES as usize;
    let large: Vec<u8> = (0..2 * range).map(|n| (n % 251) as u8).collect();
    let (mut removed, mut replaces) = (chunk("shop/a.frm", 0, None), chunk("shop/c.MYD", 0, Some(b"newer")));
    (removed[9], replaces[8]) = (b'D', 2);
    let stream = [
        whole("shop/a.frm", b"gone"),
        whole("shop/b.frm", b"stays"),
        whole("shop/c.MYD", b"an old one"),
        removed,
        renamed("shop/b.frm", "shop/new.frm"),
        replaces,
        chunk("shop/c.MYD", 0, None),
        whole("shop/a.frm", b"another"),
        // Never copied: what the datadir has counts.
        renamed("shop/lost.MAD", "shop/found.MAD"),
        // Written to again at its beginning.
        chunk("aria_log.00000001", 0, Some(&large)),
        chunk("aria_log.00000001", 5, Some(b"later")),
        chunk("aria_log.00000001", 0, None),
    ]
    .concat();
    let sink = Sink::default();
    let unpacked = unpacked(&stream, &sink).unwrap();
    let listed: BTreeMap<_, _> =
        unpacked.files.iter().map(|file| (file.path, (file.id, file.size))).collect();
    let sizes: Vec<_> = listed.iter().map(|(path, (_, size))| (path.as_str(), *size)).collect();
    let log = ("aria_log.00000001", large.len() as u64);
    assert_eq!(sizes, [log, ("shop/a.frm", 7), ("shop/c.MYD", 5), ("shop/new.frm", 5)]);
    let announced = sink.announced.into_inner().unwrap();
    assert_eq!(announced[&listed["shop/new.frm"].0].path, "shop/b.frm");
    // What is sent again has a number of its own.
    let of = |path: &str| announced.values().filter(|entry| entry.path == path).count();
    assert_eq!((of("shop/a.frm"), of("shop/c.MYD")), (2, 2));
    let written = &sink.files.into_inner().unwrap()["aria_log.00000001"];
    assert!(written[..5] == large[..5] && written[5..10] == *b"later" && written[10..] == large[10..]);
}

/// Nobody waits for a thread that is gone, and its error counts.
#[test]
fn an_error_of_the_sink_ends_the_reader() {
    let bytes = vec![1; 8 * RANGE_BYTES as usize];
    let sink = Sink { fails: true, ..Sink::default() };
    let error = unpacked(&whole("shop/t.ibd", &bytes), &sink).unwrap_err();
    assert_eq!(error.to_string(), "the joiner is gone");
}
