use protocol::inventory::{FileRole, Place};

use super::*;
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
    let path = dir.path().join("t.ibd");
    std::fs::write(&path, vec![0; 3 * RANGE_BYTES as usize]).unwrap();
    let seen = look(&path).unwrap().unwrap();
    let size = seen.signature.size;
    let (place, role) = (Place::Datadir, FileRole::Table);
    let entry = FileEntry { id: FileId(1), place, path: "t.ibd".to_owned(), size, allocated: size, role };
    let wanted = Wanted { entry, path, identity: seen.identity, system: None };
    let (server, cancel, bytes) = (Server::default(), Cancel::new(), AtomicU64::new(0));
    let copier = Copier {
        sink: &server,
        threads: 1,
        direct: false,
        allow_corrupt: false,
        cancel: &cancel,
        bytes: &bytes,
        pace: &|| Ok(()),
        checkpoints: Some(&server),
    };
    let (copied, damage) = copy(copier, &[wanted]).unwrap();
    assert!(damage.is_empty());
    let range = u64::from(RANGE_BYTES);
    assert_eq!(copied[0].fresh, [(Lsn(0), 0), (Lsn(20), range), (Lsn(30), 2 * range)]);
    assert_eq!(*lock(&server.written), [(0, 10), (range, 20), (2 * range, 30)]);
}
