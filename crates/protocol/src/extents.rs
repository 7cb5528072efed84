//! Sets of bytes of a file.
use std::collections::BTreeMap;
use std::ops::{Range, RangeBounds};

/// Disjoint extents that do not touch. There is one set for each of very many files, and most files have one
/// extent, so a single extent needs no allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extents(Pieces);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pieces {
    /// At most one extent: start and end, which are equal if there is none.
    One(u64, u64),
    /// Two or more.
    Many(BTreeMap<u64, u64>),
}

impl Default for Extents {
    fn default() -> Extents {
        Extents(Pieces::One(0, 0))
    }
}

impl Extents {
    /// Adds bytes.
    pub fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        match &mut self.0 {
            Pieces::One(start, end) if start == end => self.0 = Pieces::One(range.start, range.end),
            Pieces::One(start, end) if range.start <= *end && *start <= range.end => {
                (*start, *end) = (range.start.min(*start), range.end.max(*end));
            }
            _ => self.change(|pieces| add(pieces, range)),
        }
    }

    /// Removes bytes.
    pub fn remove(&mut self, range: Range<u64>) {
        match &self.0 {
            Pieces::One(start, end) if range.is_empty() || range.end <= *start || *end <= range.start => {}
            Pieces::One(start, end) if range.start <= *start && *end <= range.end => {
                *self = Extents::default()
            }
            _ => self.change(|pieces| remove(pieces, range)),
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut BTreeMap<u64, u64>)) {
        let mut pieces = match std::mem::take(self).0 {
            Pieces::One(start, end) => (start < end).then_some((start, end)).into_iter().collect(),
            Pieces::Many(pieces) => pieces,
        };
        change(&mut pieces);
        let first = pieces.first_key_value().map_or((0, 0), |(&start, &end)| (start, end));
        self.0 = if pieces.len() > 1 { Pieces::Many(pieces) } else { Pieces::One(first.0, first.1) };
    }

    /// The extents that begin within these bounds, ascending.
    fn range(
        &self,
        bounds: impl RangeBounds<u64>,
    ) -> impl DoubleEndedIterator<Item = (u64, u64)> + Clone + '_ {
        let (one, many) = match &self.0 {
            Pieces::One(start, end) => {
                ((start < end && bounds.contains(start)).then_some((*start, *end)), None)
            }
            Pieces::Many(pieces) => (None, Some(pieces.range(bounds))),
        };
        one.into_iter().chain(many.into_iter().flatten().map(|(&start, &end)| (start, end)))
    }

    /// All extents, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + Clone + '_ {
        self.range(..).map(|(start, end)| start..end)
    }

    /// The extents within a range, ascending.
    pub fn within(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let first = self.range(..=range.start).next_back().map_or(range.start, |(from, _)| from);
        let cut = move |(from, to): (u64, u64)| from.max(range.start)..to.min(range.end);
        self.range(first..range.end.max(first)).map(cut).filter(|part| !part.is_empty())
    }

    /// Whether it contains some of these bytes.
    pub fn overlaps(&self, range: Range<u64>) -> bool {
        self.range(..range.end).next_back().is_some_and(|(_, end)| end > range.start)
    }

    /// All of these bytes.
    pub fn covers(&self, range: Range<u64>) -> bool {
        self.within(range.clone()).eq(std::iter::once(range))
    }

    /// The first bytes below `end` that are not in it.
    pub fn first_gap(&self, end: u64) -> Option<Range<u64>> {
        let start = self.range(0..=0).next().map_or(0, |(_, to)| to);
        let next = self.range(start..).next().map_or(end, |(from, _)| from.min(end));
        (start < end).then_some(start..next)
    }

    /// Number of extents.
    pub fn len(&self) -> usize {
        match &self.0 {
            Pieces::One(start, end) => usize::from(start < end),
            Pieces::Many(pieces) => pieces.len(),
        }
    }

    /// No bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All bytes up to `end` and none else.
    pub fn is_all(&self, end: u64) -> bool {
        self.iter().eq((end > 0).then_some(0..end))
    }
}

fn add(pieces: &mut BTreeMap<u64, u64>, Range { mut start, mut end }: Range<u64>) {
    while let Some((&from, &to)) = pieces.range(..=end).next_back() {
        if to < start {
            break;
        }
        pieces.remove(&from);
        start = start.min(from);
        end = end.max(to);
    }
    pieces.insert(start, end);
}

fn remove(pieces: &mut BTreeMap<u64, u64>, range: Range<u64>) {
    while let Some((&from, &to)) = pieces.range(..range.end).next_back() {
        if range.is_empty() || to <= range.start {
            break;
        }
        pieces.remove(&from);
        if to > range.end {
            pieces.insert(range.end, to);
        }
        if from < range.start {
            pieces.insert(from, range.start);
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_the_set_of_its_bytes(steps in proptest::collection::vec((any::<bool>(), 0u64..60, 0u64..20), 0..40)) {
            let (mut extents, mut bytes) = (Extents::default(), BTreeSet::new());
            for (add, start, len) in steps {
                let range = start..start + len;
                if add {
                    extents.add(range.clone());
                    bytes.extend(range);
                } else {
                    extents.remove(range.clone());
                    bytes.retain(|byte| !range.contains(byte));
                }
                prop_assert!(extents.iter().flatten().eq(bytes.iter().copied()));
                let apart = extents.iter().zip(extents.iter().skip(1)).all(|(a, b)| a.end < b.start);
                prop_assert!(apart);
            }
            for start in 0..80 {
                let within = bytes.range(start..start + 7).copied();
                prop_assert!(extents.within(start..start + 7).flatten().eq(within));
                prop_assert_eq!(extents.overlaps(start..start + 3), bytes.range(start..start + 3).next().is_some());
            }
            let gap: Vec<u64> = (0..90).skip_while(|byte| bytes.contains(byte)).take_while(|byte| !bytes.contains(byte)).collect();
            prop_assert!(extents.first_gap(90).into_iter().flatten().eq(gap));
            let end = bytes.len() as u64;
            prop_assert_eq!(extents.is_all(end), bytes.iter().copied().eq(0..end));
        }
    }
}
