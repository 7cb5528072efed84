//! The measurements of all transfers, a row for each size.

use super::transfer::Transfer;
use super::{FILLERS, SYSBENCH_TABLES, Size};
use crate::commands::bench::ceilings::Ceilings;
use crate::commands::bench::limit::Nearness;
use crate::commands::median;

/// Of all transfers at one size.
pub struct Row {
    pub size: Size,
    /// What the machine can do, where that was measured.
    pub ceilings: Option<Ceilings>,
    pub all: Vec<Transfer>,
}

const HEAD: &str = "
| data, MB | tables | pause ms (of it granting) | x | longest commit ms | x | CPU s: empty, again | donor MB | joiner MB: empty, again | donor's page cache MB: before, after | transfer s: empty, again | MB/s, empty | limit of it, % | to Synced s: empty, again |
|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|";

const NOTES: &str = "
x: of the first row's. CPU: of both hosts' programs. Memory: the most that one program had. Page cache: of the donor's data,
before the first transfer and after the last one. The limit: which of disk and processors the machine came nearest to while an
empty node received, both against what was measured before.";

pub fn print(rows: &[Row]) {
    println!("{HEAD}");
    for row in rows {
        println!("{}", row.line(&rows[0], rows));
    }
    println!("{NOTES}");
}

impl Row {
    fn line(&self, few: &Row, rows: &[Row]) -> String {
        let (pause, client) = (self.median(|t| t.pause), self.median(|t| t.client));
        let most = |of: fn(&Transfer) -> u64| self.all.iter().map(of).max().unwrap_or_default() as f64 / 1e6;
        let megabytes = |bytes: Option<u64>| bytes.unwrap_or_default() as f64 / 1e6;
        format!(
            "| {:.0} | {} | {pause:.1} ({:.1}) | {:.2} | {client:.1} | {:.2} | {} | {:.0} | {} | {:.0}, {:.0} | {} | {:.0} | {} | {} |",
            most(|t| t.data),
            self.tables(rows),
            self.median(|t| t.granted),
            pause / few.median(|t| t.pause),
            client / few.median(|t| t.client),
            self.both(|t| t.cpu, 1),
            most(|t| t.donor),
            self.both(|t| t.joiner as f64 / 1e6, 0),
            megabytes(self.all.first().map(|t| t.cached[0])),
            megabytes(self.all.last().map(|t| t.cached[1])),
            self.both(|t| t.used.seconds, 1),
            self.empty(|t| t.data as f64 / 1e6 / t.used.seconds),
            self.limit(),
            self.both(|t| t.synced, 1),
        )
    }

    /// Tables beside the server's own; every size of megabytes has added some.
    fn tables(&self, rows: &[Row]) -> u64 {
        match self.size {
            Size::Tables(tables) => u64::from(tables + SYSBENCH_TABLES),
            Size::Megabytes(to) => {
                let steps = rows
                    .iter()
                    .filter(|row| matches!(row.size, Size::Megabytes(megabytes) if megabytes <= to));
                steps.count() as u64 * FILLERS + u64::from(SYSBENCH_TABLES)
            }
        }
    }

    fn limit(&self) -> String {
        let first = self.all.iter().find(|transfer| transfer.empty);
        let Some((ceilings, transfer)) = self.ceilings.as_ref().zip(first) else { return "-".to_owned() };
        // Over loopback the network is no limit of its own.
        Nearness::of(&transfer.used, 0, ceilings).to_string()
    }

    fn median(&self, of: impl Fn(&Transfer) -> f64) -> f64 {
        median(self.all.iter().map(of))
    }

    fn empty(&self, of: impl Fn(&Transfer) -> f64) -> f64 {
        median(self.all.iter().filter(|t| t.empty).map(of))
    }

    fn both(&self, of: impl Fn(&Transfer) -> f64, digits: usize) -> String {
        let again: Vec<f64> = self.all.iter().filter(|t| !t.empty).map(&of).collect();
        let empty = self.empty(&of);
        if again.is_empty() {
            return format!("{empty:.digits$}, -");
        }
        format!("{empty:.digits$}, {:.digits$}", median(again))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::ceilings::Disk;
    use crate::commands::bench::samples::Used;

    fn transfer(empty: bool, seconds: f64) -> Transfer {
        Transfer {
            empty,
            pause: 10.0 * seconds,
            granted: 1.0,
            client: 20.0,
            cpu: 2.0,
            donor: 30_000_000,
            joiner: 20_000_000,
            cached: [1_000_000, 2_000_000],
            data: 1_000_000_000,
            used: Used { seconds, disk: Some((1e9, 1e9)), busy: seconds },
            synced: seconds + 1.0,
        }
    }

    #[test]
    fn sizes_stand_beside_numbers_of_tables() {
        let ceilings = Ceilings { disk: Some(Disk { read: 2e9, write: 1e9 }), link: None, processors: 2 };
        let few = Row { size: Size::Tables(10), ceilings: None, all: vec![transfer(true, 1.0)] };
        let all = vec![transfer(true, 2.0), transfer(false, 0.5)];
        let rows = [few, Row { size: Size::Megabytes(1000), ceilings: Some(ceilings), all }];
        let cells = |row: &Row| -> Vec<String> {
            row.line(&rows[0], &rows).split('|').map(|cell| cell.trim().to_owned()).collect()
        };
        let (first, second) = (cells(&rows[0]), cells(&rows[1]));
        assert_eq!(first.len(), HEAD.lines().nth(1).unwrap().split('|').count());
        assert_eq!(&first[1..5], ["1000", "12", "10.0 (1.0)", "1.00"]);
        assert_eq!(&first[11..15], ["1.0, -", "1000", "-", "2.0, -"]);
        assert_eq!(&second[1..5], ["1000", "6", "20.0 (1.0)", "2.00"]);
        assert_eq!(&second[10..15], ["1, 2", "2.0, 0.5", "500", "disk 75 %, processors 50 %", "3.0, 1.5"]);
    }
}
