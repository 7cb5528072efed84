use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use protocol::inventory::FileEntry;

use super::*;
use crate::cancel::Cancel;
use crate::send::throttle::Throttle;

const MIB: u64 = 1 << 20;
const RATE: u64 = 40 * MIB;
/// Threads that read pages.
const READERS: u64 = 4;

/// Sends what it gets at a limit, as the connections do.
struct Link {
    throttle: Throttle,
    cancel: Cancel,
    redo: AtomicU64,
    pages: AtomicU64,
}

impl SnapshotSink for Link {
    fn announce(&self, _: &FileEntry) -> Result<()> {
        Ok(())
    }

    fn write(&self, file: FileId, _: u64, bytes: &[u8]) -> Result<()> {
        self.throttle.hold_back(bytes.len(), &self.cancel, || Ok(()))?;
        let sent = if file == REDO { &self.redo } else { &self.pages };
        sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

/// A spool that has no room gives out its oldest redo while files are copied. Whether there is one thread that reads pages or
/// four: redo and pages share the limit, and neither waits for the other.
#[test]
fn with_a_full_spool_neither_redo_nor_pages_starve() {
    for readers in [1, READERS] {
        let from = Checkpoint { lsn: Lsn(12_288), end_lsn: Lsn(12_288) };
        let spool = Arc::new(Spool::new(&std::env::temp_dir(), 0));
        spool.hold();
        let out = RedoOut::new(Arc::clone(&spool), from);
        let throttle = Throttle::new(Some(RATE));
        let link =
            Link { throttle, cancel: Cancel::new(), redo: AtomicU64::new(0), pages: AtomicU64::new(0) };
        let began = Instant::now();
        let over = || began.elapsed() > Duration::from_millis(1500);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut start = from.lsn;
                while !over() {
                    let end = Lsn(start.0 + MIB);
                    let chunk = Chunk { start, end, bytes: vec![0; MIB as usize], events: Vec::new() };
                    spool.push(chunk).unwrap();
                    start = end;
                }
                spool.abandon();
            });
            scope.spawn(|| out.run(&link).unwrap());
            for _ in 0..readers {
                scope.spawn(|| {
                    while !over() {
                        link.write(FileId(1), 0, &vec![0; MIB as usize]).unwrap();
                    }
                });
            }
        });
        let all = RATE as f64 * began.elapsed().as_secs_f64();
        let [redo, pages] = [&link.redo, &link.pages].map(|sent| sent.load(Ordering::Relaxed) as f64 / all);
        assert!(redo + pages < 1.2, "{readers}: {redo} and {pages} of the limit");
        assert!(redo > 0.5 / (readers + 1) as f64, "{readers}: redo had {redo}");
        assert!(pages > 0.3, "{readers}: pages had {pages}");
    }
}
