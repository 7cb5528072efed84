//! A set of pages of one tablespace. There can be very many small tablespaces, and few very large ones.
use std::collections::BTreeMap;
use std::ops::Range;

/// Pages per word.
const WORD_PAGES: u32 = u64::BITS;
/// Words per piece.
const PIECE_WORDS: u32 = 64;
/// Pages per piece.
pub(super) const PIECE_PAGES: u32 = PIECE_WORDS * WORD_PAGES;
/// Bytes per piece, including its place in the tree.
pub(super) const PIECE_BYTES: usize = PIECE_PAGES as usize / 8 + 64;

type Piece = Box<[u64; PIECE_WORDS as usize]>;

/// One bit per page: in pieces that are allocated when a bit in them is set, or in one word as long as only the first
/// pages are in the set.
#[derive(Debug)]
pub(super) enum PageSet {
    First(u64),
    Pieces(BTreeMap<u32, Piece>),
}

impl PageSet {
    /// An empty set.
    pub fn new() -> PageSet {
        PageSet::First(0)
    }

    /// Bytes besides those of the value itself.
    pub fn memory(&self) -> usize {
        match self {
            PageSet::First(_) => 0,
            PageSet::Pieces(pieces) => pieces.len() * PIECE_BYTES,
        }
    }

    /// How many more bytes it takes with this page.
    pub fn memory_for(&self, page: u32) -> usize {
        match self {
            PageSet::First(_) if page < WORD_PAGES => 0,
            PageSet::First(0) => PIECE_BYTES,
            PageSet::First(_) => PIECE_BYTES * if page < PIECE_PAGES { 1 } else { 2 },
            PageSet::Pieces(pieces) if pieces.contains_key(&(page / PIECE_PAGES)) => 0,
            PageSet::Pieces(_) => PIECE_BYTES,
        }
    }

    /// Adds a page.
    pub fn insert(&mut self, page: u32) {
        self.add(page / WORD_PAGES, 1 << (page % WORD_PAGES));
    }

    /// Adds all pages of another set.
    pub fn absorb(&mut self, other: &PageSet) {
        for (number, word) in other.words_from(0) {
            self.add(number, word);
        }
    }

    fn add(&mut self, number: u32, bits: u64) {
        match self {
            _ if bits == 0 => {}
            PageSet::First(first) if number == 0 => *first |= bits,
            PageSet::First(first) => {
                let first = *first;
                *self = PageSet::Pieces(BTreeMap::new());
                self.add(0, first);
                self.add(number, bits);
            }
            PageSet::Pieces(pieces) => {
                let piece = pieces.entry(number / PIECE_WORDS);
                let piece = piece.or_insert_with(|| Piece::new([0; PIECE_WORDS as usize]));
                piece[(number % PIECE_WORDS) as usize] |= bits;
            }
        }
    }

    /// Whether a page is in it.
    pub fn contains(&self, page: u32) -> bool {
        self.word(page / WORD_PAGES) >> (page % WORD_PAGES) & 1 == 1
    }

    /// The first of its pages at or above `from`.
    pub fn first(&self, from: u32) -> Option<u32> {
        let mut set = self.words_from(from / WORD_PAGES).map(|(number, word)| {
            let base = number * WORD_PAGES;
            // Pages before `from` do not count; no word here lies wholly before it.
            let skip = from.saturating_sub(base);
            (base, word >> skip << skip)
        });
        set.find(|(_, word)| *word != 0).map(|(base, word)| base + word.trailing_zeros())
    }

    /// Number of pages in `range` that are in any of these sets.
    pub fn distinct(all: &[&PageSet], range: &Range<u32>) -> u64 {
        let numbers = |set: &&PageSet| -> Vec<u32> {
            let words = set.words_from(range.start / WORD_PAGES);
            words.filter(|(_, word)| *word != 0).map(|(number, _)| number).collect()
        };
        let mut numbers: Vec<u32> = all.iter().flat_map(numbers).collect();
        if all.len() > 1 {
            numbers.sort_unstable();
            numbers.dedup();
        }
        let in_range = |number: u32| {
            let base = u64::from(number) * u64::from(WORD_PAGES);
            let skip = u64::from(range.start).saturating_sub(base).min(64);
            let keep = u64::from(range.end).saturating_sub(base).min(64);
            if skip < keep { (u64::MAX >> (64 - (keep - skip))) << skip } else { 0 }
        };
        let set = |number: u32| all.iter().fold(0, |set, one| set | one.word(number));
        numbers.into_iter().map(|number| u64::from((set(number) & in_range(number)).count_ones())).sum()
    }

    fn word(&self, number: u32) -> u64 {
        match self {
            PageSet::First(first) => {
                if number == 0 {
                    *first
                } else {
                    0
                }
            }
            PageSet::Pieces(pieces) => {
                pieces.get(&(number / PIECE_WORDS)).map_or(0, |piece| piece[(number % PIECE_WORDS) as usize])
            }
        }
    }

    /// The words from a number on, with their numbers, in order.
    fn words_from(&self, from: u32) -> impl Iterator<Item = (u32, u64)> + '_ {
        let (first, pieces) = match self {
            PageSet::First(first) => (Some((0, *first)), None),
            PageSet::Pieces(pieces) => (None, Some(pieces.range(from / PIECE_WORDS..))),
        };
        let words = pieces
            .into_iter()
            .flatten()
            .flat_map(|(at, piece)| (at * PIECE_WORDS..).zip(piece.iter().copied()));
        first.into_iter().chain(words).filter(move |(number, _)| *number >= from)
    }
}
