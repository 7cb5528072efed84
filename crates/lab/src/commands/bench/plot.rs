//! The results as a picture: seconds to Synced of each method in each case.

use super::contender::{Case, Contender};
use super::results::{Results, TrialRecord};
use super::svg::{Bar, Group, Plot};

/// Characters of a line below the title.
const LINE: usize = 120;

/// Draws it, for `contenders` in this order.
pub fn plot(results: &Results, contenders: &[Contender]) -> Plot {
    let cache = if results.cold { "nothing" } else { "all" };
    let mut notes = lines(&format!("{}.", results.machine));
    notes.push(format!("The page cache had {cache} of the donor's files before each join."));
    notes.push("Beside each bar: what the transfer came nearest to being limited by, in percent of what that can do.".to_owned());
    Plot {
        title: format!("Seconds to Synced of a node with {:.1} GB of data", results.data_bytes as f64 / 1e9),
        notes,
        part: "the transfer (SST)",
        rest: "before and after it, until Synced",
        range: "least to most of the repetitions",
        unit: "seconds",
        groups: Case::ALL.iter().filter_map(|case| group(results, contenders, *case)).collect(),
    }
}

fn group(results: &Results, contenders: &[Contender], case: Case) -> Option<Group> {
    let of = |method: &str| -> Vec<&TrialRecord> {
        results.trials.iter().filter(|trial| trial.case == case && trial.method == method).collect()
    };
    let joins = contenders.iter().filter_map(|contender| joined(contender.name(), of(contender.name())));
    let mut bars: Vec<Bar> = joins.collect();
    if bars.is_empty() {
        return None;
    }
    let cats = results.trials.iter().filter(|trial| trial.case == case).filter_map(|t| t.cat.as_ref());
    bars.extend(read(cats.map(|cat| cat.both_seconds).collect()));
    Some(Group { title: case.title().to_owned(), bars })
}

/// A bar of the join in the middle, with its own parts.
fn joined(label: &str, mut trials: Vec<&TrialRecord>) -> Option<Bar> {
    trials.sort_by(|a, b| a.synced_seconds.total_cmp(&b.synced_seconds));
    let (least, most) = (trials.first()?.synced_seconds, trials.last()?.synced_seconds);
    let middle = trials[trials.len() / 2];
    let before = middle.before_seconds.unwrap_or(0.0);
    Some(Bar {
        label: label.to_owned(),
        value: middle.synced_seconds,
        least,
        most,
        part: (before, before + middle.transfer_seconds),
        note: middle.transfer.nearest(),
    })
}

/// A bar of reading alone.
fn read(mut seconds: Vec<f64>) -> Option<Bar> {
    seconds.sort_by(f64::total_cmp);
    let (least, most) = (*seconds.first()?, *seconds.last()?);
    let value = seconds[seconds.len() / 2];
    let label = "cat of both nodes' files".to_owned();
    Some(Bar { label, value, least, most, part: (0.0, value), note: String::new() })
}

/// Broken between words.
fn lines(text: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match all.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= LINE => {
                line.push(' ');
                line.push_str(word);
            }
            _ => all.push(word.to_owned()),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::ceilings::Ceilings;
    use crate::commands::bench::results::tests::record;

    fn results() -> Results {
        let ceilings = Ceilings { disk: None, link: None, processors: 2 };
        let mut results =
            Results::new("2 cores, and so on".to_owned(), Vec::new(), 2_900_000_000, true, &ceilings);
        for (n, seconds) in [(1, 6.0), (2, 8.0), (3, 7.0)] {
            results.trials.push(record(Case::Full, "rejoin", n, seconds));
            results.trials.push(record(Case::Same, "rejoin", n, seconds / 4.0));
        }
        results.trials.push(record(Case::Full, "rsync", 1, 9.0));
        results
    }

    #[test]
    fn a_bar_for_each_method_with_the_range_of_its_repetitions() {
        let plot = plot(&results(), &[Contender::Rejoin, Contender::Rsync, Contender::Mariabackup]);
        let [full, same] = &plot.groups[..] else { panic!("{} groups", plot.groups.len()) };
        let labels = |group: &Group| group.bars.iter().map(|bar| bar.label.clone()).collect::<Vec<_>>();
        assert_eq!(labels(full), ["rejoin", "rsync"]);
        assert_eq!(labels(same), ["rejoin", "cat of both nodes' files"]);
        let ours = &full.bars[0];
        assert_eq!((ours.least, ours.value, ours.most), (6.0, 7.0, 8.0));
        assert!((ours.part.0 - 1.4).abs() < 1e-9 && (ours.part.1 - 4.9).abs() < 1e-9, "{:?}", ours.part);
        assert_eq!(ours.note, "processors 50 %");
        assert!(plot.svg().contains("2.9 GB"));
    }

    #[test]
    fn long_lines_are_broken_between_words() {
        let text = "word ".repeat(60);
        let broken = lines(text.trim());
        assert!(broken.len() == 3 && broken.iter().all(|line| line.len() <= LINE), "{broken:?}");
        assert_eq!(broken.join(" "), text.trim());
    }
}
