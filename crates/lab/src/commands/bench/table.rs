//! The measurements of all joins, as Markdown.

use std::fmt::Write as _;

use super::contender::{Case, Contender};
use super::limit::Nearness;
use super::rows::{ALWAYS, LOADED, Row, of_cat, of_slowest};
use super::trial::Trial;
use crate::commands::storm::figures::spread;

/// Of the slowest of disk read, link and disk write, and of `cat` of the slower node's files.
const GOAL: f64 = 0.9;

/// How close one phase of a trial was to the ceilings.
type Near = fn(&Trial) -> Nearness;

/// The table, for `contenders` in this order.
pub fn table(trials: &[Trial], contenders: &[Contender]) -> String {
    let mut out = String::new();
    line(&mut out, "", contenders.iter().map(|contender| contender.name().to_owned()));
    let _ = writeln!(out, "|---|{}", "---:|".repeat(contenders.len()));
    for case in Case::ALL {
        if !trials.iter().any(|trial| trial.case == case) {
            continue;
        }
        let _ = writeln!(out, "| **{}** |{}", case.title(), " |".repeat(contenders.len()));
        let of = |contender| Column { trials, contender, case };
        let more = if case == Case::Loaded { &LOADED[..] } else { &[] };
        for row in ALWAYS.iter().chain(more) {
            let cells = contenders.iter().map(|&contender| of(contender).cell(row));
            line(&mut out, row.name, cells);
        }
        let limits: [(&str, Near); 2] = [
            ("**the limit of the transfer, %**", Trial::transfer_nearness),
            ("**the limit from start to Synced, %**", Trial::synced_nearness),
        ];
        for (name, near) in limits {
            line(&mut out, name, contenders.iter().map(|&contender| of(contender).limit(near)));
        }
        if contenders.contains(&Contender::Rejoin) {
            let ratio = |awake: bool| contenders.iter().map(move |&contender| of(contender).ratio(awake));
            line(&mut out, "rejoin's seconds to Synced : this method's", ratio(false));
            line(&mut out, "... with the fixed sleeps taken off", ratio(true));
        }
    }
    out
}

/// What rejoin reached of what it is meant to reach, a line each; empty where none of it was measured.
pub fn goals(trials: &[Trial], cold: bool) -> String {
    let median = |case: Case, contender: Contender, value: fn(&Trial) -> Option<f64>| {
        let column = Column { trials, contender, case };
        spread(column.trials().filter_map(value).collect()).map(|[_, middle, _]| middle)
    };
    let full = median(Case::Full, Contender::Rejoin, of_slowest).filter(|_| cold);
    let same = median(Case::Same, Contender::Unremembered, of_cat);
    let told = |what: &str, reached: Option<f64>| {
        let is = |part: f64| if part >= GOAL { "reached" } else { "not reached" };
        let line = |part: f64| {
            format!("Goal, {what} at least {:.0} %: {:.0} %, {}.\n", GOAL * 100.0, part * 100.0, is(part))
        };
        reached.map(line).unwrap_or_default()
    };
    told("a full transfer, cold, of the slowest of disk read, link and disk write", full)
        + &told("nothing changed and nothing remembered, of `cat` of the slower node's files", same)
}

fn line(out: &mut String, name: &str, cells: impl Iterator<Item = String>) {
    let cells: Vec<String> = cells.collect();
    if cells.iter().any(|cell| cell != NOTHING) {
        let _ = writeln!(out, "| {name} | {} |", cells.join(" | "));
    }
}

const NOTHING: &str = "-";

#[derive(Clone, Copy)]
struct Column<'a> {
    trials: &'a [Trial],
    contender: Contender,
    case: Case,
}

impl<'a> Column<'a> {
    fn trials(self) -> impl Iterator<Item = &'a Trial> {
        let mine = move |trial: &&Trial| trial.contender == self.contender && trial.case == self.case;
        self.trials.iter().filter(mine)
    }

    fn cell(self, row: &Row) -> String {
        shown(self.trials().filter_map(row.value).collect(), row.digits)
    }

    /// By the medians of the repetitions.
    fn limit(self, near: Near) -> String {
        let all: Vec<Nearness> = self.trials().map(near).collect();
        let median = |value: fn(&Nearness) -> Option<f64>| {
            spread(all.iter().filter_map(value).collect()).map(|[_, middle, _]| middle)
        };
        let Some(processor) = median(|near| Some(near.processor)) else { return NOTHING.to_owned() };
        let (limit, near) =
            Nearness { disk: median(|near| near.disk), link: median(|near| near.link), processor }.nearest();
        format!("{limit} {:.0}", near * 100.0)
    }

    /// Pair by pair: the joins of one repetition followed each other.
    fn ratio(self, awake: bool) -> String {
        let ours = Column { contender: Contender::Rejoin, ..self };
        if self.contender == Contender::Rejoin
            || awake && self.trials().all(|t| t.observed.asleep().is_none())
        {
            return NOTHING.to_owned();
        }
        let ratios = self.trials().filter_map(|other| {
            let mine = ours.trials().find(|trial| trial.repetition == other.repetition)?;
            let asleep = other.observed.asleep().filter(|_| awake).unwrap_or_default();
            Some(mine.observed.took.as_secs_f64() / (other.observed.took - asleep).as_secs_f64())
        });
        shown(ratios.collect(), 2)
    }
}

/// The median, and the least and the most where there are several.
fn shown(values: Vec<f64>, digits: usize) -> String {
    let single = values.len() == 1;
    match spread(values) {
        None => NOTHING.to_owned(),
        Some([_, middle, _]) if single => format!("{middle:.digits$}"),
        Some([least, middle, most]) => format!("{middle:.digits$} ({least:.digits$} to {most:.digits$})"),
    }
}

/// What the numbers in brackets refer to.
pub const NOTES: &str = "\
Median (least to most) of the repetitions. The methods took turns on one cluster with the same data; rejoin encrypts,
the others travel in clear, all as they are without configuration.

1. mariabackup's donor runs `sleep 10` before it sends data (\"Sleeping before data transfer for SST\" in
   wsrep_sst_mariabackup), measured between the two lines it logs around it. Its other sleeps (0.1 and 0.2 s, as the 0.2, 0.5
   and 1 s of rsync's script) are steps of waiting for something, and stay in.
2. From the end of the transfer until InnoDB serves. mariabackup recovers before, within its transfer: the line above.
3. Payload of the TCP connections to the joiner's SST port, both directions, as the kernel counted it when they ended.
4. User and system time of all SST programs, by the servers that waited for them.
5. From the joiner's start until both hosts' programs had ended. Under load it holds what the clients cost.
6. Resident memory of all of that host's SST programs together, the most at one time, looked at ten times a second.
7. From \"synced -> donor\" to \"donor -> joined\" in its log. Before and after that the group takes the joiner in, which
   stalls commits by itself, whatever the method.
8. How near the whole machine came to its ceilings, which stand above. Disk: bytes read and bytes written, each by its own
   ceiling, added up, because both nodes share the disk. Processors: seconds of work by seconds of all of them. Link: payload
   by its rate; loopback has none. What a method leaves in the page cache is written later and counts then. More than 100 %:
   the disk did more than when its ceiling was measured.
9. `cat` of the data files of the donor, of the joiner, or of both at once, from where the transfer finds them.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_several_and_none() {
        assert_eq!(shown(vec![1.25], 1), "1.2");
        assert_eq!(shown(vec![3.0, 1.0, 2.0], 0), "2 (1 to 3)");
        assert_eq!(shown(Vec::new(), 0), NOTHING);
    }
}
