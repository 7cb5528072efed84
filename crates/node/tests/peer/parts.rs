//! Parts of pages: what a joiner could not rebuild is sent whole, and before anything newer of the same range.
use node::cancel::Cancel;
use node::failure::Kind;
use node::peer::Link;
use node::server::progress::Progress;
use node::source::compare::{Compare, Parts};
use node::source::outbox::Outbox;
use node::source::packer::Compression;
use node::source::sink::SnapshotSink;
use node::source::throttle::Throttle;
use protocol::chunk::{Chunk, digest};
use protocol::delta::piece_marks;
use protocol::inventory::{FileEntry, FileId, FileRole, Place};
use protocol::marks::{MarkKey, block_marks, range_mark};
use protocol::message::Message;

use super::common::{SOON, dialer, fails, pair};

pub(super) const KEY: MarkKey = [4; 32];
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
    pub lane: Link,
    pub asks: Link,
    pub answers: Link,
}

impl Joiner {
    pub fn chunk(&mut self) -> (Chunk, Vec<u8>) {
        let mut payload = Vec::new();
        loop {
            match self.lane.recv_with_payload(&mut payload).unwrap() {
                Message::Begin(_) | Message::BeginKnown { .. } => {}
                Message::Chunk(chunk) => return (chunk, payload),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Says the mark of the only range that there is here.
    fn mark(&mut self, theirs: &[u8]) {
        assert_eq!(self.asks.recv().unwrap(), Message::Asks);
        assert_eq!(self.answers.recv().unwrap(), Message::Answers);
        assert!(matches!(self.asks.recv().unwrap(), Message::Look(_)));
        let size = Some(theirs.len() as u64);
        self.answers.send(&Message::Base { file: FILE, size }).unwrap();
        let marks = vec![range_mark(&KEY, &block_marks(&KEY, theirs))];
        self.answers.send(&Message::Marks { file: FILE, first: 0, marks }).unwrap();
    }

    /// Answers what is asked until the first chunk comes.
    fn until_chunk(&mut self, theirs: &[u8]) -> (Chunk, Vec<u8>) {
        self.mark(theirs);
        assert_eq!(self.asks.recv().unwrap(), Message::LookCloser { file: FILE, range: 0 });
        let marks = block_marks(&KEY, theirs);
        self.answers.send(&Message::Blocks { file: FILE, range: 0, marks }).unwrap();
        let blocks = vec![1, 2, 3];
        assert_eq!(self.asks.recv().unwrap(), Message::LookInside { file: FILE, range: 0, blocks });
        let marks = theirs.chunks(BLOCK).skip(1).map(|block| piece_marks(&KEY, block)).collect();
        self.answers.send(&Message::Pieces { file: FILE, range: 0, marks }).unwrap();
        self.chunk()
    }

    fn rebuilt(&mut self, failed: Vec<u32>) {
        self.answers.send(&Message::Rebuilt { file: FILE, offset: 0, failed }).unwrap();
    }

    pub fn end(&mut self) {
        assert_eq!(self.asks.recv().unwrap(), Message::LooksEnd);
        self.answers.send(&Message::AnswersEnd).unwrap();
        assert!(matches!(self.lane.recv().unwrap(), Message::WorkerDone { .. }));
        self.lane.send(&Message::WorkerStored).unwrap();
    }
}

/// Runs both ends: a source on one side, a joiner on the other. Answers what became of the source.
pub(super) fn run(
    source: impl FnOnce(&Outbox<'_>) -> anyhow::Result<()> + Send,
    talk: impl FnOnce(&mut Joiner) + Send,
) -> anyhow::Result<()> {
    let (door, _joiner, _donor, cancel) = pair();
    door.allow_workers(3);
    let dialer = dialer(&door, door.invitation(), &cancel);
    let (donors, progress) = (Cancel::new(), Progress::new("donor"));
    let compare = Compare::new(KEY, Parts::Always, &donors);
    let outbox =
        Outbox::new(1, None, Compression::Never, Throttle::new(None), Some(compare), &progress, &donors);
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
            let (_, theirs) = door.admit_worker(SOON, &cancel).unwrap().unwrap();
            ends.push((ours.join().unwrap(), theirs));
        }
        let (answers, asks, lane) = (ends.pop().unwrap(), ends.pop().unwrap(), ends.pop().unwrap());
        let mut joiner = Joiner { lane: lane.1, asks: asks.1, answers: answers.1 };
        let (mut lane, mut asks, mut answers) = (lane.0, asks.0, answers.0);
        let (outbox, donors) = (&outbox, &donors);
        let compare = outbox.compare().unwrap();
        let sends = scope.spawn(move || outbox.send(0, &mut lane).map(drop));
        let questions = scope.spawn(move || compare.send_questions(&mut asks));
        let hears = scope
            .spawn(move || compare.hear_answers(&mut answers).inspect_err(|e| donors.cancel_by_worker(e)));
        let talks = scope.spawn(move || talk(&mut joiner));
        let given = source(outbox).and_then(|()| outbox.settle());
        outbox.close(given.is_err());
        let heard = hears.join().unwrap();
        talks.join().unwrap();
        heard?;
        given?;
        sends.join().unwrap()?;
        questions.join().unwrap()
    })
}

#[test]
fn nothing_is_asked_about_what_becomes_zero() {
    let (_, theirs) = both();
    let source = |outbox: &Outbox<'_>| {
        let size = theirs.len() as u64;
        outbox.expect(&mut [entry(size)].iter());
        outbox.announce(&entry(size))?;
        outbox.write(FILE, 0, &vec![0; theirs.len()])
    };
    let talk = |joiner: &mut Joiner| {
        joiner.mark(&theirs);
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
    let source = |outbox: &Outbox<'_>| {
        outbox.expect(&mut [entry(size)].iter());
        outbox.announce(&entry(size))?;
        outbox.write(FILE, 0, &ours)?;
        // The same block again, as it is now.
        outbox.write(FILE, 2 * BLOCK as u64, &newer)
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
fn a_settled_moment_waits_for_what_is_rebuilt() {
    let (ours, theirs) = both();
    let size = ours.len() as u64;
    let said = std::sync::atomic::AtomicBool::new(false);
    let source = |outbox: &Outbox<'_>| {
        outbox.expect(&mut [entry(size)].iter());
        outbox.announce(&entry(size))?;
        outbox.write(FILE, 0, &ours)?;
        outbox.begin_moment()?;
        assert!(said.load(std::sync::atomic::Ordering::SeqCst), "it did not wait");
        outbox.end_moment();
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
    let source = |outbox: &Outbox<'_>| {
        outbox.expect(&mut [entry(1)].iter());
        std::thread::sleep(std::time::Duration::from_millis(300));
        Ok(())
    };
    let talk = |joiner: &mut Joiner| {
        assert_eq!(joiner.answers.recv().unwrap(), Message::Answers);
        joiner.rebuilt(Vec::new());
    };
    fails(run(source, talk), Kind::Peer, "rebuilt blocks of file number 5 that it was not sent");
}
