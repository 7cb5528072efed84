//! Small files with one mark: nothing of them travels when the joiner has them all, and each by itself otherwise.
use node::source::outbox::Outbox;
use node::source::sink::SnapshotSink;
use protocol::inventory::{FileEntry, FileId, FileRole, Place};
use protocol::marks::{Mark, Together, block_marks, range_mark};
use protocol::message::Message;

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

fn range(bytes: &[u8]) -> Mark {
    range_mark(&KEY, &block_marks(&KEY, bytes))
}

/// Of what the joiner has of both.
fn mark_of(files: [&[u8]; 2]) -> Mark {
    let mut together = Together::new(&KEY);
    files.iter().for_each(|bytes| together.add(Some(bytes.len() as u64), &[range(bytes)]));
    together.mark()
}

fn give_both(outbox: &Outbox<'_>) -> anyhow::Result<()> {
    let entries = entries();
    outbox.expect(&mut entries.iter());
    for (entry, bytes) in entries.iter().zip(OURS) {
        outbox.announce(entry)?;
        outbox.write(entry.id, 0, bytes)?;
    }
    Ok(())
}

impl Joiner {
    /// Hears what is asked, and answers with a mark.
    fn answer_together(&mut self, mark: Mark) {
        assert_eq!(self.asks.recv().unwrap(), Message::Asks);
        assert_eq!(self.answers.recv().unwrap(), Message::Answers);
        assert_eq!(self.asks.recv().unwrap(), Message::LookTogether(entries()));
        self.answers.send(&Message::Together { first: FIRST, mark }).unwrap();
    }

    /// Answers for one file as it is here.
    fn answer_one(&mut self, file: FileId, bytes: &[u8]) {
        self.answers.send(&Message::Base { file, size: Some(bytes.len() as u64) }).unwrap();
        self.answers.send(&Message::Marks { file, first: 0, marks: vec![range(bytes)] }).unwrap();
    }
}

#[test]
fn what_is_all_there_is_one_message_and_what_is_read_later_follows_it() {
    let source = |outbox: &Outbox<'_>| {
        give_both(outbox)?;
        // It was written to since; nobody waits for an answer about it.
        outbox.write(SECOND, 0, b"newer")?;
        assert_eq!(outbox.compare().unwrap().same_bytes(), (OURS[0].len() + OURS[1].len()) as u64);
        let mut files = entries();
        assert_eq!(outbox.list(&files), [Message::FilesKnown { first: FIRST, count: 2 }]);
        // Whatever is another one is named whole.
        files[1].path = "d/c.frm".to_owned();
        let list = [Message::FilesKnown { first: FIRST, count: 1 }, Message::Files(vec![files[1].clone()])];
        assert_eq!(outbox.list(&files), list);
        Ok(())
    };
    let talk = |joiner: &mut Joiner| {
        joiner.answer_together(mark_of(OURS));
        assert_eq!(joiner.lane.recv().unwrap(), Message::SameTogether { first: FIRST });
        assert_eq!(joiner.lane.recv().unwrap(), Message::BeginKnown { file: SECOND });
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
        joiner.answer_together(mark_of(theirs));
        assert_eq!(joiner.asks.recv().unwrap(), Message::LookApart { first: FIRST });
        joiner.answer_one(FIRST, theirs[0]);
        joiner.answer_one(SECOND, theirs[1]);
        assert_eq!(joiner.lane.recv().unwrap(), Message::BeginKnown { file: FIRST });
        let len = OURS[0].len() as u32;
        assert_eq!(joiner.lane.recv().unwrap(), Message::Same { file: FIRST, offset: 0, len });
        assert_eq!(joiner.asks.recv().unwrap(), Message::LookCloser { file: SECOND, range: 0 });
        let marks = block_marks(&KEY, theirs[1]);
        joiner.answers.send(&Message::Blocks { file: SECOND, range: 0, marks }).unwrap();
        let (chunk, payload) = joiner.chunk();
        assert_eq!((chunk.file, payload), (SECOND, OURS[1].to_vec()));
        joiner.end();
    };
    run(give_both, talk).unwrap();
}

#[test]
fn one_that_never_comes_does_not_hold_the_others_back() {
    let source = |outbox: &Outbox<'_>| {
        let entries = entries();
        outbox.expect(&mut entries.iter());
        outbox.announce(&entries[0])?;
        outbox.write(FIRST, 0, OURS[0])?;
        outbox.begin_moment()?;
        outbox.end_moment();
        Ok(())
    };
    let talk = |joiner: &mut Joiner| {
        joiner.answer_together(mark_of(OURS));
        assert_eq!(joiner.asks.recv().unwrap(), Message::LookApart { first: FIRST });
        joiner.answer_one(FIRST, OURS[0]);
        joiner.answer_one(SECOND, OURS[1]);
        assert_eq!(joiner.lane.recv().unwrap(), Message::BeginKnown { file: FIRST });
        assert!(matches!(joiner.lane.recv().unwrap(), Message::Same { file: FIRST, .. }));
        joiner.end();
    };
    run(source, talk).unwrap();
}

/// Under locks nobody waits for an answer.
#[test]
fn in_a_settled_moment_all_of_it_is_sent() {
    let source = |outbox: &Outbox<'_>| {
        outbox.begin_moment()?;
        give_both(outbox)?;
        outbox.end_moment();
        Ok(())
    };
    let talk = |joiner: &mut Joiner| {
        let mut files: Vec<(FileId, Vec<u8>)> =
            (0..2).map(|_| joiner.chunk()).map(|(c, p)| (c.file, p)).collect();
        files.sort();
        assert_eq!(files, [(FIRST, OURS[0].to_vec()), (SECOND, OURS[1].to_vec())]);
        joiner.answer_together(mark_of(OURS));
        assert_eq!(joiner.asks.recv().unwrap(), Message::LookApart { first: FIRST });
        joiner.end();
    };
    run(source, talk).unwrap();
}
