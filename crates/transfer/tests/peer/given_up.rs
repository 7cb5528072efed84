//! Comparing that costs more than it saves ends midway: the donor asks no more, and what was not compared is sent whole.
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use protocol::chunk::Chunk;
use protocol::delta::piece_fingerprints;
use protocol::fingerprint::{block_fingerprints, range_fingerprint};
use protocol::inventory::{FileEntry, FileId, FileRole, Place};
use protocol::message::Message;
use rejoin_transfer::compare::worth::Prospect;
use rejoin_transfer::peer::Link;
use rejoin_transfer::send::queue::SendQueue;
use rejoin_transfer::snapshot::sink::SnapshotSink;

use super::parts::{Joiner, KEY, run_with};

const FILE: FileId = FileId(5);
const LATER: FileId = FileId(6);
const RANGE: u64 = 1 << 20;
const BLOCK: usize = 16384;
const RANGES: u64 = 24;
/// So many are described by the joiner, and are enough to give up.
const DESCRIBED: u32 = 4;
/// The joiner answers so slowly that sending everything would be faster on any link.
const SLOW: Duration = Duration::from_millis(100);
/// The sample found nothing.
const HOPELESS: Prospect = Prospect { all: 1000 * RANGE, shared: 0 };

fn entry(id: FileId, size: u64) -> FileEntry {
    let (path, role) = (format!("d/t{}.ibd", id.0), FileRole::Table);
    FileEntry { id, place: Place::Datadir, path, size, allocated: size, role }
}

/// A range, which no other one is like.
fn range(number: u64, seed: u64) -> Vec<u8> {
    let mut state = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8 | 1
    };
    (0..RANGE).map(|_| next()).collect()
}

/// What the joiner has: other ranges, but for one block of the first one, of which one byte differs if it is `alike`.
fn theirs(alike: bool) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = (0..u64::from(DESCRIBED)).map(|number| range(number, 77)).collect();
    if alike {
        let mut block = range(0, 0)[..BLOCK].to_vec();
        block[5] ^= 2;
        all[0][..BLOCK].copy_from_slice(&block);
    }
    all
}

/// Writes a file whose ranges nearly all differ. After the first ones it goes on when `may_go_on`.
fn give(send_queue: &SendQueue<'_>, may_go_on: impl Fn() -> bool) -> anyhow::Result<()> {
    let (first, later) = (entry(FILE, RANGES * RANGE), entry(LATER, RANGE));
    send_queue.expect(&mut std::iter::once(&first));
    send_queue.announce(&first)?;
    for number in 0..RANGES {
        let began = Instant::now();
        while number > 2 * u64::from(DESCRIBED) && !may_go_on() {
            assert!(began.elapsed() < Duration::from_secs(20), "comparing goes on");
            std::thread::sleep(Duration::from_millis(5));
        }
        send_queue.write(FILE, number * RANGE, &range(number, 0))?;
    }
    // Nothing is asked about what comes then.
    send_queue.expect(&mut std::iter::once(&later));
    send_queue.announce(&later)?;
    send_queue.write(LATER, 0, &range(0, 99))
}

/// Describes the first ranges, and answers what is asked of them, until no more is asked.
fn describe(asks: &mut Link, say: &Sender<Message>, theirs: &[Vec<u8>], ended: impl Fn()) {
    assert_eq!(asks.recv().unwrap(), Message::Asks);
    assert!(matches!(asks.recv().unwrap(), Message::CompareFiles(files) if files.len() == 1));
    say.send(Message::JoinersFile { file: FILE, size: Some(RANGES * RANGE) }).unwrap();
    let fingerprints =
        theirs.iter().map(|bytes| range_fingerprint(&KEY, &block_fingerprints(&KEY, bytes))).collect();
    say.send(Message::RangeFingerprints { file: FILE, first: 0, fingerprints }).unwrap();
    loop {
        let answer = match asks.recv().unwrap() {
            Message::CompareBlocks { file, range } => {
                let Some(bytes) = theirs.get(range as usize) else { continue };
                std::thread::sleep(SLOW);
                let fingerprints = block_fingerprints(&KEY, bytes);
                Message::BlockFingerprints { file, range, fingerprints }
            }
            Message::ComparePieces { file, range, blocks } => {
                let block = |number: &u8| &theirs[range as usize][usize::from(*number) * BLOCK..][..BLOCK];
                let fingerprints =
                    blocks.iter().map(|number| piece_fingerprints(&KEY, block(number))).collect();
                Message::PieceFingerprints { file, range, fingerprints }
            }
            Message::CompareEnd => break ended(),
            other => panic!("{other:?}"),
        };
        say.send(answer).unwrap();
    }
}

/// The joiner's connections, each in its thread. `ended`: called when no more is asked; `each` gets every chunk, and says what it
/// wants to be answered.
fn talk(
    joiner: &mut Joiner,
    theirs: &[Vec<u8>],
    ended: impl Fn() + Send,
    mut each: impl FnMut(Chunk, &[u8]) -> Option<Message>,
) {
    let Joiner { data, asks, answers } = joiner;
    let (say, said) = channel();
    let more = say.clone();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            describe(asks, &say, theirs, ended);
            say.send(Message::AnswersEnd).unwrap();
        });
        scope.spawn(move || {
            assert_eq!(answers.recv().unwrap(), Message::Answers);
            said.iter().for_each(|message| answers.send(&message).unwrap());
        });
        chunks(data, |chunk, payload| {
            each(chunk, payload).into_iter().for_each(|answer| more.send(answer).unwrap());
        });
        drop(more);
    });
}

/// Takes all chunks, and says that they are stored.
fn chunks(data: &mut Link, mut each: impl FnMut(Chunk, &[u8])) {
    let mut payload = Vec::new();
    loop {
        match data.recv_with_payload(&mut payload).unwrap() {
            Message::Begin(_) | Message::BeginKnown { .. } => {}
            Message::Chunk(chunk) => each(chunk, &payload),
            Message::WorkerDone { .. } => break data.send(&Message::WorkerStored).unwrap(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_joiner_is_asked_no_more_and_gets_the_rest_whole() {
    let over = AtomicBool::new(false);
    let source = |send_queue: &SendQueue<'_>| {
        // The donor is not done yet: it goes on when it has ended its questions.
        give(send_queue, || over.load(Ordering::SeqCst))?;
        assert_eq!(send_queue.compare().unwrap().same_bytes(), 0);
        Ok(())
    };
    let talk = |joiner: &mut Joiner| {
        let mut came = Vec::new();
        let each = |chunk: Chunk, payload: &[u8]| {
            let number = chunk.offset / RANGE;
            let expected = if chunk.file == FILE { range(number, 0) } else { range(0, 99) };
            assert!(payload == expected && chunk.same.is_empty() && chunk.deltas.is_empty());
            came.push((chunk.file, number));
            None
        };
        talk(joiner, &theirs(false), || over.store(true, Ordering::SeqCst), each);
        let expected = (0..RANGES).map(|number| (FILE, number)).chain([(LATER, 0)]);
        assert_eq!(came, expected.collect::<Vec<_>>());
    };
    run_with(|compare| compare.may_stop(HOPELESS, RANGE), source, talk).unwrap();
}

/// What the joiner rebuilds it confirms on the connection for its answers, which ends with the questions.
#[test]
fn questions_end_when_all_that_is_rebuilt_is_confirmed() {
    let confirmed = AtomicBool::new(false);
    let source = |send_queue: &SendQueue<'_>| give(send_queue, || true);
    let talk = |joiner: &mut Joiner| {
        let mut deltas = 0;
        let each = |chunk: Chunk, _: &[u8]| {
            deltas += chunk.deltas.len();
            (!chunk.deltas.is_empty()).then(|| {
                std::thread::sleep(Duration::from_millis(300));
                confirmed.store(true, Ordering::SeqCst);
                Message::Rebuilt { file: chunk.file, offset: chunk.offset, failed: Vec::new() }
            })
        };
        let ended = || assert!(confirmed.load(Ordering::SeqCst), "it ended before");
        talk(joiner, &theirs(true), ended, each);
        assert_eq!(deltas, 1);
    };
    run_with(|compare| compare.may_stop(HOPELESS, RANGE), source, talk).unwrap();
}
