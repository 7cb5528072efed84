//! What is asked of the server, and when.
use std::path::Path;
use std::sync::Arc;

use formats::PageNo;
use formats::innodb::redo::Record;
use protocol::inventory::{FileEntry, FileId};

use super::*;
use crate::threads::{Thread, scoped};

const FROM: Lsn = Lsn(12_288);
/// Bytes of redo since the server's checkpoint: so many that a newer one pays.
const WAITS: u64 = 700 << 20;

/// A donor whose server may be strained.
#[derive(Default)]
struct Donor {
    strained: AtomicBool,
    told: Mutex<Vec<String>>,
}

impl SnapshotSink for Donor {
    fn announce(&self, _entry: &FileEntry) -> Result<()> {
        Ok(())
    }

    fn write(&self, _file: FileId, _offset: u64, _bytes: &[u8]) -> Result<()> {
        Ok(())
    }

    fn is_strained(&self) -> bool {
        self.strained.load(Ordering::Relaxed)
    }

    fn tell(&self, text: &str) {
        lock(&self.told).push(text.to_owned());
    }
}

/// What [`Checkpoints`] refers to.
struct OnDonor {
    login: Login,
    dirty: Dirty,
    tail: TailState,
    out: RedoOut,
    spool: Arc<Spool>,
    copied: AtomicU64,
    cancel: Cancel,
}

impl OnDonor {
    fn new() -> OnDonor {
        let nowhere = Path::new("/nowhere");
        let spool = Arc::new(Spool::new(nowhere, 0));
        let dirty = Dirty::new(FROM, 1 << 30);
        dirty.note_records(FROM, Lsn(FROM.0 + WAITS), std::iter::empty());
        OnDonor {
            login: Login::at_socket(nowhere, None),
            dirty,
            tail: TailState::default(),
            out: RedoOut::new(Arc::clone(&spool), Checkpoint { lsn: FROM, end_lsn: FROM }),
            spool,
            copied: AtomicU64::new(0),
            cancel: Cancel::new(),
        }
    }

    fn context<'a>(&'a self, sink: &'a Donor) -> CopyContext<'a> {
        CopyContext {
            log: PathBuf::from("/nowhere"),
            login: &self.login,
            dirty: &self.dirty,
            tail: &self.tail,
            out: &self.out,
            spool: &self.spool,
            sink,
            copied: &self.copied,
            page_size: 16384,
            cancel: &self.cancel,
        }
    }

    fn checkpoints<'a>(&'a self, sink: &'a Donor) -> Checkpoints<'a> {
        Checkpoints::new(self.context(sink), Lsn(FROM.0 + WAITS))
    }
}

fn is_due(checkpoints: &Checkpoints<'_>) -> Option<String> {
    checkpoints.lock().estimated = Instant::now() - ESTIMATE_EVERY;
    checkpoints.is_due()
}

/// A checkpoint has the server write pages as fast as its disk takes them, which its clients feel.
#[test]
fn a_strained_server_is_asked_once_it_is_calm() {
    let (on, donor) = (OnDonor::new(), Donor::default());
    let checkpoints = on.checkpoints(&donor);
    donor.strained.store(true, Ordering::Relaxed);
    assert_eq!([is_due(&checkpoints), is_due(&checkpoints)], [None, None]);
    let told = lock(&donor.told).clone();
    assert!(told.len() == 1 && told[0].contains("strained"), "{told:?}");
    donor.strained.store(false, Ordering::Relaxed);
    assert!(is_due(&checkpoints).is_some_and(|why| why.starts_with("700.0 MiB of redo")));
}

/// When the copy is complete, the transfer waits for that no longer than the checkpoint would save.
#[test]
fn a_server_that_stays_strained_is_not_asked() {
    let (on, donor) = (OnDonor::new(), Donor::default());
    let checkpoints = on.checkpoints(&donor);
    donor.strained.store(true, Ordering::Relaxed);
    let began = Instant::now();
    checkpoints.request(Duration::from_secs(60), Duration::from_millis(100)).unwrap();
    assert!(began.elapsed() >= Duration::from_millis(100) && began.elapsed() < Duration::from_secs(30));
    // Nor later, when it may hold locks for us.
    donor.strained.store(false, Ordering::Relaxed);
    on.out.fix(true);
    assert_eq!(is_due(&checkpoints), None);
}

#[test]
fn a_request_is_carried_out_when_the_strain_ends() {
    let (on, donor) = (OnDonor::new(), Donor::default());
    let checkpoints = on.checkpoints(&donor);
    donor.strained.store(true, Ordering::Relaxed);
    std::thread::scope(|scope| {
        let requested = scoped(scope, Thread::CheckpointWatch, || {
            checkpoints.request(Duration::from_secs(60), Duration::from_secs(60))
        });
        while !checkpoints.lock().wanted {
            std::thread::sleep(LOOK);
        }
        assert_eq!(is_due(&checkpoints), None);
        donor.strained.store(false, Ordering::Relaxed);
        assert_eq!(is_due(&checkpoints).as_deref(), Some("the copy is complete"));
        checkpoints.lock().figures.made += 1;
        requested.join().unwrap();
    });
}

/// With a redo log of many GB no large file was begun until the tail had read all of it, while pages were held at all.
#[test]
fn large_files_are_begun_before_all_old_redo_was_read() {
    let (on, donor) = (OnDonor::new(), Donor::default());
    // The tail has read 700 MB of 16 GB, and one page in it.
    let checkpoints = Checkpoints::new(on.context(&donor), Lsn(FROM.0 + (16 << 30)));
    let changed = Record::Page { space: SpaceId(7), page: PageNo(100) };
    on.dirty.note_records(on.dirty.noted(), Lsn(on.dirty.noted().0 + 10), [Ok(changed)].into_iter());
    let hold = |pages: Range<u32>| pages::Checkpoints::hold(&checkpoints, SpaceId(7), &pages);
    assert!(pages::Checkpoints::is_holding(&checkpoints));
    assert!(hold(64..128), "the server is about to write it");
    assert!(!hold(0..64), "the first byte waits for nothing");
    std::thread::sleep(Duration::from_millis(800));
    checkpoints.hold_for.store(u64::MAX, Ordering::Release);
    checkpoints.lock().hold_until = Instant::now() + Duration::from_secs(60);
    assert!(pages::Checkpoints::is_holding(&checkpoints) && hold(64..128));
    assert!((0..1000).all(|at| !hold(200 + at..201 + at)));
}
