//! Parts of pages: what a joiner could not rebuild is sent whole, and before anything newer of the same range.
use std::time::{Duration, Instant};

use protocol::chunk::{Chunk, digest};
use protocol::delta::piece_fingerprints;
use protocol::fingerprint::{FingerprintKey, block_fingerprints, range_fingerprint};
use protocol::inventory::{FileEntry, FileId, FileRole, Place};
use protocol::message::Message;
use rejoin_transfer::cancel::Cancel;
use rejoin_transfer::compare::comparison::{Compare, Parts};
use rejoin_transfer::failure::Kind;
use rejoin_transfer::peer::Link;
use rejoin_transfer::send::packer::Compression;
use rejoin_transfer::send::queue::SendQueue;
use rejoin_transfer::send::throttle::Throttle;
use rejoin_transfer::server::progress::Progress;
use rejoin_transfer::snapshot::sink::SnapshotSink;

use super::common::{SOON, dialer, fails, pair};

pub(super) const KEY: FingerprintKey = [4; 32];
const BLOCK: usize = 16384;
const FILE: FileId = FileId(5);

fn entry(size: u64) -> FileEntry {
    let path = "d/t.ibd".to_owned();
    FileEntry { id: FILE, place: Place::Datadir, path, size, allocated: size, role: FileRole::Table }
}

/// Four blocks; the joiner's first is the same, the second and third have one byte of another, the last is another one.
fn both() -> (Vec<u8>, Vec<u8>) {
    let ours: Vec<u8> = (0..4 * BLOCK).map(|n| (n / 7 % 251) as u8 | 1).collect();
    let mut theirs = ours.clone();
    theirs[BLOCK + 5] ^= 2;
    theirs[2 * BLOCK + 9] ^= 2;
    theirs[3 * BLOCK..].iter_mut().for_each(|byte| *byte ^= 0x40);
    (ours, theirs)
}

/// The joiner's connections, by their numbers: ranges, questions, answers.
pub(super) struct Joiner {
    pub data: Link,
    pub asks: Link,
    pub answers: Link,
}

impl Joiner {
    pub fn chunk(&mut self) -> (Chunk, Vec<u8>) {
        let mut payload = Vec::new();
        loop {
            match self.data.recv_with_payload(&mut payload).unwrap() {
                Message::Begin(_) | Message::BeginKnown { .. } => {}
                Message::Chunk(chunk) => return (chunk, payload),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Says the fingerprint of the only range that there is here.
    fn fingerprint(&mut self, theirs: &[u8]) {
        assert_eq!(self.asks.recv().unwrap(), Message::Asks);
        assert_eq!(self.answers.recv().unwrap(), Message::Answers);
        assert!(matches!(self.asks.recv().unwrap(), Message::CompareFiles(_)));
        let size = Some(theirs.len() as u64);
        self.answers.send(&Message::JoinersFile { file: FILE, size }).unwrap();
        let fingerprints = vec![range_fingerprint(&KEY, &block_fingerprints(&KEY, theirs))];
        self.answers.send(&Message::RangeFingerprints { file: FILE, first: 0, fingerprints }).unwrap();
    }

    /// Answers what is asked until the first chunk comes.
    fn until_chunk(&mut self, theirs: &[u8]) -> (Chunk, Vec<u8>) {
        self.fingerprint(theirs);
        assert_eq!(self.asks.recv().unwrap(), Message::CompareBlocks { file: FILE, range: 0 });
        let fingerprints = block_fingerprints(&KEY, theirs);
        self.answers.send(&Message::BlockFingerprints { file: FILE, range: 0, fingerprints }).unwrap();
        let blocks = vec![1, 2, 3];
        assert_eq!(self.asks.recv().unwrap(), Message::ComparePieces { file: FILE, range: 0, blocks });
        let fingerprints =
            theirs.chunks(BLOCK).skip(1).map(|block| piece_fingerprints(&KEY, block)).collect();
        self.answers.send(&Message::PieceFingerprints { file: FILE, range: 0, fingerprints }).unwrap();
        self.chunk()
    }

    fn rebuilt(&mut self, failed: Vec<u32>) {
        self.answers.send(&Message::Rebuilt { file: FILE, offset: 0, failed }).unwrap();
    }

    pub fn end(&mut self) {
        assert_eq!(self.asks.recv().unwrap(), Message::CompareEnd);
        self.answers.send(&Message::AnswersEnd).unwrap();
        assert!(matches!(self.data.recv().unwrap(), Message::WorkerDone { .. }));
        self.data.send(&Message::WorkerStored).unwrap();
    }
}

/// Runs both ends: a source on one side, a joiner on the other. Answers what became of the source.
pub(super) fn run(
    source: impl FnOnce(&SendQueue<'_>) -> anyhow::Result<()> + Send,
    talk: impl FnOnce(&mut Joiner) + Send,
) -> anyhow::Result<()> {
    run_with(|compare| compare, source, talk)
}

pub(super) fn run_with(
    change: impl FnOnce(Compare<'_>) -> Compare<'_>,
    source: impl FnOnce(&SendQueue<'_>) -> anyhow::Result<()> + Send,
    talk: impl FnOnce(&mut Joiner) + Send,
) -> anyhow::Result<()> {
    let (listener, _joiner, _donor, cancel) = pair();
    listener.allow_workers(3);
    let dialer = dialer(&listener, listener.invitation(), &cancel);
    let (donors, progress) = (Cancel::new(), Progress::new("donor"));
    let compare = change(Compare::new(KEY, Parts::Always, &donors));
    let send_queue = SendQueue::new(
        1,
        None,
        Compression::Never,
        Throttle::new(None).into(),
        Some(compare),
        &progress,
        &donors,
    );
    std::thread::scope(|scope| {
        let connect = |number| {
            scope.spawn({
                let dialer = &dialer;
                move || dialer.dial_worker(number, SOON).unwrap()
            })
        };
        let mut ends = Vec::new();
        for number in 0..3 {
            let ours = connect(number);
            let (_, theirs) = listener.admit_worker(SOON, &cancel).unwrap().unwrap();
            ends.push((ours.join().unwrap(), theirs));
        }
        let (answers, asks, data) = (ends.pop().unwrap(), ends.pop().unwrap(), ends.pop().unwrap());
        let mut joiner = Joiner { data: data.1, asks: asks.1, answers: answers.1 };
        let (mut data, mut asks, mut answers) = (data.0, asks.0, answers.0);
        let (send_queue, donors) = (&send_queue, &donors);
        let compare = send_queue.compare().unwrap();
        let sends = scope.spawn(move || send_queue.send(0, &mut data).map(drop));
        let questions = scope.spawn(move || compare.send_questions(&mut asks));
        let answering = scope
            .spawn(move || compare.receive_answers(&mut answers).inspect_err(|e| donors.cancel_by_worker(e)));
        let talks = scope.spawn(move || talk(&mut joiner));
        let given = source(send_queue).and_then(|()| send_queue.settle());
        send_queue.close(given.is_err());
        let answered = answering.join().unwrap();
        talks.join().unwrap();
        answered?;
        given?;
        sends.join().unwrap()?;
        questions.join().unwrap()
    })
}

#[test]
fn nothing_is_asked_about_what_becomes_zero() {
    let (_, theirs) = both();
    let source = |send_queue: &SendQueue<'_>| {
        let size = theirs.len() as u64;
        send_queue.expect(&mut [entry(size)].iter());
        send_queue.announce(&entry(size))?;
        send_queue.write(FILE, 0, &vec![0; theirs.len()])
    };
    let talk = |joiner: &mut Joiner| {
        joiner.fingerprint(&theirs);
        let (chunk, payload) = joiner.chunk();
        assert_eq!((chunk.len as usize, chunk.whole(), payload.len()), (theirs.len(), 0, 0));
        assert_eq!((chunk.parts, chunk.same), (vec![], vec![]));
        joiner.end();
    };
    run(source, talk).unwrap();
}

#[test]
fn what_was_not_rebuilt_comes_whole_and_before_anything_newer() {
    let (ours, theirs) = both();
    let (size, newer) = (ours.len() as u64, vec![7; BLOCK]);
    let source = |send_queue: &SendQueue<'_>| {
        send_queue.expect(&mut [entry(size)].iter());
        send_queue.announce(&entry(size))?;
        send_queue.write(FILE, 0, &ours)?;
        // The same block again, as it is now.
        send_queue.write(FILE, 2 * BLOCK as u64, &newer)
    };
    let talk = |joiner: &mut Joiner| {
        let (chunk, payload) = joiner.until_chunk(&theirs);
        assert_eq!(
            (&chunk.same, &chunk.parts),
            (&vec![(0, BLOCK as u32)], &vec![(3 * BLOCK as u32, BLOCK as u32)])
        );
        let starts: Vec<u32> = chunk.deltas.iter().map(|delta| delta.start).collect();
        assert_eq!(starts, [BLOCK as u32, 2 * BLOCK as u32]);
        assert_eq!(payload.len(), BLOCK + 2 * 32);
        assert_eq!(chunk.whole(), digest(&ours), "of all that it is to become");
        let mut block = theirs[BLOCK..2 * BLOCK].to_vec();
        assert!(chunk.deltas[0].rebuild(&KEY, &mut block, &payload[BLOCK..BLOCK + 32]));
        assert_eq!(block, ours[BLOCK..2 * BLOCK]);

        joiner.rebuilt(vec![2 * BLOCK as u32]);
        let (again, payload) = joiner.chunk();
        assert_eq!((again.offset, again.len, again.deltas.len()), (2 * BLOCK as u64, BLOCK as u32, 0));
        assert_eq!(payload, ours[2 * BLOCK..3 * BLOCK]);
        let (last, payload) = joiner.chunk();
        assert_eq!((last.offset, payload), (2 * BLOCK as u64, newer.clone()));
        joiner.end();
    };
    run(source, talk).unwrap();
}

#[test]
fn a_consistency_point_waits_for_what_is_rebuilt() {
    let (ours, theirs) = both();
    let size = ours.len() as u64;
    let said = std::sync::atomic::AtomicBool::new(false);
    let source = |send_queue: &SendQueue<'_>| {
        send_queue.expect(&mut [entry(size)].iter());
        send_queue.announce(&entry(size))?;
        send_queue.write(FILE, 0, &ours)?;
        send_queue.begin_consistency_point()?;
        assert!(said.load(std::sync::atomic::Ordering::SeqCst), "it did not wait");
        send_queue.end_consistency_point();
        Ok(())
    };
    let talk = |joiner: &mut Joiner| {
        joiner.until_chunk(&theirs);
        std::thread::sleep(std::time::Duration::from_millis(200));
        said.store(true, std::sync::atomic::Ordering::SeqCst);
        joiner.rebuilt(Vec::new());
        joiner.end();
    };
    run(source, talk).unwrap();
}

#[test]
fn a_joiner_that_speaks_of_what_it_was_not_sent_is_named() {
    let source = |send_queue: &SendQueue<'_>| {
        send_queue.expect(&mut [entry(1)].iter());
        std::thread::sleep(std::time::Duration::from_millis(300));
        Ok(())
    };
    let talk = |joiner: &mut Joiner| {
        assert_eq!(joiner.answers.recv().unwrap(), Message::Answers);
        joiner.rebuilt(Vec::new());
    };
    fails(run(source, talk), Kind::Peer, "rebuilt blocks of file number 5 that it was not sent");
}

/// The donor's clients wait while its files are read: a joiner that is slow to say what it has does not make them wait.
#[test]
fn a_donor_that_holds_still_does_not_wait_long_for_a_joiner_that_says_nothing() {
    const RANGES: u64 = 40;
    let bytes: Vec<u8> = (0..1 << 20).map(|n| (n / 7 % 251) as u8 | 1).collect();
    let source = |send_queue: &SendQueue<'_>| {
        let entry = entry(RANGES << 20);
        send_queue.expect(&mut std::iter::once(&entry));
        send_queue.announce(&entry)?;
        let began = Instant::now();
        (0..RANGES).try_for_each(|range| send_queue.write(FILE, range << 20, &bytes))?;
        // Half a second for the first one or two, and for one in 32.
        assert!(began.elapsed() < Duration::from_millis(500) * RANGES as u32 / 4, "{:?}", began.elapsed());
        Ok(())
    };
    let talk = |joiner: &mut Joiner| {
        for range in 0..RANGES {
            let (chunk, payload) = joiner.chunk();
            assert_eq!(
                (chunk.offset, chunk.len as usize, chunk.digest),
                (range << 20, bytes.len(), digest(&bytes))
            );
            assert!(!payload.is_empty() && chunk.same.is_empty());
        }
        assert_eq!(joiner.asks.recv().unwrap(), Message::Asks);
        assert!(matches!(joiner.asks.recv().unwrap(), Message::CompareFiles(_)));
        assert_eq!(joiner.answers.recv().unwrap(), Message::Answers);
        joiner.end();
    };
    run_with(|compare| compare.held_still(), source, talk).unwrap();
}
