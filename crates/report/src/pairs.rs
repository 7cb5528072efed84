//! Which records are of one transfer.
use std::cmp::Reverse;
use std::collections::HashMap;

use crate::record::{Method, Record};

/// A transfer, as one or both hosts saw it.
#[derive(Clone, Debug, Default)]
pub struct Transfer {
    /// The joiner's record.
    pub joiner: Option<Record>,
    /// The donor's record.
    pub donor: Option<Record>,
}

impl Transfer {
    /// Both records, the donor's first.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.donor.iter().chain(&self.joiner)
    }

    /// The record that tells how long the node was away: the joiner's, if it is there.
    pub fn main(&self) -> &Record {
        static NONE: std::sync::LazyLock<Record> = std::sync::LazyLock::new(Record::default);
        self.joiner.as_ref().or(self.donor.as_ref()).unwrap_or(&NONE)
    }

    /// How much is added to the donor's times to have them by the joiner's clock. Both know when the control connection was
    /// made.
    pub fn donors_clock_is_behind_ms(&self) -> i128 {
        let connected = |record: &Option<Record>| record.as_ref().and_then(|record| record.connected_ms);
        match (connected(&self.joiner), connected(&self.donor)) {
            (Some(joiner), Some(donor)) => i128::from(joiner) - i128::from(donor),
            _ => 0,
        }
    }

    /// What was sent.
    pub fn method(&self) -> Option<Method> {
        self.records().find_map(|record| record.method)
    }

    /// The plan: the donor's, which has all estimates.
    pub fn plan(&self) -> Option<&crate::record::Plan> {
        self.records().find_map(|record| record.plan.as_ref())
    }

    /// Whether no host noted a failure.
    pub fn is_ok(&self) -> bool {
        self.records().all(Record::is_ok)
    }
}

/// Pairs the records of each transfer, the oldest transfer first. A record that is there twice counts once.
pub fn pair(records: Vec<Record>) -> Vec<Transfer> {
    let mut transfers: Vec<Transfer> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut records = records;
    // Of two versions of a record, the later one counts.
    records.sort_by_key(|record| Reverse(record.written_ms));
    for record in records {
        let at = record.id.as_ref().and_then(|id| known.get(id)).and_then(|at| transfers.get_mut(*at));
        let Some(transfer) = at else {
            let same = |other: &Record| {
                other.id.is_none()
                    && other.role == record.role
                    && other.node == record.node
                    && other.began_ms == record.began_ms
            };
            if record.id.is_none() && transfers.iter().flat_map(Transfer::records).any(same) {
                continue;
            }
            if let Some(id) = &record.id {
                known.insert(id.clone(), transfers.len());
            }
            let mut transfer = Transfer::default();
            put(&mut transfer, record);
            transfers.push(transfer);
            continue;
        };
        put(transfer, record);
    }
    transfers.sort_by_key(|transfer| transfer.main().began_ms);
    transfers
}

fn put(transfer: &mut Transfer, record: Record) {
    let place = if record.role == "donor" { &mut transfer.donor } else { &mut transfer.joiner };
    if place.is_none() {
        *place = Some(record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(role: &str, id: Option<&str>, began_ms: u64) -> Record {
        Record {
            role: role.to_owned(),
            id: id.map(str::to_owned),
            began_ms,
            connected_ms: Some(began_ms + 10),
            ..Record::default()
        }
    }

    #[test]
    fn both_hosts_of_a_transfer_are_one() {
        let records = vec![
            record("joiner", Some("b"), 2000),
            record("donor", Some("a"), 900),
            record("joiner", Some("a"), 1000),
            record("joiner", Some("a"), 1000),
            record("joiner", None, 3000),
            record("joiner", None, 3000),
        ];
        let pairs = pair(records);
        let seen: Vec<(bool, bool, u64)> =
            pairs.iter().map(|t| (t.joiner.is_some(), t.donor.is_some(), t.main().began_ms)).collect();
        assert_eq!(seen, [(true, true, 1000), (true, false, 2000), (true, false, 3000)]);
        assert_eq!(pairs[0].donors_clock_is_behind_ms(), 100);
        assert_eq!(pairs[1].donors_clock_is_behind_ms(), 0);
    }
}
