//! The donor's `rlimit` over time: the one from its option files, and what `rejoin set` made of it.
use crate::record::Record;
use crate::why::Part;

/// A time with one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// When it began, by the record's clock.
    pub from_ms: u64,
    /// When it ended.
    pub to_ms: u64,
    /// Bytes per second; `None` = no limit.
    pub limit: Option<u64>,
}

/// The limits of a transfer, from its begin to its end.
pub fn limits(record: &Record) -> Vec<Span> {
    let end = record.began_ms.saturating_add(record.ms());
    let changed = record.changes.iter().filter_map(|change| Some((change.at_ms, value(&change.set)?)));
    let mut all = vec![Span { from_ms: record.began_ms, to_ms: end, limit: record.settings.rlimit }];
    for (at_ms, limit) in changed {
        let from_ms = at_ms.min(end);
        if let Some(last) = all.last_mut() {
            last.to_ms = from_ms.max(last.from_ms);
        }
        all.push(Span { from_ms, to_ms: end, limit });
    }
    all
}

/// The value of `rlimit=BYTES`; `None` if this is another option.
fn value(set: &str) -> Option<Option<u64>> {
    let bytes: u64 = set.strip_prefix("rlimit=")?.parse().ok()?;
    Some(Some(bytes).filter(|bytes| *bytes > 0))
}

/// The limit that was in force for most of the time in which data moved, of the times with a limit: with its milliseconds, and those of
/// all that time. `None` if there was none.
pub fn ruling(record: &Record) -> Option<(u64, u64, u64)> {
    let moving = record.phases.iter().filter(|phase| Part::of(&phase.name) == Part::Move);
    let mut times: Vec<(u64, u64)> = moving.map(|phase| (phase.began_ms, phase.ended_ms)).collect();
    if times.is_empty() {
        times.push((record.began_ms, record.began_ms.saturating_add(record.ms())));
    }
    let all: u64 = times.iter().map(|(from, to)| to.saturating_sub(*from)).sum();
    let ms = |span: &Span| -> u64 {
        let overlap = |(from, to): &(u64, u64)| span.to_ms.min(*to).saturating_sub(span.from_ms.max(*from));
        times.iter().map(overlap).sum()
    };
    let spans = limits(record);
    let mut sums: Vec<(u64, u64)> = Vec::new();
    for span in &spans {
        let Some(limit) = span.limit else { continue };
        match sums.iter_mut().find(|(known, _)| *known == limit) {
            Some((_, sum)) => *sum = sum.saturating_add(ms(span)),
            None => sums.push((limit, ms(span))),
        }
    }
    sums.into_iter().max_by_key(|(_, ms)| *ms).map(|(limit, ms)| (limit, ms, all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Change, Phase, Settings};

    fn record(rlimit: Option<u64>, changes: &[(u64, &str)]) -> Record {
        let change = |(at_ms, set): &(u64, &str)| Change { at_ms: *at_ms, set: (*set).to_owned(), user: 0 };
        let phase = Phase { name: "sending".to_owned(), began_ms: 2000, ended_ms: 12_000 };
        Record {
            began_ms: 1000,
            ended_ms: Some(13_000),
            settings: Settings { rlimit, ..Settings::default() },
            changes: changes.iter().map(change).collect(),
            phases: vec![phase],
            ..Record::default()
        }
    }

    #[test]
    fn limits_follow_what_was_set_meanwhile() {
        let spans =
            limits(&record(None, &[(3000, "rlimit=10"), (5000, "adaptive-throttle=0"), (9000, "rlimit=0")]));
        let of = |from_ms, to_ms, limit| Span { from_ms, to_ms, limit };
        assert_eq!(spans, [of(1000, 3000, None), of(3000, 9000, Some(10)), of(9000, 13_000, None)]);
        // By a clock that was set meanwhile.
        let spans = limits(&record(Some(5), &[(500, "rlimit=10"), (99_000, "rlimit=7")]));
        assert!(spans.iter().all(|span| span.from_ms <= 13_000 && span.to_ms <= 13_000), "{spans:?}");
    }

    #[test]
    fn the_limit_that_counts_is_the_one_that_lasted() {
        assert_eq!(ruling(&record(Some(5), &[])), Some((5, 10_000, 10_000)));
        assert_eq!(ruling(&record(None, &[])), None);
        assert_eq!(ruling(&record(None, &[(3000, "rlimit=10")])), Some((10, 9000, 10_000)));
        assert_eq!(ruling(&record(Some(5), &[(3000, "rlimit=0")])), Some((5, 1000, 10_000)));
        assert_eq!(
            ruling(&record(Some(5), &[(3000, "rlimit=9"), (11_000, "rlimit=5")])),
            Some((9, 8000, 10_000))
        );
    }
}
