//! The rows of the table: what each is called, and its value in one trial.

use std::time::Duration;

use super::fixture::Felt;
use super::trial::{Clients, Trial};

/// A row.
pub struct Row {
    pub name: &'static str,
    pub digits: usize,
    pub value: fn(&Trial) -> Option<f64>,
}

const fn row(name: &'static str, digits: usize, value: fn(&Trial) -> Option<f64>) -> Row {
    Row { name, digits, value }
}

/// Of every case; a row that has no values in one is left out there.
pub const ALWAYS: [Row; 28] = [
    row("start to Synced, s", 1, |t| seconds(t.observed.took)),
    row("of that before the method's program runs, s", 1, |t| seconds(t.observed.before().ok()?)),
    row("of that the transfer (SST), s", 1, |t| seconds(t.observed.sst().ok()?)),
    row("of that fixed sleeps, s [1]", 1, |t| seconds(t.observed.asleep()?)),
    row("of that `mariabackup --prepare`, s", 1, |t| seconds(t.observed.prepare()?)),
    row("recovery by the joiner's server, s [2]", 1, |t| seconds(t.observed.recovery().ok()?)),
    row("MB on the network [3]", 0, |t| megabytes(t.wire)),
    row("CPU of the programs, both hosts, s [4]", 1, |t| Some(t.programs)),
    row("... for each GB of data", 1, |t| Some(t.programs / (t.data as f64 / 1e9))),
    row("CPU of the donor's server, s [5]", 1, |t| Some(t.server)),
    row("peak memory of the donor's programs, MB [6]", 0, |t| megabytes(t.memory[0])),
    row("peak memory of the joiner's programs, MB [6]", 0, |t| megabytes(t.memory[1])),
    row("MB of the donor's data in the page cache, before", 0, |t| megabytes(t.cached[0])),
    row("... after", 0, |t| megabytes(t.cached[1])),
    row("MB that the donor's program read of its files", 0, |t| megabytes(t.counted?[0].read)),
    row("... and remembered", 0, |t| megabytes(t.counted?[0].remembered)),
    row("MB that the joiner's program read of its files", 0, |t| megabytes(t.counted?[1].read)),
    row("... and remembered", 0, |t| megabytes(t.counted?[1].remembered)),
    row("disk during the transfer, % [8]", 0, |t| percent(t.transfer_nearness().disk?)),
    row("link during the transfer, % [8]", 0, |t| percent(t.transfer_nearness().link?)),
    row("processors during the transfer, % [8]", 0, |t| percent(t.transfer_nearness().processor)),
    row("disk from start to Synced, % [8]", 0, |t| percent(t.synced_nearness().disk?)),
    row("link from start to Synced, % [8]", 0, |t| percent(t.synced_nearness().link?)),
    row("processors from start to Synced, % [8]", 0, |t| percent(t.synced_nearness().processor)),
    row("MB of data a second of the transfer", 0, |t| Some(rate(t)? / 1e6)),
    row("... of the slowest of disk read, link, disk write, %", 0, |t| percent(of_slowest(t)?)),
    row("seconds of `cat` of the slower node : the transfer's, % [9]", 0, |t| percent(of_cat(t)?)),
    row("... of both nodes at once", 0, |t| percent(t.cat?.both / t.transfer.seconds)),
];

/// Where clients write.
pub const LOADED: [Row; 10] = [
    row("longest commit on the donor, ms: without a join", 0, |t| felt(t, |c| ms(c.calm.0.donor.longest))),
    row("... while the donor gave [7]", 0, |t| felt(t, |c| ms(c.given))),
    row("... from the joiner's start to Synced", 0, |t| felt(t, |c| ms(c.during.0.donor.longest))),
    row("p99 on the donor, ms: without a join", 1, |t| felt(t, |c| ms(c.calm.0.donor.p99))),
    row("... from the joiner's start to Synced", 1, |t| felt(t, |c| ms(c.during.0.donor.p99))),
    row("longest commit on the other node, ms: without a join", 0, |t| {
        felt(t, |c| ms(c.calm.0.other.longest))
    }),
    row("... from the joiner's start to Synced", 0, |t| felt(t, |c| ms(c.during.0.other.longest))),
    row("p99 on the other node, ms: without a join", 1, |t| felt(t, |c| ms(c.calm.0.other.p99))),
    row("... from the joiner's start to Synced", 1, |t| felt(t, |c| ms(c.during.0.other.p99))),
    row("commits a second on the donor, of those without a join, %", 0, |t| felt(t, kept)),
];

/// Bytes of data a second, where all of it is sent.
pub fn rate(trial: &Trial) -> Option<f64> {
    trial.case.is_full().then(|| trial.data as f64 / trial.transfer.seconds)
}

/// Of the slowest of what all bytes have to pass.
pub fn of_slowest(trial: &Trial) -> Option<f64> {
    Some(rate(trial)? / trial.ceilings.slowest()?)
}

/// Of the seconds that reading the slower node's files takes.
pub fn of_cat(trial: &Trial) -> Option<f64> {
    let cat = trial.cat?;
    Some(cat.donor.max(cat.joiner) / trial.transfer.seconds)
}

fn seconds(duration: Duration) -> Option<f64> {
    Some(duration.as_secs_f64())
}

fn megabytes(bytes: u64) -> Option<f64> {
    Some(bytes as f64 / 1e6)
}

fn percent(part: f64) -> Option<f64> {
    Some(part * 100.0)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn felt(trial: &Trial, value: fn(&Clients) -> f64) -> Option<f64> {
    trial.clients.as_ref().map(value)
}

/// Of the donor's commits a second, how many were left: in percent.
fn kept(clients: &Clients) -> f64 {
    let rate = |(felt, time): &(Felt, Duration)| felt.donor.commits as f64 / time.as_secs_f64();
    100.0 * rate(&clients.during) / rate(&clients.calm)
}
