//! The set of seqnos that were found, as runs without gaps: a donor can serve the run that ends at the newest
//! one.

use std::collections::BTreeMap;

use crate::ids::Seqno;

/// A history with gaps has a handful of runs. This bounds the memory that bytes which only look like buffers
/// can cost.
const MAX_RUNS: usize = 1 << 16;

/// A set of seqnos.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seqnos {
    /// Maps the first seqno of a run to its last.
    runs: BTreeMap<i64, i64>,
    /// The highest seqno that was found twice. It is not known which of the two is right, so the history
    /// begins behind it.
    twice: Option<i64>,
    overflowed: bool,
}

impl Seqnos {
    /// Adds one.
    pub fn insert(&mut self, seqno: Seqno) {
        let n = seqno.0;
        let before = self.runs.range(..=n).next_back().map(|(&first, &last)| (first, last));
        if before.is_some_and(|(_, last)| n <= last) {
            self.twice = self.twice.max(Some(n));
            return;
        }
        let first = match before {
            Some((first, last)) if last.checked_add(1) == Some(n) => first,
            _ => n,
        };
        let last = n.checked_add(1).and_then(|next| self.runs.remove(&next)).unwrap_or(n);
        if first == n && self.runs.len() >= MAX_RUNS {
            self.overflowed = true;
            return;
        }
        self.runs.insert(first, last);
    }

    /// Returns first and last of the run without gaps that ends at the highest seqno. Seqnos up to a
    /// duplicate one do not count.
    pub fn newest_run(&self) -> Option<(Seqno, Seqno)> {
        let (&first, &last) = self.runs.last_key_value()?;
        let first = self.twice.map_or(first, |twice| first.max(twice.saturating_add(1)));
        (first <= last).then_some((Seqno(first), Seqno(last)))
    }

    /// Whether this one was found.
    pub fn contains(&self, seqno: Seqno) -> bool {
        self.runs.range(..=seqno.0).next_back().is_some_and(|(_, &last)| seqno.0 <= last)
    }

    /// The lowest one.
    pub fn lowest(&self) -> Option<Seqno> {
        self.runs.first_key_value().map(|(&first, _)| Seqno(first))
    }

    /// The number of runs; 1 for a history without gaps.
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Whether a seqno was found twice.
    pub fn has_duplicates(&self) -> bool {
        self.twice.is_some()
    }

    /// Whether there were more runs than any history has, so that some were dropped.
    pub fn overflowed(&self) -> bool {
        self.overflowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn of(all: &[i64]) -> Seqnos {
        let mut set = Seqnos::default();
        all.iter().for_each(|&n| set.insert(Seqno(n)));
        set
    }

    #[test]
    fn the_newest_run_counts() {
        assert_eq!(of(&[]).newest_run(), None);
        assert_eq!(of(&[5, 6, 1, 2, 7]).newest_run(), Some((Seqno(5), Seqno(7))));
        assert_eq!(of(&[5, 6, 7, 6]).newest_run(), Some((Seqno(7), Seqno(7))));
        assert_eq!(of(&[5, 5]).newest_run(), None);
        assert_eq!(of(&[i64::MAX, i64::MAX - 1]).newest_run(), Some((Seqno(i64::MAX - 1), Seqno(i64::MAX))));
    }

    #[test]
    fn pieces_without_end_cost_no_memory_without_end() {
        let mut set = Seqnos::default();
        (0..100_000).for_each(|n| set.insert(Seqno(n * 2)));
        assert!(set.overflowed() && set.runs() == MAX_RUNS);
    }

    proptest! {
        #[test]
        fn as_a_plain_set_would(all in proptest::collection::hash_set(1i64..40, 1..40)) {
            let all: Vec<i64> = all.into_iter().collect();
            let plain: BTreeSet<i64> = all.iter().copied().collect();
            let last = *plain.last().unwrap();
            let first = (1..=last).rev().take_while(|n| plain.contains(n)).last().unwrap();
            prop_assert_eq!(of(&all).newest_run(), Some((Seqno(first), Seqno(last))));
        }
    }
}
