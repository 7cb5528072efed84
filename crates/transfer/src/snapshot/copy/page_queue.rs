//! Which piece of which file a thread reads next.
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use protocol::inventory::FileId;

use super::opened::{Open, Opened, Outcome, Piece, open, piece};
use super::page_file::Damage;
use super::pages::{Checkpoints, Copied, Copier, Wanted};
use crate::threads::lock;

/// How often held files are checked again.
const HELD_LOOK: Duration = Duration::from_millis(5);
/// How often a thread without work checks whether a file that another thread opens is large enough to share.
const OPENING_LOOK: Duration = Duration::from_millis(1);

/// Data files that several threads copy.
pub(super) struct PageQueue<'w> {
    wanted: std::slice::Iter<'w, Wanted>,
    /// Files that begin with pages that are better read later.
    later: Vec<&'w Wanted>,
    /// Files that are being read, and the offset up to which each was given out.
    current: Vec<(Arc<Open<'w>>, u64)>,
    /// As `current`, for files whose next pages are better read later.
    held: Vec<(Arc<Open<'w>>, u64)>,
    pub done: Vec<Copied>,
    pub opened: Vec<Arc<Outcome>>,
    pub damage: Vec<Damage>,
    /// Files that threads are opening.
    opening: usize,
    /// Nothing more is given out.
    pub over: bool,
}

/// The next piece, preferably of the thread's own file: filesystems let only one thread at a time write to a file, so
/// the joiner is faster with several files. Threads that find no further file help with those that are left. `None`
/// once nothing is left.
pub(super) fn take<'w>(
    copier: Copier<'_>,
    queue: &Mutex<PageQueue<'w>>,
    mine: &mut Option<FileId>,
) -> Result<Option<Piece<'w>>> {
    loop {
        let taken = try_take(copier, &mut lock(queue), mine)?;
        match taken {
            Taken::Piece(piece) => return Ok(Some(piece)),
            Taken::Nothing => return Ok(None),
            Taken::File(wanted) => {
                // Opening reads the first pages, so other threads must not wait for it: most files are hardly longer.
                let opened = open(copier, wanted);
                let mut queue = lock(queue);
                queue.opening -= 1;
                queue.put(wanted, opened?, mine);
            }
            Taken::Opening => copier.cancel.sleep(OPENING_LOOK)?,
            Taken::Later => {
                copier.cancel.sleep(HELD_LOOK)?;
                (copier.pace)()?;
            }
        }
    }
}

impl<'w> PageQueue<'w> {
    pub fn new(wanted: &'w [Wanted]) -> PageQueue<'w> {
        PageQueue {
            wanted: wanted.iter(),
            later: Vec::new(),
            current: Vec::new(),
            held: Vec::new(),
            done: Vec::new(),
            opened: Vec::new(),
            damage: Vec::new(),
            opening: 0,
            over: false,
        }
    }

    fn next_file(&mut self, holding: bool) -> Option<&'w Wanted> {
        let later = if holding { None } else { self.later.pop() };
        later.or_else(|| self.wanted.next())
    }

    fn has_held(&self) -> bool {
        !self.held.is_empty() || !self.later.is_empty()
    }

    /// Takes over a file that was opened, as the thread's own.
    fn put(&mut self, wanted: &'w Wanted, opened: Opened<'w>, mine: &mut Option<FileId>) {
        let id = wanted.entry.id;
        match opened {
            Opened::Open(open) => {
                *mine = Some(id);
                self.opened.push(Arc::clone(&open.outcome));
                self.current.push((open, 0));
            }
            Opened::Unread(copied) => self.done.push(copied),
            Opened::Held => self.later.push(wanted),
            Opened::Gone => self.done.push(Copied::gone(id)),
        }
    }
}

/// The result of taking a piece.
enum Taken<'w> {
    Piece(Piece<'w>),
    /// The thread has to open this file.
    File(&'w Wanted),
    /// Nothing is left but files that other threads are opening.
    Opening,
    /// The rest is held.
    Later,
    Nothing,
}

fn try_take<'w>(
    copier: Copier<'_>,
    queue: &mut PageQueue<'w>,
    mine: &mut Option<FileId>,
) -> Result<Taken<'w>> {
    while !queue.over {
        let holding = copier.checkpoints.is_some_and(Checkpoints::is_holding);
        let own = queue.current.iter().position(|(open, _)| Some(open.outcome.id) == *mine);
        if own.is_none()
            && !holding
            && let Some(held) = queue.held.pop()
        {
            *mine = Some(held.0.outcome.id);
            queue.current.push(held);
            continue;
        }
        if own.is_none()
            && let Some(wanted) = queue.next_file(holding)
        {
            queue.opening += 1;
            return Ok(Taken::File(wanted));
        }
        let at = own.unwrap_or(0);
        let Some((open, given_out)) = queue.current.get_mut(at) else {
            return Ok(match queue.has_held() {
                true => Taken::Later,
                false if queue.opening > 0 => Taken::Opening,
                false => Taken::Nothing,
            });
        };
        if *given_out > 0 && open.is_held(copier, *given_out) {
            let held = queue.current.remove(at);
            queue.held.push(held);
            continue;
        }
        // Its first pages were read when it was opened, so the checkpoint seen before that counts.
        let seen = if *given_out == 0 { open.seen } else { copier.seen() };
        match piece(open, *given_out)? {
            Some(piece) => {
                // What was handed over before the file was opened lies between these parts, and is as old as that.
                if open.unread.is_none() {
                    open.outcome.is_read_after(seen, piece.offset);
                }
                *given_out = piece.offset + piece.len as u64;
                return Ok(Taken::Piece(piece));
            }
            None => drop(queue.current.remove(at)),
        }
    }
    Ok(Taken::Nothing)
}
