//! Sets of bytes of a file.
use std::collections::BTreeMap;
use std::ops::Range;

/// Disjoint extents that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extents(BTreeMap<u64, u64>);

impl Extents {
    /// Adds bytes.
    pub fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range;
        while let Some((&from, &to)) = self.0.range(..=end).next_back() {
            if to < start {
                break;
            }
            self.0.remove(&from);
            start = start.min(from);
            end = end.max(to);
        }
        self.0.insert(start, end);
    }

    /// Takes bytes out.
    pub fn remove(&mut self, range: Range<u64>) {
        while let Some((&from, &to)) = self.0.range(..range.end).next_back() {
            if range.is_empty() || to <= range.start {
                break;
            }
            self.0.remove(&from);
            if to > range.end {
                self.0.insert(range.end, to);
            }
            if from < range.start {
                self.0.insert(from, range.start);
                break;
            }
        }
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().map(|(&start, &end)| start..end)
    }

    /// Those of a range, ascending.
    pub fn within(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let first = self.0.range(..=range.start).next_back().map_or(range.start, |(&from, _)| from);
        let cut = move |(&from, &to): (&u64, &u64)| from.max(range.start)..to.min(range.end);
        self.0.range(first..range.end.max(first)).map(cut).filter(|part| !part.is_empty())
    }

    /// Some of these bytes.
    pub fn overlaps(&self, range: Range<u64>) -> bool {
        self.0.range(..range.end).next_back().is_some_and(|(_, &end)| end > range.start)
    }

    /// All of these bytes.
    pub fn covers(&self, range: Range<u64>) -> bool {
        self.within(range.clone()).eq(std::iter::once(range))
    }

    /// The first bytes below `end` that are not in it.
    pub fn first_gap(&self, end: u64) -> Option<Range<u64>> {
        let start = self.0.get(&0).copied().unwrap_or(0);
        let next = self.0.range(start..).next().map_or(end, |(&from, _)| from.min(end));
        (start < end).then_some(start..next)
    }

    /// Number of extents.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// No bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All bytes up to `end` and none else.
    pub fn is_all(&self, end: u64) -> bool {
        self.iter().eq((end > 0).then_some(0..end))
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
