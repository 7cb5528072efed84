//! Small files with one fingerprint: nothing of them travels when the joiner has them all, and each by itself otherwise.
use std::sync::mpsc;
use std::time::Duration;

use protocol::fingerprint::{Fingerprint, GroupHasher, block_fingerprints, range_fingerprint};
use protocol::inventory::{FileEntry, FileId, FileRole, Place};
use protocol::message::Message;
use rejoin_transfer::send::queue::SendQueue;
use rejoin_transfer::snapshot::declined::Declined;
use rejoin_transfer::snapshot::sink::SnapshotSink;

use super::parts::{Joiner, KEY, run};

const FIRST: FileId = FileId(3);
const SECOND: FileId = FileId(4);
const OURS: [&[u8]; 2] = [b"what the first has", b"what is in the second"];

fn entries() -> Vec<FileEntry> {
    let entry = |id, path: &str, size: usize| FileEntry {
        id,
        place: Place::Datadir,
        path: path.to_owned(),
        size: size as u64,
        allocated: 4096,
        role: FileRole::Table,
    };
    vec![entry(FIRST, "d/a.frm", OURS[0].len()), entry(SECOND, "d/b.frm", OURS[1].len())]
}

fn range(bytes: &[u8]) -> Fingerprint {
    range_fingerprint(&KEY, &block_fingerprints(&KEY, bytes))
}

/// Of what the joiner has of both.
fn fingerprint_of(files: [&[u8]; 2]) -> Fingerprint {
    let mut together = GroupHasher::new(&KEY);
    files.iter().for_each(|bytes| together.add(Some(bytes.len() as u64), &[range(bytes)]));
    together.fingerprint()
}

/// What tells the joiner of these files.
fn listed(send_queue: &SendQueue<'_>, files: &[FileEntry]) -> Vec<Message> {
    let mut messages = Vec::new();
    let list = send_queue.list(files.iter().collect());
    list.messages(|message| {
        messages.push(message.clone());
        Ok(())
    })
    .unwrap();
    messages
}

fn give_both(send_queue: &SendQueue<'_>) -> anyhow::Result<()> {
    let entries = entries();
    send_queue.expect(&mut entries.iter());
    for (entry, bytes) in entries.iter().zip(OURS) {
        send_queue.announce(entry)?;
        send_queue.write(entry.id, 0, bytes)?;
    }
    Ok(())
}

impl Joiner {
    /// Receives the questions, and answers with a fingerprint.
    fn answer_groups(&mut self, fingerprint: Fingerprint) {
        assert_eq!(self.asks.recv().unwrap(), Message::Asks);
        assert_eq!(self.answers.recv().unwrap(), Message::Answers);
        assert_eq!(self.asks.recv().unwrap(), Message::CompareGroups(entries()));
        self.answers.send(&Message::GroupFingerprint { first: FIRST, fingerprint }).unwrap();
    }

    /// Its files together are others, so it is asked about each, of which the first turns out to be the same.
    fn describes_each(&mut self, theirs: [&[u8]; 2]) {
        self.answer_groups(fingerprint_of(theirs));
        assert_eq!(self.asks.recv().unwrap(), Message::SplitGroup { first: FIRST });
        self.answer_one(FIRST, theirs[0]);
        self.answer_one(SECOND, theirs[1]);
        assert_eq!(self.data.recv().unwrap(), Message::BeginKnown { file: FIRST });
    }

    /// It is asked about the blocks of the second.
    fn describes_blocks_of_second(&mut self, theirs: &[u8]) {
        assert_eq!(self.asks.recv().unwrap(), Message::CompareBlocks { file: SECOND, range: 0 });
        let fingerprints = block_fingerprints(&KEY, theirs);
        self.answers.send(&Message::BlockFingerprints { file: SECOND, range: 0, fingerprints }).unwrap();
    }

    /// Answers for one file as it is here.
    fn answer_one(&mut self, file: FileId, bytes: &[u8]) {
        self.answers.send(&Message::JoinersFile { file, size: Some(bytes.len() as u64) }).unwrap();
        self.answers
            .send(&Message::RangeFingerprints { file, first: 0, fingerprints: vec![range(bytes)] })
            .unwrap();
    }
}

#[test]
fn what_is_all_there_is_one_message_and_what_is_read_later_follows_it() {
    let source = |send_queue: &SendQueue<'_>| {
        give_both(send_queue)?;
        // It was written to since; nobody waits for an answer about it.
        send_queue.write(SECOND, 0, b"newer")?;
        assert_eq!(send_queue.compare().unwrap().same_bytes(), (OURS[0].len() + OURS[1].len()) as u64);
        let mut files = entries();
        assert_eq!(listed(send_queue, &files), [Message::FilesKnown { first: FIRST, count: 2 }]);
        // Whatever is another one is named whole.
        files[1].path = "d/c.frm".to_owned();
        let list = [Message::FilesKnown { first: FIRST, count: 1 }, Message::Files(vec![files[1].clone()])];
        assert_eq!(listed(send_queue, &files), list);
        Ok(())
    };
    let talk = |joiner: &mut Joiner| {
        joiner.answer_groups(fingerprint_of(OURS));
        assert_eq!(joiner.data.recv().unwrap(), Message::SameGroup { first: FIRST });
        assert_eq!(joiner.data.recv().unwrap(), Message::BeginKnown { file: SECOND });
        let (chunk, payload) = joiner.chunk();
        assert_eq!((chunk.file, chunk.offset, payload), (SECOND, 0, b"newer".to_vec()));
        joiner.end();
    };
    run(source, talk).unwrap();
}

#[test]
fn where_one_differs_each_is_compared_by_itself() {
    let theirs = [OURS[0], b"what was in the second"];
    let talk = |joiner: &mut Joiner| {
        joiner.describes_each(theirs);
        let len = OURS[0].len() as u32;
        assert_eq!(joiner.data.recv().unwrap(), Message::Same { file: FIRST, offset: 0, len });
        joiner.describes_blocks_of_second(theirs[1]);
        let (chunk, payload) = joiner.chunk();
        assert_eq!((chunk.file, payload), (SECOND, OURS[1].to_vec()));
        joiner.end();
    };
    run(give_both, talk).unwrap();
}

#[test]
fn one_that_never_comes_does_not_hold_the_others_back() {
    let source = |send_queue: &SendQueue<'_>| {
        let entries = entries();
        send_queue.expect(&mut entries.iter());
        send_queue.announce(&entries[0])?;
        send_queue.write(FIRST, 0, OURS[0])?;
        send_queue.begin_consistency_point()?;
        send_queue.end_consistency_point();
        Ok(())
    };
    let talk = |joiner: &mut Joiner| {
        joiner.answer_groups(fingerprint_of(OURS));
        assert_eq!(joiner.asks.recv().unwrap(), Message::SplitGroup { first: FIRST });
        joiner.answer_one(FIRST, OURS[0]);
        joiner.answer_one(SECOND, OURS[1]);
        assert_eq!(joiner.data.recv().unwrap(), Message::BeginKnown { file: FIRST });
        assert!(matches!(joiner.data.recv().unwrap(), Message::Same { file: FIRST, .. }));
        joiner.end();
    };
    run(source, talk).unwrap();
}

/// Under locks nobody waits for an answer.
#[test]
fn at_a_consistency_point_all_of_it_is_sent() {
    let source = |send_queue: &SendQueue<'_>| {
        send_queue.begin_consistency_point()?;
        give_both(send_queue)?;
        send_queue.end_consistency_point();
        Ok(())
    };
    let talk = |joiner: &mut Joiner| {
        let mut files: Vec<(FileId, Vec<u8>)> =
            (0..2).map(|_| joiner.chunk()).map(|(c, p)| (c.file, p)).collect();
        files.sort();
        assert_eq!(files, [(FIRST, OURS[0].to_vec()), (SECOND, OURS[1].to_vec())]);
        joiner.answer_groups(fingerprint_of(OURS));
        assert_eq!(joiner.asks.recv().unwrap(), Message::SplitGroup { first: FIRST });
        joiner.end();
    };
    run(source, talk).unwrap();
}

/// One member of a group vanished in the first pass, so the others still wait for it when two threads read them again.
#[test]
fn what_was_read_last_arrives_last_when_two_threads_read_a_group_again() {
    const VANISHED: FileId = FileId(5);
    let (apart_is_asked, second_may_begin) = mpsc::channel();
    let (second_is_over, over) = mpsc::channel();
    let mut expected = entries();
    expected.push(FileEntry { id: VANISHED, path: "d/c.frm".to_owned(), ..expected[0].clone() });
    let all = expected.clone();
    let source = move |send_queue: &SendQueue<'_>| {
        send_queue.expect(&mut expected.iter());
        for (entry, bytes) in expected.iter().zip(OURS) {
            send_queue.announce(entry)?;
            send_queue.write(entry.id, 0, bytes)?;
        }
        std::thread::scope(|scope| {
            let first = scope.spawn(|| send_queue.write(FIRST, 0, b"newer, of the first"));
            second_may_begin.recv().unwrap();
            send_queue.write(SECOND, 0, b"newer, of the second")?;
            // Nobody listens any more where it had to wait.
            let _ = second_is_over.send(());
            first.join().unwrap()
        })
    };
    let talk = move |joiner: &mut Joiner| {
        assert_eq!(joiner.asks.recv().unwrap(), Message::Asks);
        assert_eq!(joiner.answers.recv().unwrap(), Message::Answers);
        assert_eq!(joiner.asks.recv().unwrap(), Message::CompareGroups(all));
        assert_eq!(joiner.asks.recv().unwrap(), Message::SplitGroup { first: FIRST });
        apart_is_asked.send(()).unwrap();
        // The first thread waits for what is known of the first file; about the second one all is said.
        joiner.answers.send(&Message::JoinersFile { file: SECOND, size: None }).unwrap();
        let _ = over.recv_timeout(Duration::from_millis(500));
        joiner.answers.send(&Message::JoinersFile { file: FIRST, size: None }).unwrap();
        let came: Vec<(FileId, Vec<u8>)> = (0..4).map(|_| joiner.chunk()).map(|(c, p)| (c.file, p)).collect();
        let of =
            |file| came.iter().filter(|(id, _)| *id == file).map(|(_, bytes)| &bytes[..]).collect::<Vec<_>>();
        assert_eq!(of(FIRST), [OURS[0], b"newer, of the first"]);
        assert_eq!(of(SECOND), [OURS[1], b"newer, of the second"]);
        joiner.end();
    };
    run(source, talk).unwrap();
}

/// Announces both by what is remembered of them. Returns whether each was handed over without its bytes.
fn give_unread(send_queue: &SendQueue<'_>) -> anyhow::Result<Vec<bool>> {
    let entries = entries();
    entries.iter().zip(OURS).for_each(|(entry, bytes)| send_queue.remember(entry.id, &range(bytes)));
    send_queue.expect(&mut entries.iter());
    let put = |(entry, bytes): (&FileEntry, &[u8])| {
        send_queue.announce(entry)?;
        send_queue.put_remembered(entry.id, 0, bytes.len() as u32, &range(bytes))
    };
    entries.iter().zip(OURS).map(put).collect()
}

#[test]
fn remembered_files_are_named_without_their_bytes() {
    let source = |send_queue: &SendQueue<'_>| {
        assert_eq!(give_unread(send_queue)?, [true, true]);
        // It was changed since; nobody waits for an answer about it.
        send_queue.write(SECOND, 0, b"newer")?;
        let (compare, all) = (send_queue.compare().unwrap(), (OURS[0].len() + OURS[1].len()) as u64);
        assert_eq!((compare.unread_bytes(), compare.same_bytes()), (all, all));
        assert_eq!(listed(send_queue, &entries()), [Message::FilesKnown { first: FIRST, count: 2 }]);
        Ok(())
    };
    let talk = |joiner: &mut Joiner| {
        joiner.answer_groups(fingerprint_of(OURS));
        for (file, bytes) in [FIRST, SECOND].into_iter().zip(OURS) {
            let len = bytes.len() as u32;
            assert_eq!(joiner.data.recv().unwrap(), Message::BeginKnown { file });
            assert_eq!(joiner.data.recv().unwrap(), Message::Same { file, offset: 0, len });
        }
        let (chunk, payload) = joiner.chunk();
        assert_eq!((chunk.file, chunk.offset, payload), (SECOND, 0, b"newer".to_vec()));
        joiner.end();
    };
    run(source, talk).unwrap();
}

#[test]
fn where_one_differs_remembered_files_must_be_read() {
    let theirs = [OURS[0], b"what was in the second"];
    let source = |send_queue: &SendQueue<'_>| {
        assert_eq!(give_unread(send_queue)?, [false, false]);
        for (entry, bytes) in entries().iter().zip(OURS) {
            send_queue.write(entry.id, 0, bytes)?;
        }
        assert_eq!(send_queue.compare().unwrap().unread_bytes(), 0);
        Ok(())
    };
    let talk = |joiner: &mut Joiner| {
        joiner.describes_each(theirs);
        assert!(matches!(joiner.data.recv().unwrap(), Message::Same { file: FIRST, .. }));
        joiner.describes_blocks_of_second(theirs[1]);
        assert_eq!(joiner.chunk().1, OURS[1]);
        joiner.end();
    };
    run(source, talk).unwrap();
}

/// Its answers may be wrong, all of them: nothing more is handed over in this attempt.
#[test]
fn a_joiner_that_remembered_something_wrong_voids_the_attempt() {
    let what = "a remembered fingerprint is wrong: d/a.frm";
    let source = |send_queue: &SendQueue<'_>| {
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while send_queue.compare().unwrap().refuse_wrong_answers().is_ok() {
            assert!(std::time::Instant::now() < end, "the joiner's word does not arrive");
            std::thread::sleep(Duration::from_millis(5));
        }
        send_queue.expect(&mut entries().iter());
        for error in [
            send_queue.put_remembered(FIRST, 0, 5, &range(OURS[0])).unwrap_err(),
            send_queue.write(FIRST, 0, OURS[0]).unwrap_err(),
        ] {
            let declined = error.downcast_ref::<Declined>();
            assert_eq!(declined, Some(&Declined::WrongFingerprints(what.to_owned())), "{error:#}");
        }
        Ok(())
    };
    let talk = |joiner: &mut Joiner| {
        assert_eq!(joiner.asks.recv().unwrap(), Message::Asks);
        assert_eq!(joiner.answers.recv().unwrap(), Message::Answers);
        joiner.answers.send(&Message::WrongFingerprints { what: what.to_owned() }).unwrap();
        assert!(matches!(joiner.asks.recv().unwrap(), Message::CompareGroups(_)));
        assert!(matches!(joiner.asks.recv().unwrap(), Message::SplitGroup { .. }));
        joiner.end();
    };
    run(source, talk).unwrap();
}
