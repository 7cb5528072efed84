//! The results as JSON, for programs that compare runs. docs/figures.md documents every key; a unit is part of its name.

use serde::Serialize;

use super::ceilings::Ceilings;
use super::contender::Case;
use super::fixture::Cat;
use super::limit::{Limit, Nearness};
use super::samples::Used;
use super::trial::{Clients, Trial};

/// The version of the keys. A new key does not change it; one with another meaning does.
const VERSION: u32 = 1;

/// A run.
#[derive(Debug, Serialize)]
pub struct Results {
    pub version: u32,
    pub machine: String,
    pub settings: Vec<String>,
    pub data_bytes: u64,
    /// The page cache had nothing of the files before each join.
    pub cold: bool,
    pub ceilings: CeilingRecord,
    pub trials: Vec<TrialRecord>,
}

#[derive(Debug, Serialize)]
pub struct CeilingRecord {
    pub disk_read_bytes_per_second: Option<f64>,
    pub disk_write_bytes_per_second: Option<f64>,
    pub link_bytes_per_second: Option<f64>,
    pub link_round_trip_seconds: Option<f64>,
    pub processors: usize,
}

/// One join.
#[derive(Debug, Clone, Serialize)]
pub struct TrialRecord {
    pub case: Case,
    pub method: &'static str,
    pub repetition: u32,
    pub synced_seconds: f64,
    pub before_seconds: Option<f64>,
    pub transfer_seconds: f64,
    pub asleep_seconds: Option<f64>,
    pub prepare_seconds: Option<f64>,
    pub recovery_seconds: Option<f64>,
    pub network_bytes: u64,
    pub programs_cpu_seconds: f64,
    pub donor_server_cpu_seconds: f64,
    pub donor_memory_bytes: u64,
    pub joiner_memory_bytes: u64,
    pub donor_cached_before_bytes: u64,
    pub donor_cached_after_bytes: u64,
    pub donor_read_bytes: Option<u64>,
    pub donor_remembered_bytes: Option<u64>,
    pub joiner_read_bytes: Option<u64>,
    pub joiner_remembered_bytes: Option<u64>,
    /// During the transfer, and from the joiner's start to Synced.
    pub transfer: PhaseRecord,
    pub synced: PhaseRecord,
    pub cat: Option<CatRecord>,
    pub clients: Option<ClientsRecord>,
}

/// What the machine did in a part of a join, and how near that is to its ceilings: 1 is the ceiling.
#[derive(Debug, Clone, Serialize)]
pub struct PhaseRecord {
    pub disk_read_bytes: Option<f64>,
    pub disk_written_bytes: Option<f64>,
    pub processor_seconds: f64,
    pub disk: Option<f64>,
    pub link: Option<f64>,
    pub processor: f64,
    pub limit: Limit,
}

#[derive(Debug, Clone, Serialize)]
pub struct CatRecord {
    pub donor_seconds: f64,
    pub joiner_seconds: f64,
    pub both_seconds: f64,
}

#[derive(Debug, Clone, Serialize)]
pub struct ClientsRecord {
    pub donor_longest_calm_seconds: f64,
    pub donor_longest_given_seconds: f64,
    pub donor_longest_seconds: f64,
    pub donor_p99_calm_seconds: f64,
    pub donor_p99_seconds: f64,
    pub other_p99_calm_seconds: f64,
    pub other_p99_seconds: f64,
    pub donor_commits_calm_per_second: f64,
    pub donor_commits_per_second: f64,
}

impl Results {
    pub fn new(machine: String, settings: Vec<String>, data: u64, cold: bool, ceilings: &Ceilings) -> Self {
        let ceilings = CeilingRecord {
            disk_read_bytes_per_second: ceilings.disk.map(|disk| disk.read),
            disk_write_bytes_per_second: ceilings.disk.map(|disk| disk.write),
            link_bytes_per_second: ceilings.link.map(|link| link.rate as f64),
            link_round_trip_seconds: ceilings.link.and_then(|link| Some(link.round_trip?.as_secs_f64())),
            processors: ceilings.processors,
        };
        Self { version: VERSION, machine, settings, data_bytes: data, cold, ceilings, trials: Vec::new() }
    }
}

impl TrialRecord {
    pub fn of(trial: &Trial) -> Self {
        let seconds = |time: std::time::Duration| time.as_secs_f64();
        let observed = &trial.observed;
        let [donor, joiner] = match trial.counted {
            Some(both) => both.map(Some),
            None => [None; 2],
        };
        Self {
            case: trial.case,
            method: trial.contender.name(),
            repetition: trial.repetition,
            synced_seconds: seconds(observed.took),
            before_seconds: observed.before().ok().map(seconds),
            transfer_seconds: trial.transfer.seconds,
            asleep_seconds: observed.asleep().map(seconds),
            prepare_seconds: observed.prepare().map(seconds),
            recovery_seconds: observed.recovery().ok().map(seconds),
            network_bytes: trial.wire,
            programs_cpu_seconds: trial.programs,
            donor_server_cpu_seconds: trial.server,
            donor_memory_bytes: trial.memory[0],
            joiner_memory_bytes: trial.memory[1],
            donor_cached_before_bytes: trial.cached[0],
            donor_cached_after_bytes: trial.cached[1],
            donor_read_bytes: donor.map(|host| host.read),
            donor_remembered_bytes: donor.map(|host| host.remembered),
            joiner_read_bytes: joiner.map(|host| host.read),
            joiner_remembered_bytes: joiner.map(|host| host.remembered),
            transfer: PhaseRecord::of(&trial.transfer, trial.transfer_nearness()),
            synced: PhaseRecord::of(&trial.synced, trial.synced_nearness()),
            cat: trial.cat.map(CatRecord::of),
            clients: trial.clients.as_ref().map(ClientsRecord::of),
        }
    }
}

impl PhaseRecord {
    fn of(used: &Used, near: Nearness) -> Self {
        Self {
            disk_read_bytes: used.disk.map(|(read, _)| read),
            disk_written_bytes: used.disk.map(|(_, written)| written),
            processor_seconds: used.busy,
            disk: near.disk,
            link: near.link,
            processor: near.processor,
            limit: near.nearest().0,
        }
    }

    /// The limit, and how near it was.
    pub fn nearest(&self) -> String {
        let (limit, near) =
            Nearness { disk: self.disk, link: self.link, processor: self.processor }.nearest();
        format!("{limit} {:.0} %", near * 100.0)
    }
}

impl CatRecord {
    fn of(cat: Cat) -> Self {
        Self { donor_seconds: cat.donor, joiner_seconds: cat.joiner, both_seconds: cat.both }
    }
}

impl ClientsRecord {
    fn of(clients: &Clients) -> Self {
        let ((calm, calm_time), (during, time)) = (&clients.calm, &clients.during);
        let rate = |commits: u64, time: &std::time::Duration| commits as f64 / time.as_secs_f64();
        Self {
            donor_longest_calm_seconds: calm.donor.longest.as_secs_f64(),
            donor_longest_given_seconds: clients.given.as_secs_f64(),
            donor_longest_seconds: during.donor.longest.as_secs_f64(),
            donor_p99_calm_seconds: calm.donor.p99.as_secs_f64(),
            donor_p99_seconds: during.donor.p99.as_secs_f64(),
            other_p99_calm_seconds: calm.other.p99.as_secs_f64(),
            other_p99_seconds: during.other.p99.as_secs_f64(),
            donor_commits_calm_per_second: rate(calm.donor.commits, calm_time),
            donor_commits_per_second: rate(during.donor.commits, time),
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::commands::bench::ceilings::Disk;
    use serde_json::Value;

    const CEILINGS: Ceilings =
        Ceilings { disk: Some(Disk { read: 2e9, write: 1e9 }), link: None, processors: 2 };

    /// A join that took so many seconds.
    pub fn record(case: Case, method: &'static str, repetition: u32, seconds: f64) -> TrialRecord {
        let used = Used { seconds, disk: Some((1e9, 1e9)), busy: seconds };
        let phase = PhaseRecord::of(&used, Nearness::of(&used, 0, &CEILINGS));
        let cat = CatRecord::of(Cat { donor: 0.5, joiner: 0.6, both: 1.0 });
        TrialRecord {
            case,
            method,
            repetition,
            synced_seconds: seconds,
            before_seconds: Some(seconds * 0.2),
            transfer_seconds: seconds * 0.5,
            asleep_seconds: None,
            prepare_seconds: None,
            recovery_seconds: Some(seconds * 0.1),
            network_bytes: 1,
            programs_cpu_seconds: 1.0,
            donor_server_cpu_seconds: 1.0,
            donor_memory_bytes: 1,
            joiner_memory_bytes: 1,
            donor_cached_before_bytes: 1,
            donor_cached_after_bytes: 1,
            donor_read_bytes: Some(1),
            donor_remembered_bytes: Some(1),
            joiner_read_bytes: None,
            joiner_remembered_bytes: None,
            transfer: phase.clone(),
            synced: phase,
            cat: (case == Case::Same).then_some(cat),
            clients: (case == Case::Loaded).then_some(ClientsRecord {
                donor_longest_calm_seconds: 0.1,
                donor_longest_given_seconds: 0.1,
                donor_longest_seconds: 0.1,
                donor_p99_calm_seconds: 0.1,
                donor_p99_seconds: 0.1,
                other_p99_calm_seconds: 0.1,
                other_p99_seconds: 0.1,
                donor_commits_calm_per_second: 1.0,
                donor_commits_per_second: 1.0,
            }),
        }
    }

    fn json() -> Value {
        let mut results = Results::new("machine".to_owned(), vec!["a=1".to_owned()], 7, true, &CEILINGS);
        results.trials = Case::ALL.map(|case| record(case, "rejoin", 1, 2.0)).to_vec();
        serde_json::to_value(&results).unwrap()
    }

    #[test]
    fn a_program_finds_version_ceilings_and_limits() {
        let json = json();
        assert_eq!(json["version"], VERSION);
        assert_eq!(json["ceilings"]["disk_write_bytes_per_second"], 1e9);
        assert_eq!(json["ceilings"]["link_bytes_per_second"], Value::Null);
        let trial = &json["trials"][0];
        assert_eq!(trial["case"], "full");
        assert_eq!(trial["method"], "rejoin");
        assert_eq!(trial["transfer"]["limit"], "disk");
        assert_eq!(trial["transfer"]["disk"], 0.75);
        assert_eq!(trial["cat"], Value::Null);
        assert_eq!(trial["clients"], Value::Null);
        assert_eq!(json["trials"][2]["cat"]["joiner_seconds"], 0.6);
    }

    #[test]
    fn every_key_is_documented() {
        assert_documented(json());
    }

    /// docs/figures.md has each key of this.
    pub fn assert_documented(json: Value) {
        let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/figures.md"));
        let mut left = vec![json];
        while let Some(value) = left.pop() {
            match value {
                Value::Object(keys) => {
                    for (key, value) in keys {
                        assert!(page.contains(&format!("`{key}`")), "docs/figures.md does not know {key}");
                        left.push(value);
                    }
                }
                Value::Array(all) => left.extend(all),
                _ => {}
            }
        }
    }
}
