//! The measurements of one transfer.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use rejoin_lab::Node;
use rejoin_lab::progress::{self, StatusReader};
use rejoin_lab::watcher::Watcher;
use serde::Serialize;

use super::Method;
use crate::commands::observed::Observed;

/// In either log if the operator's limit of time has ended a transfer: each host is told the other's reason.
const TIME_IS_OVER: &str = "the transfer took longer than max-time=";

/// Seconds, and bytes.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    pub case: String,
    pub method: &'static str,
    pub server: String,
    /// The joiner was Synced.
    pub ended: bool,
    /// What ended the transfer otherwise.
    pub how: &'static str,
    /// From the joiner's start to Synced, or to that end.
    pub seconds: f64,
    /// From the start of the joiner's program to what it tells its server; without mariabackup's fixed sleeps.
    pub transfer: f64,
    /// Of the joiner's server, or of `mariabackup --prepare`.
    pub recovery: f64,
    /// Both directions, as the kernel counts the connections.
    pub wire: u64,
    /// Bytes of redo since the donor's checkpoint when the transfer began.
    pub redo_waited: u64,
    /// What follows is in the donor's log, of rejoin alone. Bytes of redo that the joiner replays, before compression.
    pub redo: Option<u64>,
    /// Bytes of redo that were not sent.
    pub redo_dropped: Option<u64>,
    /// Newer checkpoints that were taken.
    pub rounds: Option<u64>,
    /// Bytes of pages that were read again.
    pub reread: Option<u64>,
    /// Bytes a second that were allowed.
    pub limit: Option<u64>,
    /// Bytes a second that were sent while the donor's program worked.
    pub sent: f64,
    /// The highest percentage in either status file or log.
    pub percent: Option<u64>,
    /// What the donor's log says of redo and of what is written faster than sent.
    pub told: Vec<String>,
}

/// What is counted from outside, whatever becomes of the transfer.
pub struct Counted {
    /// Bytes of redo since the donor's checkpoint when it began.
    pub redo_waited: u64,
    /// Bytes in both directions.
    pub wire: u64,
    /// The highest percentage in either status file.
    pub percent: Option<u64>,
}

impl Measured {
    /// A joiner that became Synced.
    pub fn of(
        case: &str,
        method: Method,
        version: &str,
        counted: &Counted,
        observed: &Observed,
    ) -> Result<Measured> {
        let log = observed.donor_log();
        let asleep = observed.asleep().unwrap_or_default();
        let transfer = observed.sst()?.saturating_sub(asleep);
        let redo = log.lines().rev().find_map(|line| line.split_once("redo: ")?.1.split_once(" to replay"));
        let after = |words: &str| -> Option<u64> {
            let (before, _) = redo?.1.split_once(words)?;
            bytes(before.rsplit(['(', ';', ',']).next()?)
        };
        let said = log.lines().chain(observed.joiner_log_lines()).filter_map(percent_in).max();
        let wire = counted.wire;
        let sent = wire as f64 / transfer.as_secs_f64().max(0.1);
        Ok(Measured {
            case: case.to_owned(),
            method: method.title(),
            server: version.to_owned(),
            ended: true,
            how: "Synced",
            seconds: observed.took.saturating_sub(asleep).as_secs_f64(),
            transfer: transfer.as_secs_f64(),
            recovery: match observed.prepare() {
                Some(prepare) => (prepare + observed.recovery()?).as_secs_f64(),
                None => observed.recovery()?.as_secs_f64(),
            },
            wire,
            redo_waited: counted.redo_waited,
            redo: redo.and_then(|(before, _)| bytes(before)),
            redo_dropped: after(" were not sent"),
            rounds: redo.and_then(|(_, rest)| {
                rest.split_once(" newer checkpoint")?.0.rsplit(' ').next()?.parse().ok()
            }),
            reread: after(" of pages read again"),
            limit: None,
            sent,
            percent: counted.percent.max(said),
            told: told(&log),
        })
    }

    /// A transfer that ended after so long: by the operator's limit of time, because the lab has `given_up`, or by another
    /// method's own error, as mariabackup's where the redo is overwritten before it was sent. `None` for an error of ours.
    /// `log`: the donor's.
    pub fn broken(
        case: &str,
        method: Method,
        version: &str,
        counted: &Counted,
        (took, given_up): (Duration, bool),
        log: &str,
    ) -> Option<Measured> {
        let how = if log.contains(TIME_IS_OVER) {
            "max-time"
        } else if given_up {
            "the lab"
        } else if method.is_rejoin() {
            return None;
        } else {
            "an error of its own"
        };
        Some(Measured {
            case: case.to_owned(),
            method: method.title(),
            server: version.to_owned(),
            ended: false,
            how,
            seconds: took.as_secs_f64(),
            transfer: took.as_secs_f64(),
            recovery: 0.0,
            wire: counted.wire,
            redo_waited: counted.redo_waited,
            redo: None,
            redo_dropped: None,
            rounds: None,
            reread: None,
            limit: None,
            sent: counted.wire as f64 / took.as_secs_f64().max(0.1),
            percent: counted.percent.max(log.lines().filter_map(percent_in).max()),
            told: told(log),
        })
    }

    /// Under a limit of so many bytes a second.
    pub fn limited(self, limit: u64) -> Measured {
        Measured { limit: Some(limit), ..self }
    }

    fn ended_by(&self) -> String {
        if self.ended { self.how.to_owned() } else { format!("ended by {}", self.how) }
    }

    /// One line for the terminal.
    pub fn line(&self) -> String {
        format!(
            "  {}, {}: {} after {:.1} s, {:.1} MB on the network, {} of redo to replay of {:.1}, recovery {:.1} s\n    {}",
            self.case,
            self.method,
            self.ended_by(),
            self.seconds,
            self.wire as f64 / 1e6,
            self.redo.map_or("-".to_owned(), |redo| format!("{:.1} MB", redo as f64 / 1e6)),
            self.redo_waited as f64 / 1e6,
            self.recovery,
            self.told.join("\n    ")
        )
    }
}

/// What rejoin says of redo, of checkpoints, and of what is written faster than sent.
fn told(log: &str) -> Vec<String> {
    let words = ["redo: ", "pages become dirty faster", "plan: ", "checkpoint", TIME_IS_OVER];
    let told =
        log.lines().filter(|line| line.contains("WSREP_SST") && words.iter().any(|word| line.contains(word)));
    told.map(|line| line.split_once("WSREP_SST: ").map_or(line, |(_, text)| text).to_owned()).collect()
}

/// As Markdown.
pub fn table(all: &[Measured]) -> String {
    let mut text = String::from(
        "| case | server | method | s to Synced, or to the end | transfer s | recovery s (of all) | MB on the network | redo waiting, MB | redo to replay, MB (of what was sent) | rounds, MB read again | limit, sent MB/s | highest % |\n\
         |---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    let mb = |bytes: u64| bytes as f64 / 1e6;
    for m in all {
        let redo = m.redo.map_or("".to_owned(), |redo| {
            format!("{:.1} ({:.0} %)", mb(redo), redo as f64 * 100.0 / m.wire.max(1) as f64)
        });
        let rounds =
            m.rounds.map_or("".to_owned(), |rounds| format!("{rounds}, {:.1}", mb(m.reread.unwrap_or(0))));
        let limit = m.limit.map_or("".to_owned(), |limit| format!("{:.2}, {:.2}", mb(limit), m.sent / 1e6));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.1}{} | {:.1} | {:.1} ({:.0} %) | {:.1} | {:.0} | {redo} | {rounds} | {limit} | {} |",
            m.case,
            m.server.split('-').next().unwrap_or_default().rsplit(' ').next().unwrap_or_default(),
            m.method,
            m.seconds,
            if m.ended { String::new() } else { format!(" ({})", m.ended_by()) },
            m.transfer,
            m.recovery,
            m.recovery * 100.0 / m.seconds,
            mb(m.wire),
            mb(m.redo_waited),
            m.percent.map_or("".to_owned(), |percent| percent.to_string()),
        );
    }
    text
}

/// The highest percentage in the status files of both nodes, read again and again.
pub struct Progressed(Watcher<Highest>);

struct Highest {
    readers: [StatusReader; 2],
    percent: Option<u64>,
}

impl Progressed {
    pub fn watch(donor: &Node, joiner: &Node) -> Result<Progressed> {
        let readers = [donor, joiner].map(StatusReader::of_next);
        let highest = Highest { readers, percent: None };
        Watcher::start("progress", Duration::from_millis(100), highest, Highest::look).map(Progressed)
    }

    pub fn stop(self) -> Result<Option<u64>> {
        Ok(self.0.stop()?.percent)
    }
}

impl Highest {
    fn look(&mut self) {
        let statuses = self.readers.iter().filter_map(StatusReader::read);
        let percents = statuses.filter(|s| s.total_bytes > 0).map(|s| s.done_bytes * 100 / s.total_bytes);
        self.percent = percents.chain(self.percent).max();
    }
}

/// Of a line about the progress.
fn percent_in(line: &str) -> Option<u64> {
    line.split_once(" % of ")?.0.rsplit(' ').next()?.parse().ok()
}

/// As the program says it: `12.3 MiB`.
fn bytes(text: &str) -> Option<u64> {
    let mut words = text.split_whitespace();
    progress::bytes(words.next()?, words.next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_time_is_a_result_and_an_error_of_ours_is_not() {
        let counted = Counted { redo_waited: 7, wire: 10_000_000, percent: Some(68) };
        let broken = |given_up, log| {
            let took = (Duration::from_secs(10), given_up);
            Measured::broken("a case", Method::Rejoin, "11.8", &counted, took, log)
        };
        let log = "x WSREP_SST: [INFO] sending: 70 % of 1.0 GiB\n\
                   x WSREP_SST: [ERROR] the transfer took longer than max-time=10 under [sst] on this node allows\n";
        let measured = broken(false, log).unwrap();
        assert_eq!((measured.how, measured.percent, measured.sent), ("max-time", Some(70), 1e6));
        assert!(table(&[measured]).contains("| 10.0 (ended by max-time) |"));
        assert_eq!(broken(true, "").unwrap().how, "the lab");
        let log = "x WSREP_SST: [ERROR] the link is lost\n";
        assert!(broken(false, log).is_none());
        let took = (Duration::from_secs(10), false);
        let others = Measured::broken("a case", Method::Mariabackup, "11.8", &counted, took, log).unwrap();
        assert_eq!(others.ended_by(), "ended by an error of its own");
    }

    #[test]
    fn what_the_program_says_is_read() {
        assert_eq!(bytes(" 12.5 MiB of it"), Some(13_107_200));
        assert_eq!(bytes("17 B"), Some(17));
        assert_eq!(bytes("many"), None);
        assert_eq!(percent_in("[INFO] sending: 82 % of 1.0 GiB"), Some(82));
    }
}
