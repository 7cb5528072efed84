//! Marks of what the joiner has, made by several threads in the order in which the donor asks.
use std::collections::{HashMap, VecDeque};
use std::sync::{PoisonError, mpsc};

use anyhow::{Context, Result};
use protocol::chunk::digest;
use protocol::delta;
use protocol::extents::Extents;
use protocol::inventory::FileId;
use protocol::limits::RANGE_BYTES;
use protocol::marks::{self, Mark, Together};
use protocol::message::Message;

use super::base::Base;
use super::origin::{Opened, Origin};
use super::rot::Pages;
use crate::cancel::LOOK_EVERY;
use crate::peer::link::Link;
use crate::peer::relay::relay;
use crate::threads::lock;

/// Ranges that one thread marks before it takes another piece: few enough for all threads to work on what comes next.
const PIECE: u32 = 4;

/// Ranges whose block marks are kept: 4 MiB of them. Those that are forgotten are made again.
const RECENT_MAX: usize = 4096;

/// Marks of blocks, of a few thousand ranges.
#[derive(Default)]
pub(super) struct Recent {
    marks: HashMap<(FileId, u32), Vec<Mark>>,
    order: VecDeque<(FileId, u32)>,
}

impl Recent {
    fn add(&mut self, range: (FileId, u32), marks: Vec<Mark>) {
        if self.order.len() >= RECENT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.marks.remove(&oldest);
        }
        self.order.push_back(range);
        self.marks.insert(range, marks);
    }

    fn take(&mut self, range: (FileId, u32)) -> Option<Vec<Mark>> {
        self.marks.remove(&range)
    }
}

/// What the donor wants to hear.
#[derive(Default)]
pub(super) struct Todo {
    pub pieces: VecDeque<Piece>,
    /// It asks no more.
    pub closed: bool,
}

/// A part of it.
pub(super) enum Piece {
    /// Files that were asked for together.
    Together { first: FileId },
    /// A file from a range on, to its end.
    From { file: FileId, range: u32 },
    /// The blocks of one range.
    Blocks { file: FileId, range: u32 },
    /// The pieces of some blocks of one range.
    Pieces { file: FileId, range: u32, blocks: Vec<u8> },
}

impl Base<'_> {
    /// The connection on which the donor hears.
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
                scope.spawn(move || {
                    if let Err(error) = self.mark_pieces(&say) {
                        self.cancel.cancel_by_worker(&error);
                    }
                });
            }
            drop(say);
            let sent = relay(link, &said, &Message::AnswersEnd, "comparing files", self.cancel);
            if sent.is_err() {
                // Whoever marks must not wait for a reader that is gone.
                self.put(|todo| todo.closed = true);
            }
            drop(lock(&self.say).take());
            drop(said);
            sent
        })
    }

    pub(super) fn mark_pieces(&self, say: &mpsc::SyncSender<Message>) -> Result<()> {
        let mut buffer = vec![0; RANGE_BYTES as usize];
        while let Some(piece) = self.next()? {
            let answers = match piece {
                Piece::Together { first } => vec![self.mark_together(first, &mut buffer)?],
                Piece::From { file, range } => self.mark_from(file, range, &mut buffer)?,
                Piece::Blocks { file, range } => vec![self.mark_blocks(file, range, &mut buffer)?],
                Piece::Pieces { file, range, blocks } => {
                    vec![self.mark_inside(file, range, &blocks, &mut buffer)?]
                }
            };
            for answer in answers {
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
                    && range + PIECE < marks::ranges(self.origin(file).size().unwrap_or(0))
                {
                    // The rest waits its turn: the donor reads several files at once.
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

    fn mark_from(&self, file: FileId, first: u32, buffer: &mut [u8]) -> Result<Vec<Message>> {
        let mut answers = Vec::new();
        let known = self.origin(file);
        if first == 0 {
            answers.push(Message::Base { file, size: known.size() });
        }
        let end = marks::ranges(known.size().unwrap_or(0)).min(first.saturating_add(PIECE));
        let mut mark = |range| self.mark_range(file, &known, range, buffer);
        let marks = (first..end).map(&mut mark).collect::<Result<Vec<Mark>>>()?;
        if !marks.is_empty() {
            answers.push(Message::Marks { file, first, marks });
        }
        Ok(answers)
    }

    fn mark_together(&self, first: FileId, buffer: &mut [u8]) -> Result<Message> {
        let mut together = Together::new(&self.key);
        for file in self.together(first)?.iter() {
            let known = self.origin(*file);
            let mut mark = |range| self.mark_range(*file, &known, range, buffer);
            let ranges = 0..marks::ranges(known.size().unwrap_or(0));
            let marks = ranges.map(&mut mark).collect::<Result<Vec<Mark>>>()?;
            together.add(known.size(), &marks);
        }
        Ok(Message::Together { first, mark: together.mark() })
    }

    fn mark_range(&self, file: FileId, known: &Origin, range: u32, buffer: &mut [u8]) -> Result<Mark> {
        let bytes = self.read(file, known, range, buffer)?;
        if let (None, Some(old)) = (&known.received, &known.old) {
            let pages = known.pages.get_or_init(|| Pages::of(&self.entry(file).ok()?, &old.path));
            pages.iter().for_each(|pages| self.rot().look(pages, file, &old.path, range, bytes));
        }
        lock(&self.wholes).insert((file, range), (bytes.len() as u32, digest(bytes)));
        let blocks = marks::block_marks(&self.key, bytes);
        let mark = marks::range_mark(&self.key, &blocks);
        lock(&self.recent).add((file, range), blocks);
        Ok(mark)
    }

    fn mark_blocks(&self, file: FileId, range: u32, buffer: &mut [u8]) -> Result<Message> {
        if let Some(marks) = lock(&self.recent).take((file, range)) {
            return Ok(Message::Blocks { file, range, marks });
        }
        let bytes = self.read(file, &self.origin(file), range, buffer)?;
        Ok(Message::Blocks { file, range, marks: marks::block_marks(&self.key, bytes) })
    }

    fn mark_inside(&self, file: FileId, range: u32, blocks: &[u8], buffer: &mut [u8]) -> Result<Message> {
        let bytes = self.read(file, &self.origin(file), range, buffer)?;
        let block = |number: u8| bytes.chunks(marks::BLOCK_BYTES as usize).nth(usize::from(number));
        let marks = |number: &u8| block(*number).map(|block| delta::piece_marks(&self.key, block));
        let marks = blocks.iter().map(|number| marks(number).unwrap_or_default()).collect();
        Ok(Message::Pieces { file, range, marks })
    }

    /// A range of what is here; what cannot be read is marked as nothing that anybody has, and comes from the donor.
    fn read<'b>(&self, file: FileId, origin: &Origin, range: u32, buffer: &'b mut [u8]) -> Result<&'b [u8]> {
        let at = u64::from(range) * u64::from(RANGE_BYTES);
        let len = origin.size().unwrap_or(0).saturating_sub(at).min(u64::from(RANGE_BYTES)) as usize;
        let bytes = buffer.get_mut(..len).context("a range longer than its buffer")?;
        let received = |opened: &Opened| {
            let find = || opened.received_in(at..at + len as u64);
            lock(&self.received).entry((file, range)).or_insert_with(find).clone()
        };
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
