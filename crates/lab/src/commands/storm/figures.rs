//! The results of all rounds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::judge::Wrong;
use super::log_report::{ConsistencyPoint, SnapshotKind};
use super::round::{Round, ms};

/// The sums, and the least, the middle and the most of what was measured.
pub fn summary(rounds: &[Round]) -> String {
    let mut out = String::new();
    let equal = rounds.iter().filter(|round| round.wrong.is_none()).count();
    let _ = writeln!(out, "\n{} rounds, {equal} equal, {} wrong", rounds.len(), rounds.len() - equal);
    for wrong in Wrong::ALL {
        let count = rounds.iter().filter(|round| round.wrong == Some(wrong)).count();
        if count > 0 {
            let _ = writeln!(out, "  {count} {wrong}");
        }
    }
    sources(rounds, &mut out);
    let mut row = |name: &str, values: Vec<f64>| {
        if let Some([least, middle, most]) = spread(values) {
            let _ = writeln!(out, "{name:52} {least:8.0} {middle:8.0} {most:8.0}");
        }
    };
    row("start to Synced, ms", rounds.iter().filter_map(|r| r.joined).map(ms).collect());
    // A round whose joiner failed early says little of what a join costs the others.
    let joined: Vec<&Round> = rounds.iter().filter(|round| round.joined.is_some()).collect();
    let all = |value: fn(&Round) -> f64| joined.iter().map(|round| value(round)).collect();
    row("longest commit on the donor, before, ms", all(|r| ms(r.donor.0.longest)));
    let known = |value: fn(&Round) -> Option<Duration>| {
        joined.iter().filter_map(|round| value(round)).map(ms).collect()
    };
    row("longest commit on the donor, while it gave, ms", known(|r| r.given));
    row("longest commit on the donor, during the join, ms", all(|r| ms(r.donor.1.longest)));
    row("p99 on the other node, before, ms", all(|r| ms(r.other.0.p99)));
    row("p99 on the other node, while the donor gave, ms", known(|r| r.other_given));
    row("p99 on the other node, during the join, ms", all(|r| ms(r.other.1.p99)));
    row("p99 on the other node, with the joiner, ms", known(|r| r.other_after));
    let moments: Vec<&ConsistencyPoint> =
        rounds.iter().filter_map(|round| round.told.moment.as_ref()).collect();
    let all = |value: fn(&ConsistencyPoint) -> f64| moments.iter().map(|moment| value(moment)).collect();
    row("replication paused, ms", all(|m| m.paused));
    row("commits held, ms", all(|m| m.commits_held));
    row("failed tries held, ms", all(|m| m.failed_held));
    row("tries", all(|m| f64::from(m.tries)));
    out.truncate(out.trim_end().len());
    out
}

fn sources(rounds: &[Round], out: &mut String) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for snapshot in rounds.iter().filter_map(|round| round.told.snapshot.as_ref()) {
        let name = match snapshot {
            SnapshotKind::Online => "online".to_owned(),
            SnapshotKind::Mariabackup => "mariabackup".to_owned(),
            SnapshotKind::Logical(_) => "logical".to_owned(),
            SnapshotKind::Blocking(why) => format!("blocking: {}", without_particulars(why)),
        };
        *counts.entry(name).or_default() += 1;
    }
    for (name, count) in counts {
        let _ = writeln!(out, "  {count} {name}");
    }
    let newer: Vec<u32> = rounds.iter().filter_map(|round| round.told.newer).collect();
    let taken = newer.iter().filter(|newer| **newer > 0).count();
    let _ = writeln!(out, "  {taken} of {} online ones recovered from a newer checkpoint", newer.len());
    let _ = writeln!(out, "{:52} {:>8} {:>8} {:>8}", "over all rounds", "min", "median", "max");
}

/// A reason without the numbers and paths that differ from one round to the next.
fn without_particulars(why: &str) -> String {
    let differs = |word: &&str| word.contains('/') || word.contains(|c: char| c.is_ascii_digit());
    why.split_whitespace().filter(|word| !differs(word)).collect::<Vec<_>>().join(" ")
}

/// Least, middle and most.
pub fn spread(mut values: Vec<f64>) -> Option<[f64; 3]> {
    values.sort_by(f64::total_cmp);
    Some([*values.first()?, values[values.len() / 2], *values.last()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_reason_counts_as_one() {
        let why = "tablespace 712 (/d/storm/imported.ibd) was discarded during the copy";
        assert_eq!(without_particulars(why), "tablespace was discarded during the copy");
    }

    #[test]
    fn least_middle_and_most() {
        assert_eq!(spread(vec![3.0, 1.0, 2.0]), Some([1.0, 2.0, 3.0]));
        assert_eq!(spread(vec![5.0]), Some([5.0, 5.0, 5.0]));
        assert_eq!(spread(vec![]), None);
    }
}
