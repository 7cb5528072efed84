//! The grid's results: a table, and JSON, whose keys docs/figures.md has; a unit is part of a key's name.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Trial, Trials};
use crate::commands::storm::figures::spread;

/// The version of the keys. A new key does not change it; one with another meaning does.
const VERSION: u32 = 1;
/// What the program's own choice may take at most, of the best fixed choice's seconds to Synced.
const GOAL: f64 = 1.1;

/// A run.
#[derive(Debug, Serialize)]
pub struct Results {
    version: u32,
    machine: String,
    cells: Vec<CellRecord>,
}

/// One link with one share of pages that differ.
#[derive(Debug, Serialize)]
pub struct CellRecord {
    pub link: &'static str,
    pub link_bytes_per_second: Option<u64>,
    pub link_round_trip_seconds: Option<f64>,
    pub data_bytes: u64,
    pub pages_asked: f64,
    pub pages_differing: f64,
    pub methods: Vec<MethodRecord>,
    pub synced_of_best_fixed: Option<f64>,
    pub transfer_of_best_fixed: Option<f64>,
}

/// The medians of a method's turns, and the turns.
#[derive(Debug, Serialize)]
pub struct MethodRecord {
    pub method: &'static str,
    pub synced_seconds: f64,
    pub transfer_seconds: f64,
    pub network_bytes: u64,
    pub turns: Vec<TurnRecord>,
}

/// One join.
#[derive(Debug, Serialize)]
pub struct TurnRecord {
    pub synced_seconds: f64,
    pub transfer_seconds: f64,
    pub network_bytes: u64,
}

impl Results {
    pub fn new(machine: String, cells: Vec<CellRecord>) -> Self {
        Self { version: VERSION, machine, cells }
    }
}

impl MethodRecord {
    /// `None` without a turn.
    pub fn of(trials: &Trials) -> Option<Self> {
        let turn = |trial: &Trial| TurnRecord {
            synced_seconds: trial.to_synced(),
            transfer_seconds: trial.transfer(),
            network_bytes: trial.wire() as u64,
        };
        Some(Self {
            method: trials.0.first()?.contender.name(),
            synced_seconds: trials.median(Trial::to_synced),
            transfer_seconds: trials.median(Trial::transfer),
            network_bytes: trials.median(Trial::wire) as u64,
            turns: trials.0.iter().map(turn).collect(),
        })
    }

    /// Seconds to Synced, of the transfer, and megabytes, which are to be the same in each turn.
    fn text(&self) -> String {
        let megabytes: Vec<f64> = self.turns.iter().map(|turn| turn.network_bytes as f64 / 1e6).collect();
        let range = match spread(megabytes) {
            Some([least, _, most]) if self.turns.len() > 1 => format!(" ({least:.0} to {most:.0})"),
            _ => String::new(),
        };
        format!(
            "{:.1} ({:.1}), {:.0} MB{range}",
            self.synced_seconds,
            self.transfer_seconds,
            self.network_bytes as f64 / 1e6
        )
    }
}

/// A row for each place of the grid, which all have the same methods, and what they say of the goal.
pub fn table(cells: &[CellRecord]) -> String {
    let methods = cells.first().map_or(&[][..], |cell| &cell.methods);
    let names: Vec<&str> = methods.iter().map(|method| method.method).collect();
    let mut out = format!(
        "| link | data, MB | pages that differ | turns | {} | by itself, of the best fixed one |\n|---|---:|---:|---:|{}---:|\n",
        names.join(" | "),
        "---:|".repeat(names.len())
    );
    for cell in cells {
        let texts: Vec<String> = cell.methods.iter().map(MethodRecord::text).collect();
        let _ = writeln!(
            out,
            "| {} | {:.0} | {:.0} % ({:.1} %) | {} | {} | {} |",
            cell.link,
            cell.data_bytes as f64 / 1e6,
            cell.pages_asked * 100.0,
            cell.pages_differing * 100.0,
            cell.methods.first().map_or(0, |method| method.turns.len()),
            texts.join(" | "),
            cell.ratios()
        );
    }
    out + "\nSeconds to Synced, of them the transfer in brackets, and MB on the network with the least and the most of the turns. \
        Pages that differ: what was asked for, and what was counted afterwards.\n"
        + &goal(cells)
}

impl CellRecord {
    fn ratios(&self) -> String {
        let both = self.synced_of_best_fixed.zip(self.transfer_of_best_fixed);
        both.map_or("-".to_owned(), |(synced, transfer)| format!("{synced:.2} ({transfer:.2})"))
    }
}

/// Empty where there was nothing to compare with.
fn goal(cells: &[CellRecord]) -> String {
    let known: Vec<(f64, &CellRecord)> =
        cells.iter().filter_map(|cell| Some((cell.synced_of_best_fixed?, cell))).collect();
    let Some((worst, cell)) = known.iter().max_by(|a, b| a.0.total_cmp(&b.0)) else { return String::new() };
    let reached = known.iter().filter(|(ratio, _)| *ratio <= GOAL).count();
    format!(
        "Goal, at most {GOAL} of the best fixed choice's seconds to Synced: reached in {reached} of {}; the highest is {worst:.2} \
         ({}, {:.0} % of the pages).\n",
        known.len(),
        cell.link,
        cell.pages_asked * 100.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::results::tests::assert_documented;

    fn method(method: &'static str, all: &[f64]) -> MethodRecord {
        let turn = |seconds: &f64| TurnRecord {
            synced_seconds: *seconds,
            transfer_seconds: *seconds - 1.0,
            network_bytes: (*seconds * 1e7) as u64,
        };
        let turns: Vec<TurnRecord> = all.iter().map(turn).collect();
        let TurnRecord { synced_seconds, transfer_seconds, network_bytes } = turn(&all[all.len() / 2]);
        MethodRecord { method, synced_seconds, transfer_seconds, network_bytes, turns }
    }

    fn cell(link: &'static str, ratio: Option<f64>) -> CellRecord {
        CellRecord {
            link,
            link_bytes_per_second: Some(125_000_000),
            link_round_trip_seconds: None,
            data_bytes: 230_000_000,
            pages_asked: 0.4,
            pages_differing: 0.385,
            methods: vec![method("rejoin", &[2.0, 3.0, 5.0]), method("rejoin, delta=page", &[2.5])],
            synced_of_best_fixed: ratio,
            transfer_of_best_fixed: ratio.map(|ratio| ratio + 0.05),
        }
    }

    #[test]
    fn a_row_has_medians_the_range_of_bytes_and_the_ratio() {
        let text = table(&[cell("1 Gbit/s", Some(1.2)), cell("loopback", Some(1.0))]);
        let lines: Vec<&str> = text.lines().collect();
        let row = "| 1 Gbit/s | 230 | 40 % (38.5 %) | 3 | 3.0 (2.0), 30 MB (20 to 50) | 2.5 (1.5), 25 MB | 1.20 (1.25) |";
        assert_eq!(lines[2], row);
        assert_eq!(lines[0].matches('|').count(), row.matches('|').count());
        assert_eq!(lines[1].matches('|').count(), row.matches('|').count());
        assert!(
            text.contains("reached in 1 of 2; the highest is 1.20 (1 Gbit/s, 40 % of the pages)"),
            "{text}"
        );
        assert!(!table(&[cell("loopback", None)]).contains("Goal"));
    }

    #[test]
    fn every_key_is_documented() {
        let results = Results::new("machine".to_owned(), vec![cell("loopback", Some(1.0))]);
        let json = serde_json::to_value(&results).unwrap();
        assert_eq!(json["cells"][0]["methods"][0]["turns"][2]["synced_seconds"], 5.0);
        assert_documented(json);
    }
}
