//! What all joins came to, as Markdown.

use std::fmt::Write as _;
use std::time::Duration;

use super::contender::Contender;
use super::trial::{Clients, Trial};
use crate::commands::storm::figures::spread;

struct Row {
    name: &'static str,
    digits: usize,
    value: fn(&Trial) -> Option<f64>,
}

const ALWAYS: [Row; 10] = [
    Row { name: "start to Synced, s", digits: 1, value: |t| seconds(t.observed.took) },
    Row {
        name: "of that before the method's program runs, s",
        digits: 1,
        value: |t| seconds(t.observed.before().ok()?),
    },
    Row { name: "of that the transfer (SST), s", digits: 1, value: |t| seconds(t.observed.sst().ok()?) },
    Row { name: "of that fixed sleeps, s [1]", digits: 1, value: |t| seconds(t.observed.asleep()?) },
    Row { name: "of that `mariabackup --prepare`, s", digits: 1, value: |t| seconds(t.observed.prepare()?) },
    Row {
        name: "recovery by the joiner's server, s [2]",
        digits: 1,
        value: |t| seconds(t.observed.recovery().ok()?),
    },
    Row { name: "MB on the network [3]", digits: 0, value: |t| megabytes(t.wire) },
    Row { name: "CPU of the programs, both hosts, s [4]", digits: 1, value: |t| Some(t.programs) },
    Row { name: "CPU of the donor's server, s [5]", digits: 1, value: |t| Some(t.server) },
    Row { name: "peak memory of the donor's programs, MB [6]", digits: 0, value: |t| megabytes(t.memory) },
];

const LOADED: [Row; 10] = [
    Row {
        name: "longest commit on the donor, ms: without a join",
        digits: 0,
        value: |t| felt(t, |c| ms(c.calm.0.donor.longest)),
    },
    Row { name: "... while the donor gave [7]", digits: 0, value: |t| felt(t, |c| ms(c.given)) },
    Row {
        name: "... from the joiner's start to Synced",
        digits: 0,
        value: |t| felt(t, |c| ms(c.during.0.donor.longest)),
    },
    Row {
        name: "p99 on the donor, ms: without a join",
        digits: 1,
        value: |t| felt(t, |c| ms(c.calm.0.donor.p99)),
    },
    Row {
        name: "... from the joiner's start to Synced",
        digits: 1,
        value: |t| felt(t, |c| ms(c.during.0.donor.p99)),
    },
    Row {
        name: "longest commit on the other node, ms: without a join",
        digits: 0,
        value: |t| felt(t, |c| ms(c.calm.0.other.longest)),
    },
    Row {
        name: "... from the joiner's start to Synced",
        digits: 0,
        value: |t| felt(t, |c| ms(c.during.0.other.longest)),
    },
    Row {
        name: "p99 on the other node, ms: without a join",
        digits: 1,
        value: |t| felt(t, |c| ms(c.calm.0.other.p99)),
    },
    Row {
        name: "... from the joiner's start to Synced",
        digits: 1,
        value: |t| felt(t, |c| ms(c.during.0.other.p99)),
    },
    Row {
        name: "commits a second on the donor, of those without a join, %",
        digits: 0,
        value: |t| felt(t, kept),
    },
];

fn seconds(duration: Duration) -> Option<f64> {
    Some(duration.as_secs_f64())
}

fn megabytes(bytes: u64) -> Option<f64> {
    Some(bytes as f64 / 1e6)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn felt(trial: &Trial, value: fn(&Clients) -> f64) -> Option<f64> {
    trial.clients.as_ref().map(value)
}

/// Of the donor's commits a second, how many were left: in percent.
fn kept(clients: &Clients) -> f64 {
    let rate =
        |(felt, time): &(super::fixture::Felt, Duration)| felt.donor.commits as f64 / time.as_secs_f64();
    100.0 * rate(&clients.during) / rate(&clients.calm)
}

/// The table, for `contenders` in this order.
pub fn table(trials: &[Trial], contenders: &[Contender]) -> String {
    let mut out = String::new();
    line(&mut out, "", contenders.iter().map(|contender| contender.name().to_owned()));
    let _ = writeln!(out, "|---|{}", "---:|".repeat(contenders.len()));
    for loaded in [false, true] {
        if !trials.iter().any(|trial| trial.loaded == loaded) {
            continue;
        }
        let title = if loaded { "**under write load**" } else { "**idle**" };
        let _ = writeln!(out, "| {title} |{}", " |".repeat(contenders.len()));
        let of = |contender| Column { trials, contender, loaded };
        let more = if loaded { &LOADED[..] } else { &[] };
        for row in ALWAYS.iter().chain(more) {
            let cells = contenders.iter().map(|&contender| of(contender).cell(row));
            line(&mut out, row.name, cells);
        }
        if contenders.contains(&Contender::Rejoin) {
            let ratio = |awake: bool| contenders.iter().map(move |&contender| of(contender).ratio(awake));
            line(&mut out, "rejoin's seconds to Synced : this method's", ratio(false));
            line(&mut out, "... with the fixed sleeps taken off", ratio(true));
        }
    }
    out
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
    loaded: bool,
}

impl<'a> Column<'a> {
    fn trials(self) -> impl Iterator<Item = &'a Trial> {
        let mine = move |trial: &&Trial| trial.contender == self.contender && trial.loaded == self.loaded;
        self.trials.iter().filter(mine)
    }

    fn cell(self, row: &Row) -> String {
        shown(self.trials().filter_map(row.value).collect(), row.digits)
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
6. Resident memory of all of the donor's SST programs together, the most at one time, looked at ten times a second.
7. From \"synced -> donor\" to \"donor -> joined\" in its log. Before and after that the group takes the joiner in, which
   stalls commits by itself, whatever the method.
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
