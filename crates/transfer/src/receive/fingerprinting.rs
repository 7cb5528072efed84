//! Fingerprints the joiner's files, with several threads, in the order in which the donor asks.
use std::sync::atomic::Ordering;
use std::sync::{PoisonError, mpsc};

use anyhow::{Context, Result};
use protocol::chunk::digest;
use protocol::delta;
use protocol::extents::Extents;
use protocol::fingerprint::{self, Fingerprint, GroupHasher};
use protocol::hello::cut;
use protocol::inventory::FileId;
use protocol::limits::{RANGE_BYTES, TEXT_BYTES_MAX};
use protocol::message::Message;

use crate::cancel::LOOK_EVERY;
use crate::cost::clock::Laps;
use crate::cost::pace::Work;
use crate::disk::identity::look;
use crate::peer::link::Link;
use crate::peer::relay::relay;
use crate::receive::base::Base;
use crate::receive::corruption::Pages;
use crate::receive::origin::{Opened, Origin, Whole};
use crate::receive::questions::Piece;
use crate::remembered::trust::state_of;
use crate::threads::{Thread, lock, scoped};

/// Ranges that one thread fingerprints before it takes another piece: few, so that all threads work on what is needed
/// next.
const PIECE: u32 = 4;

/// What is remembered of a range.
#[derive(Clone, Copy)]
struct Recalled {
    whole: Whole,
    /// It is read anyway.
    checked: bool,
}

impl Base<'_> {
    /// Fingerprints what the donor asks for and sends the answers over `link`, until the donor asks no more.
    pub fn answer(&self, link: &mut Link) -> Result<()> {
        let (say, said) = mpsc::sync_channel(64);
        self.put(|todo| {
            if !todo.closed {
                *lock(&self.say) = Some(say.clone());
            }
        });
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                let say = say.clone();
                scoped(scope, Thread::Fingerprints, move || {
                    self.fingerprint_pieces(&say).inspect_err(|error| self.cancel.cancel_by_worker(error))
                });
            }
            drop(say);
            let sent = relay(link, &said, &Message::AnswersEnd, "comparing files", self.cancel);
            if sent.is_err() {
                // The threads that fingerprint must not wait for a reader that is gone.
                self.put(|todo| todo.closed = true);
            }
            drop(lock(&self.say).take());
            drop(said);
            sent
        })
    }

    pub(super) fn fingerprint_pieces(&self, say: &mpsc::SyncSender<Message>) -> Result<()> {
        let mut buffer = vec![0; RANGE_BYTES as usize];
        while let Some(piece) = self.next()? {
            let answers = match piece {
                Piece::GroupHasher { first } => vec![self.group_fingerprint(first, &mut buffer)?],
                Piece::From { file, range } => self.fingerprint_from(file, range, &mut buffer)?,
                Piece::Blocks { file, range } => vec![self.fingerprint_blocks(file, range, &mut buffer)?],
                Piece::Pieces { file, range, blocks } => {
                    vec![self.fingerprint_inside(file, range, &blocks, &mut buffer)?]
                }
            };
            let wrong = lock(&self.wrong).take();
            let wrong =
                wrong.map(|what| Message::WrongFingerprints { what: cut(&what, TEXT_BYTES_MAX).to_owned() });
            let pace = self.work.due().map(Message::Pace);
            for answer in wrong.into_iter().chain(answers).chain(pace) {
                if say.send(answer).is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn next(&self) -> Result<Option<Piece>> {
        let mut todo = lock(&self.todo);
        loop {
            self.cancel.check()?;
            if let Some(piece) = todo.pieces.pop_front() {
                if let Piece::From { file, range } = piece
                    && range + PIECE < self.ranges_asked(file)
                {
                    // The rest is queued behind other files, because the donor reads several at once.
                    let turn = usize::from(self.threads.saturating_sub(1)).min(todo.pieces.len());
                    todo.pieces.insert(turn, Piece::From { file, range: range + PIECE });
                }
                return Ok(Some(piece));
            }
            if todo.closed {
                return Ok(None);
            }
            todo = self.changed.wait_timeout(todo, LOOK_EVERY).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn fingerprint_from(&self, file: FileId, first: u32, buffer: &mut [u8]) -> Result<Vec<Message>> {
        let mut answers = Vec::new();
        let known = self.origin(file);
        if first == 0 {
            answers.push(Message::JoinersFile { file, size: known.size() });
        }
        let end = self.ranges_asked(file).min(first.saturating_add(PIECE));
        let mut fingerprint = |range| self.fingerprint_range(file, &known, range, buffer);
        let fingerprints = (first..end).map(&mut fingerprint).collect::<Result<Vec<Fingerprint>>>()?;
        if !fingerprints.is_empty() {
            answers.push(Message::RangeFingerprints { file, first, fingerprints });
        }
        Ok(answers)
    }

    fn group_fingerprint(&self, first: FileId, buffer: &mut [u8]) -> Result<Message> {
        let mut together = GroupHasher::new(&self.key);
        for file in self.together(first)?.iter() {
            let known = self.origin(*file);
            let mut fingerprint = |range| self.fingerprint_range(*file, &known, range, buffer);
            // Files of different lengths differ, so nothing needs to be read.
            let is_as_long = known.size() == Some(self.entry(*file)?.size);
            let ranges = 0..if is_as_long { self.ranges_asked(*file) } else { 0 };
            let fingerprints = ranges.map(&mut fingerprint).collect::<Result<Vec<Fingerprint>>>()?;
            together.add(known.size(), &fingerprints);
        }
        Ok(Message::GroupFingerprint { first, fingerprint: together.fingerprint() })
    }

    fn fingerprint_range(
        &self,
        file: FileId,
        known: &Origin,
        range: u32,
        buffer: &mut [u8],
    ) -> Result<Fingerprint> {
        let recalled = self.recall(known, range);
        if let Some(Recalled { whole, checked: false }) = recalled {
            lock(&self.wholes).insert((file, range), whole);
            self.counts.remembered.fetch_add(u64::from(whole.len), Ordering::Relaxed);
            return Ok(whole.fingerprint);
        }
        let mut laps = Laps::begin();
        let bytes = self.read(file, known, range, buffer)?;
        if let (None, Some(old)) = (&known.received, &known.old) {
            let pages = known.pages.get_or_init(|| Pages::of(&self.entry(file).ok()?, &old.path));
            pages.iter().for_each(|pages| self.corruption().look(pages, file, &old.path, range, bytes));
        }
        let blocks = fingerprint::block_fingerprints(&self.key, bytes);
        let fingerprint = fingerprint::range_fingerprint(&self.key, &blocks);
        let whole = Whole { len: bytes.len() as u32, digest: digest(bytes), fingerprint };
        self.work.add(Work::Fingerprint, bytes.len() as u64, laps.lap());
        lock(&self.wholes).insert((file, range), whole);
        if let Some(recalled) = recalled {
            self.check(known, range, &recalled.whole, &whole);
        }
        lock(&self.recent).add((file, range), blocks);
        Ok(fingerprint)
    }

    /// What is remembered of a range of an old file. Nothing is of what an earlier transfer had received.
    fn recall(&self, known: &Origin, range: u32) -> Option<Recalled> {
        let (None, Some(old)) = (&known.received, &known.old) else { return None };
        let memory = self.memory.as_ref()?;
        let at = memory.find(&old.look)?;
        let record = memory.record(at)?;
        let ((fingerprint, digest), len) = (record.range(range)?, record.len_of(range));
        Some(Recalled { whole: Whole { len, digest, fingerprint }, checked: memory.is_checked(at, range) })
    }

    /// A range that is remembered was read: the two must be equal, unless the file was changed meanwhile.
    fn check(&self, known: &Origin, range: u32, remembered: &Whole, read: &Whole) {
        let (Some(memory), Some(old)) = (&self.memory, &known.old) else { return };
        // A range that could not be read is empty, and as wrong as one with other bytes: all of it could be read once.
        if remembered == read {
            return;
        }
        let now = look(&old.path).ok().flatten();
        if now.is_some_and(|now| state_of(&now) == state_of(&old.look)) {
            let what = memory.is_wrong_about(&old.path, u64::from(range) * u64::from(RANGE_BYTES));
            lock(&self.wrong).get_or_insert(what);
        }
    }

    fn fingerprint_blocks(&self, file: FileId, range: u32, buffer: &mut [u8]) -> Result<Message> {
        if let Some(fingerprints) = lock(&self.recent).take((file, range)) {
            return Ok(Message::BlockFingerprints { file, range, fingerprints });
        }
        let bytes = self.read(file, &self.origin(file), range, buffer)?;
        Ok(Message::BlockFingerprints {
            file,
            range,
            fingerprints: fingerprint::block_fingerprints(&self.key, bytes),
        })
    }

    fn fingerprint_inside(
        &self,
        file: FileId,
        range: u32,
        blocks: &[u8],
        buffer: &mut [u8],
    ) -> Result<Message> {
        let mut laps = Laps::begin();
        let bytes = self.read(file, &self.origin(file), range, buffer)?;
        let block = |number: u8| bytes.chunks(fingerprint::BLOCK_BYTES as usize).nth(usize::from(number));
        let fingerprints =
            |number: &u8| block(*number).map(|block| delta::piece_fingerprints(&self.key, block));
        let fingerprints = blocks.iter().map(|number| fingerprints(number).unwrap_or_default()).collect();
        self.work.add(Work::Pieces, blocks.len() as u64 * u64::from(fingerprint::BLOCK_BYTES), laps.lap());
        Ok(Message::PieceFingerprints { file, range, fingerprints })
    }

    /// Reads a range of the joiner's file. A range that cannot be read is empty: its fingerprint matches no other, so
    /// the donor sends it.
    fn read<'b>(&self, file: FileId, origin: &Origin, range: u32, buffer: &'b mut [u8]) -> Result<&'b [u8]> {
        let at = u64::from(range) * u64::from(RANGE_BYTES);
        let len = origin.size().unwrap_or(0).saturating_sub(at).min(u64::from(RANGE_BYTES)) as usize;
        let bytes = buffer.get_mut(..len).context("a range longer than its buffer")?;
        let received = |opened: &Opened| {
            let find = || opened.received_in(at..at + len as u64);
            lock(&self.received).entry((file, range)).or_insert_with(find).clone()
        };
        self.counts.read.fetch_add(len as u64, Ordering::Relaxed);
        let read = origin.open().and_then(|opened| match origin.received {
            Some(_) => opened.read(at, bytes, &received(&opened)),
            None => opened.read(at, bytes, &Extents::default()),
        });
        if let Err(error) = read {
            let path = origin.old.as_ref().map(|old| old.path.display().to_string()).unwrap_or_default();
            tracing::warn!("{path} cannot be read at {at} ({error}): the donor sends it");
            return Ok(&[]);
        }
        Ok(bytes)
    }
}
