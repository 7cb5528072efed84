use std::io::Write;
use std::path::Path;
use std::sync::Condvar;
use std::time::Duration;

use protocol::inventory::{FileRole, Place};

use super::*;
use crate::datadir::testing::page;
use crate::disk::identity::look;
use crate::threads::lock;

/// A server that makes a checkpoint after each write of ours.
#[derive(Default)]
struct Server {
    checkpoint: AtomicU64,
    written: Mutex<Vec<(u64, u64)>>,
}

impl Checkpoints for Server {
    fn seen(&self) -> Lsn {
        Lsn(self.checkpoint.load(Ordering::SeqCst))
    }

    fn is_holding(&self) -> bool {
        false
    }

    fn hold(&self, _: SpaceId, _: &Range<u32>) -> bool {
        false
    }
}

impl SnapshotSink for Server {
    fn announce(&self, _: &FileEntry) -> Result<()> {
        // The file was opened before this, and is read after it.
        self.checkpoint.fetch_add(10, Ordering::SeqCst);
        Ok(())
    }

    fn write(&self, _: FileId, offset: u64, _: &[u8]) -> Result<()> {
        lock(&self.written).push((offset, self.checkpoint.fetch_add(10, Ordering::SeqCst)));
        Ok(())
    }
}

/// The checkpoint noted for a part is never newer than the one that had been seen when the part was read. The beginning
/// of a file is read when the file is opened.
#[test]
fn a_part_is_as_fresh_as_what_was_seen_before_it_was_read() {
    let dir = tempfile::tempdir().unwrap();
    let wanted = wanted(dir.path(), 1, 3 * RANGE_BYTES as usize);
    let (server, cancel, bytes) = (Server::default(), Cancel::new(), AtomicU64::new(0));
    let copier = Copier { threads: 1, checkpoints: Some(&server), ..copier(&server, &cancel, &bytes) };
    let (copied, damage) = copy(copier, &[wanted]).unwrap();
    assert!(damage.is_empty());
    let range = u64::from(RANGE_BYTES);
    assert_eq!(copied[0].fresh, [(Lsn(0), 0), (Lsn(20), range), (Lsn(30), 2 * range)]);
    assert_eq!(*lock(&server.written), [(0, 10), (range, 20), (2 * range, 30)]);
}

/// Waits in each file until another one is being opened as well.
#[derive(Default)]
struct Together {
    opening: Mutex<u32>,
    more: Condvar,
}

impl SnapshotSink for Together {
    fn announce(&self, file: &FileEntry) -> Result<()> {
        let mut opening = lock(&self.opening);
        *opening += 1;
        self.more.notify_all();
        let patience = Duration::from_secs(20);
        let alone = |opening: &mut u32| *opening < 2;
        let (_held, waited) = self.more.wait_timeout_while(opening, patience, alone).unwrap();
        anyhow::ensure!(!waited.timed_out(), "{} was opened while no other file could be", file.path);
        Ok(())
    }

    fn write(&self, _: FileId, _: u64, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// Most files are hardly longer than what is read when they are opened: 20,000 tables took four times as long as their reading
/// while they were opened one after the other.
#[test]
fn files_are_opened_at_the_same_time() {
    let dir = tempfile::tempdir().unwrap();
    let wanted: Vec<Wanted> = (1..=2).map(|id| wanted(dir.path(), id, 65536)).collect();
    let (sink, cancel, bytes) = (Together::default(), Cancel::new(), AtomicU64::new(0));
    let copier = copier(&sink, &cancel, &bytes);
    let (copied, _) = copy(copier, &wanted).unwrap();
    let mut ids: Vec<u32> = copied.iter().map(|copied| copied.id.0).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2]);
}

/// Does not take the first file, and counts what it takes of the second.
#[derive(Default)]
struct Refusing(AtomicU64);

impl SnapshotSink for Refusing {
    fn announce(&self, _: &FileEntry) -> Result<()> {
        Ok(())
    }

    fn write(&self, file: FileId, _: u64, _: &[u8]) -> Result<()> {
        anyhow::ensure!(file != FileId(1), "refused");
        self.0.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(30));
        Ok(())
    }
}

#[test]
fn an_error_in_one_file_ends_the_copy_of_the_others() {
    const RANGES: u64 = 20;
    let dir = tempfile::tempdir().unwrap();
    let wanted = [(1, 1), (2, RANGES as usize)]
        .map(|(id, ranges)| wanted(dir.path(), id, ranges * RANGE_BYTES as usize));
    let (sink, cancel, bytes) = (Refusing::default(), Cancel::new(), AtomicU64::new(0));
    let copier = copier(&sink, &cancel, &bytes);
    let error = copy(copier, &wanted).err().unwrap();
    assert!(format!("{error:#}").contains("refused"), "{error:#}");
    let taken = sink.0.into_inner();
    assert!(taken < RANGES, "all {taken} ranges of the other file were read first");
}

/// Has the server add pages to a file once it was opened.
struct Growing {
    path: PathBuf,
    by: u32,
    copy: Mutex<Vec<u8>>,
}

impl SnapshotSink for Growing {
    fn announce(&self, _: &FileEntry) -> Result<()> {
        let mut file = std::fs::File::options().append(true).open(&self.path)?;
        Ok((2..2 + self.by).try_for_each(|number| file.write_all(&page(9, number, 78, &[])))?)
    }

    fn write(&self, _: FileId, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut copy = lock(&self.copy);
        assert_eq!(offset, copy.len() as u64);
        copy.extend(bytes);
        Ok(())
    }
}

/// Of a small file everything is read when it is opened, but for what it grows by after that.
#[test]
fn a_small_file_may_grow_after_it_was_opened() {
    for (direct, by) in [(false, 0), (true, 0), (false, 1), (true, 1), (true, 40)] {
        let dir = tempfile::tempdir_in(".").unwrap();
        let wanted = wanted(dir.path(), 1, 0);
        let content = [page(9, 0, 77, &[]), page(9, 1, 77, &[])].concat();
        std::fs::write(&wanted.path, &content).unwrap();
        let sink = Growing { path: wanted.path.clone(), by, copy: Mutex::default() };
        let (cancel, bytes) = (Cancel::new(), AtomicU64::new(0));
        let copier = Copier { threads: 1, direct, ..copier(&sink, &cancel, &bytes) };
        let (copied, damage) = copy(copier, std::slice::from_ref(&wanted)).unwrap();
        assert!(damage.is_empty());
        let expected = std::fs::read(&wanted.path).unwrap();
        assert_eq!(copied[0].bytes, Some(content.len() as u64 / 2 * (2 + u64::from(by))));
        assert_eq!((copied[0].space, copied[0].head.len()), (Some(SpaceId(9)), 2));
        assert!(*lock(&sink.copy) == expected, "{direct} {by}");
    }
}

/// Copies with two threads what a server may be writing to.
pub(in crate::snapshot::copy) fn copier<'a>(
    sink: &'a dyn SnapshotSink,
    cancel: &'a Cancel,
    bytes: &'a AtomicU64,
) -> Copier<'a> {
    Copier {
        sink,
        threads: 2,
        direct: false,
        allow_corrupt: false,
        cancel,
        bytes,
        pace: &|| Ok(()),
        checkpoints: None,
        memory: None,
        live: true,
    }
}

/// A file of zeros that is to be copied.
fn wanted(dir: &Path, id: u32, bytes: usize) -> Wanted {
    let path = dir.join(format!("t{id}.ibd"));
    std::fs::write(&path, vec![0; bytes]).unwrap();
    let seen = look(&path).unwrap().unwrap();
    let (size, name) = (seen.signature.size, format!("t{id}.ibd"));
    let (place, role) = (Place::Datadir, FileRole::Table);
    let entry = FileEntry { id: FileId(id), place, path: name, size, allocated: size, role };
    Wanted { entry, path, identity: seen.identity, system: None }
}
