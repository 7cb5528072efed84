//! The pages that the redo since the copy's checkpoint changes, in bounded memory: see [`super::rounds`].
//!
//! One bit per page (8 MB for 1 TB of 16k pages), see `page_set`. Pages are kept apart by age: a *generation* holds what one stretch of the log changed, so that most of what lies below a newer
//! checkpoint can be dropped at once. A page may be in several generations, and merging makes a generation look older
//! than it is: more is read again then, never less. Above a memory limit a tablespace counts as changed whole, and
//! above a second one everything does.
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use formats::innodb::redo::{BadRecord, FileEvent, Record};
use formats::innodb::redo_header::Checkpoint;
use formats::innodb::redo_mtr::Mtr;
use formats::{Lsn, PageNo, SpaceId};

use super::page_set::PageSet;

/// Bytes for all generations together; half as much again is for tablespaces that count as whole.
const MEMORY: usize = 16 << 20;
/// Bytes per tablespace, besides its pieces.
const SPACE_BYTES: usize = 96;
/// A generation covers the log's capacity divided by this, so that the server's newest checkpoint lies in one of the
/// last.
const PARTS: u64 = 8;
/// Number of generations; when there are more, the two oldest are merged.
const GENERATIONS_MAX: usize = 12;
/// Number of FILE_CHECKPOINT records that are remembered.
const CHECKPOINTS_MAX: usize = 256;

/// Pages of one tablespace.
#[derive(Debug)]
enum Pages {
    /// All of them.
    Whole,
    Some(PageSet),
}

#[derive(Debug, Default)]
struct Generation {
    start: Lsn,
    spaces: HashMap<SpaceId, Pages>,
    /// There are too many tablespaces to track: everything counts as changed.
    everything: bool,
}

#[derive(Debug)]
struct State {
    /// Oldest first; never empty.
    generations: VecDeque<Generation>,
    memory: usize,
    memory_max: usize,
    noted: Lsn,
    step: u64,
    checkpoints: VecDeque<(Lsn, Option<Lsn>)>,
    blind: bool,
}

/// The changed pages; filled by the tail, read by the rounds.
#[derive(Debug)]
pub struct Dirty(Mutex<State>);

/// How much the redo touches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Pages, as far as they are known.
    pub pages: u64,
    /// Tablespaces.
    pub spaces: u64,
}

/// What must be read again of a tablespace, from some page on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Again {
    /// Everything.
    Whole,
    /// These pages, and perhaps later ones.
    Run(Range<u32>),
    /// Nothing more.
    Nothing,
}

impl Dirty {
    /// Starts at the copy's checkpoint `from`; `capacity`: of the log, in bytes.
    pub fn new(from: Lsn, capacity: u64) -> Dirty {
        Dirty::within(from, capacity, MEMORY)
    }

    fn within(from: Lsn, capacity: u64, memory_max: usize) -> Dirty {
        Dirty(Mutex::new(State {
            generations: VecDeque::from([Generation { start: from, ..Generation::default() }]),
            memory: 0,
            memory_max,
            noted: from,
            step: (capacity / PARTS).max(1),
            checkpoints: VecDeque::new(),
            blind: false,
        }))
    }

    /// Records a mini-transaction. They must come in the order of the log.
    pub fn note(&self, mtr: &Mtr<'_>) {
        self.note_records(mtr.start, mtr.end, mtr.records());
    }

    /// As [`Dirty::note`], for one that ends at `end`.
    pub(super) fn note_records<'r>(
        &self,
        start: Lsn,
        end: Lsn,
        records: impl Iterator<Item = Result<Record<'r>, BadRecord>>,
    ) {
        let mut state = self.lock();
        if start.0.saturating_sub(state.newest().start.0) >= state.step {
            state.cut();
        }
        for record in records {
            match record {
                Ok(
                    Record::Page { space, page }
                    | Record::InitPage { space, page }
                    | Record::FreePage { space, page },
                ) => state.set(space, page),
                // If the file grows again, the pages behind the cut are other pages.
                Ok(Record::TrimPages { space, .. }) => state.whole(space),
                Ok(Record::File(FileEvent::Checkpoint { lsn })) => {
                    state.checkpoints.push_back((start, lsn));
                    if state.checkpoints.len() > CHECKPOINTS_MAX {
                        state.checkpoints.pop_front();
                    }
                }
                Ok(Record::File(_)) => {}
                // The rest of this mini-transaction cannot be parsed, so its pages are not known.
                Err(_) => state.blind = true,
            }
        }
        state.noted = end;
    }

    /// LSN up to which changed pages are known.
    pub fn noted(&self) -> Lsn {
        self.lock().noted
    }

    /// True if a record was not understood, so that a changed page may be missing. There are no rounds then.
    pub fn is_blind(&self) -> bool {
        self.lock().blind
    }

    /// True once the tail has read the record of this checkpoint, which recovery looks for first. It stands at
    /// `end_lsn`, or later if very many file names precede it.
    pub fn passed(&self, checkpoint: &Checkpoint) -> bool {
        self.lock().checkpoints.iter().any(|(at, lsn)| match lsn {
            Some(lsn) => *at >= checkpoint.end_lsn && *lsn == checkpoint.lsn,
            None => *at == checkpoint.end_lsn,
        })
    }

    /// Begins a new generation.
    pub fn cut(&self) {
        self.lock().cut();
    }

    /// The first run of pages of `space`, from page `from` on, that redo below `below` may change; at most `longest`
    /// pages.
    pub fn again(&self, space: SpaceId, below: Lsn, from: u32, longest: u32) -> Again {
        let state = self.lock();
        let mut all = Vec::new();
        for generation in state.generations.iter().filter(|g| g.start < below) {
            match generation.spaces.get(&space) {
                _ if generation.everything => return Again::Whole,
                Some(Pages::Whole) => return Again::Whole,
                Some(Pages::Some(pages)) => all.push(pages),
                None => {}
            }
        }
        let first = all.iter().filter_map(|pages| pages.first(from)).min();
        let Some(first) = first else { return Again::Nothing };
        let longest = first.saturating_add(longest.max(1));
        let mut end = first.saturating_add(1);
        while end < longest && all.iter().any(|pages| pages.contains(end)) {
            end += 1;
        }
        Again::Run(first..end)
    }

    /// How many of the pages of `space` in `pages` redo below `below` may change; `None` if it may be any of them.
    pub fn count(&self, space: SpaceId, below: Lsn, pages: &Range<u32>) -> Option<u64> {
        let state = self.lock();
        let generations = state.generations.iter().filter(|g| g.start < below);
        let mut all = Vec::new();
        for generation in generations {
            match generation.spaces.get(&space) {
                _ if generation.everything => return None,
                Some(Pages::Whole) => return None,
                Some(Pages::Some(pages)) => all.push(pages),
                None => {}
            }
        }
        Some(PageSet::distinct(&all, pages))
    }

    /// An estimate of what redo from `from` on touches: a generation that began before `from` counts in full.
    pub fn touched(&self, from: Lsn) -> Touched {
        let state = self.lock();
        let ends = state.generations.iter().skip(1).map(|next| next.start).chain([Lsn(u64::MAX)]);
        let counted: Vec<_> = state.generations.iter().zip(ends).filter(|(_, end)| *end > from).collect();
        let (mut touched, mut all) = (Touched::default(), Vec::new());
        for (at, (generation, _)) in counted.iter().enumerate() {
            let earlier = |space| counted[..at].iter().any(|(earlier, _)| earlier.spaces.contains_key(space));
            for space in generation.spaces.keys().filter(|space| !earlier(space)) {
                let pages = counted[at..].iter().filter_map(|(later, _)| later.spaces.get(space));
                all.extend(
                    pages.filter_map(|pages| if let Pages::Some(some) = pages { Some(some) } else { None }),
                );
                touched.spaces += 1;
                touched.pages += PageSet::distinct(&all, &(0..u32::MAX)).max(1);
                all.clear();
            }
        }
        touched
    }

    /// True if redo below `below` may change anything in `space`.
    pub fn touches(&self, space: SpaceId, below: Lsn) -> bool {
        self.again(space, below, 0, 1) != Again::Nothing
    }

    /// True if the remembered redo may change this page.
    pub fn has_page(&self, space: SpaceId, page: u32) -> bool {
        match self.again(space, Lsn(u64::MAX), page, 1) {
            Again::Whole => true,
            Again::Run(run) => run.start == page,
            Again::Nothing => false,
        }
    }

    /// Those of the first `pages` pages of a tablespace that no remembered redo changes. Empty if that is not known.
    pub fn untouched(&self, space: SpaceId, pages: u32) -> Vec<u32> {
        if self.is_blind() {
            return Vec::new();
        }
        (0..pages).filter(|page| !self.has_page(space, *page)).collect()
    }

    /// LSN from which on all changes are remembered.
    pub fn since(&self) -> Lsn {
        self.lock().generations.front().map_or(Lsn(u64::MAX), |oldest| oldest.start)
    }

    /// Drops the generations whose redo lies entirely below `lsn`.
    pub fn forget(&self, lsn: Lsn) {
        let mut state = self.lock();
        while state.generations.get(1).is_some_and(|next| next.start <= lsn) {
            state.generations.pop_front();
        }
        state.memory = state.generations.iter().map(Generation::memory).sum();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn newest(&mut self) -> &mut Generation {
        if self.generations.is_empty() {
            self.generations.push_back(Generation::default());
        }
        let last = self.generations.len() - 1;
        &mut self.generations[last]
    }

    fn cut(&mut self) {
        let noted = self.noted;
        if self.newest().start == noted {
            return;
        }
        if self.generations.len() >= GENERATIONS_MAX
            && let (Some(oldest), Some(next)) = (self.generations.pop_front(), self.generations.front_mut())
        {
            next.absorb(oldest);
            self.memory = self.generations.iter().map(Generation::memory).sum();
        }
        self.generations.push_back(Generation { start: noted, ..Generation::default() });
    }

    fn set(&mut self, space: SpaceId, page: PageNo) {
        let (memory, memory_max) = (self.memory, self.memory_max);
        let newest = self.newest();
        if newest.everything {
            return;
        }
        let more = match newest.spaces.get(&space) {
            Some(Pages::Whole) => return,
            Some(Pages::Some(pages)) => pages.memory_for(page.0),
            None => SPACE_BYTES + PageSet::new().memory_for(page.0),
        };
        if more > 0 && memory + more > memory_max {
            return self.whole(space);
        }
        if let Pages::Some(pages) = newest.spaces.entry(space).or_insert(Pages::Some(PageSet::new())) {
            pages.insert(page.0);
        }
        self.memory += more;
    }

    fn whole(&mut self, space: SpaceId) {
        let full = self.memory + SPACE_BYTES > self.memory_max + self.memory_max / 2;
        let newest = self.newest();
        let before = newest.memory_of(space);
        if newest.everything || (before == 0 && full) {
            let was = newest.memory();
            newest.everything = true;
            newest.spaces = HashMap::new();
            self.memory -= was;
            return;
        }
        newest.spaces.insert(space, Pages::Whole);
        self.memory = self.memory + SPACE_BYTES - before;
    }
}

impl Generation {
    fn memory(&self) -> usize {
        self.spaces.keys().map(|space| self.memory_of(*space)).sum()
    }

    fn memory_of(&self, space: SpaceId) -> usize {
        match self.spaces.get(&space) {
            None => 0,
            Some(Pages::Whole) => SPACE_BYTES,
            Some(Pages::Some(pages)) => SPACE_BYTES + pages.memory(),
        }
    }

    /// Merges an older generation into this one, which takes over its age.
    fn absorb(&mut self, older: Generation) {
        self.start = older.start;
        self.everything |= older.everything;
        if self.everything {
            self.spaces = HashMap::new();
            return;
        }
        for (space, pages) in older.spaces {
            match (self.spaces.get_mut(&space), pages) {
                (Some(Pages::Whole), _) => {}
                (Some(Pages::Some(mine)), Pages::Some(theirs)) => mine.absorb(&theirs),
                (_, pages) => {
                    self.spaces.insert(space, pages);
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "dirty_tests.rs"]
mod tests;
