//! Whether a second was hard for the donor's server, and why. No I/O: it compares what was seen with what was seen before the
//! transfer began to read.
//!
//! # What counts
//! - **Flow control** that this node asked for: the whole cluster waited for it. A donor does not ask for it unless
//!   `gcs.sync_donor=YES`.
//! - **The receive queue** of write-sets that wait to be applied, if it is long and becomes longer: the appliers do
//!   not keep up beside the transfer. While the node is a donor nobody waits for them, but it is not Synced again until
//!   they have caught up. A queue that is long and becomes shorter is no sign of strain. With `gcs.sync_donor=YES` half of the
//!   queue at which the node asks for flow control is as bad as that.
//! - **A log write**: how long the server takes to make its redo log durable. Each commit waits for that unless
//!   `innodb_flush_log_at_trx_commit` says otherwise.
//! - **Disk writes**: the mean time of a write and of a flush on the datadir's disk. The transfer itself only reads
//!   there, so its own requests do not count.
//! - **Waits for a processor** of the server's own threads. The kernel's pressure counts the transfer's threads as well,
//!   so it only confirms the waits and the disk's times; it never counts alone.
//!
//! A server that does nothing for clients or for its cluster is not strained, however long its own threads wait: a
//! checkpoint that the transfer asked for makes them wait on an idle donor.
use std::collections::VecDeque;
use std::time::Duration;

use super::controller::Strain;

/// So many write-sets in the queue are none worth mentioning.
const QUEUE_SHORT: u64 = 100;
/// This part of the queue at which the node makes the others wait is near it.
const NEAR: f64 = 0.5;
/// Over so many seconds the queue is compared.
const QUEUE_OVER: usize = 3;
/// The median of the newest so many seconds counts: one long write is nothing yet.
const TOGETHER: usize = 3;
/// A time is too long if it is this many times what it was before, and longer by this much.
const TIMES: f64 = 2.0;
const LONGER: Duration = Duration::from_millis(4);
/// It is as before if it is less than this many times what it was, or longer by less than this.
const TIMES_CALM: f64 = 1.5;
const LONGER_CALM: Duration = Duration::from_millis(2);
/// The same for waits for a processor, in seconds for each second that the threads ran.
const WAITS: f64 = 0.5;
const WAITS_CALM: f64 = 0.25;
/// Slowing has helped if a value is below this part of what it was.
const HELPED: f64 = 0.85;
/// Fewer requests a second than this are those of monitoring.
const IDLE: f64 = 30.0;
/// Pressure below this, as a part of the time, says that nothing waits.
const PRESSURE: f64 = 0.1;

/// What was seen in one second; `None` where that cannot be seen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Statements of clients and write-sets of other members in each second.
    pub requests: Option<f64>,
    /// Messages of flow control that this node sent.
    pub flow_control: Option<u64>,
    /// Write-sets that wait to be applied.
    pub queue: Option<u64>,
    /// How many may wait before this node makes the others wait; `None` where it never does so as a donor.
    pub queue_limit: Option<u64>,
    /// How long the server took to make its log durable.
    pub log_write: Option<Duration>,
    /// How long a write or a flush of the datadir's disk took, on average.
    pub disk_write: Option<Duration>,
    /// For how many seconds the server's threads waited for a processor, for each second that they ran.
    pub cpu_waits: Option<f64>,
    /// Part of the time in which some thread of the host waited for a processor.
    pub cpu_pressure: Option<f64>,
    /// The same for the disk.
    pub io_pressure: Option<f64>,
}

impl Sample {
    /// Whether the server does something for clients or for its cluster. Without a login that is not known.
    pub fn is_busy(&self) -> bool {
        self.requests.is_none_or(|requests| requests >= IDLE)
    }
}

/// How a second was, and the reason where that is not [`Strain::Calm`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How it was.
    pub strain: Strain,
    /// A sentence.
    pub reason: String,
}

/// Compares samples with how things were before.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    queue: VecDeque<u64>,
    log_write: Trend,
    disk_write: Trend,
    cpu_waits: Trend,
}

/// A value over time.
#[derive(Clone, Debug, Default)]
struct Trend {
    /// What it was before, or the best that it has been since.
    before: Option<f64>,
    newest: VecDeque<f64>,
    /// What it was when nothing was slowed.
    unslowed: Option<f64>,
}

/// What is too much of a value, and what is not.
struct Bounds {
    more: f64,
    more_calm: f64,
}

const TIME: Bounds =
    Bounds { more: LONGER.as_millis() as f64 / 1e3, more_calm: LONGER_CALM.as_millis() as f64 / 1e3 };
const WAIT: Bounds = Bounds { more: WAITS, more_calm: WAITS_CALM };

impl Trend {
    fn median(&mut self) -> Option<f64> {
        let mut sorted = self.newest.make_contiguous().to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len().saturating_sub(1) / 2).copied()
    }

    fn take_as_before(&mut self) {
        self.before = self.median().or(self.before);
    }

    fn is_better_slowed(&mut self) -> bool {
        self.median().zip(self.unslowed).is_some_and(|(now, then)| now < then * HELPED)
    }

    /// The median of the newest seconds, what it was before, and what that means.
    fn take(&mut self, value: f64, bounds: &Bounds) -> (f64, f64, Strain) {
        self.newest.push_back(value);
        if self.newest.len() > TOGETHER {
            self.newest.pop_front();
        }
        let now = self.median().unwrap_or(value);
        // One lucky second does not make all others look bad.
        let full = self.newest.len() == TOGETHER;
        let best = |before: f64| if full { before.min(now) } else { before };
        let before = self.before.map_or(value, best);
        self.before = Some(before);
        let strain = match now {
            now if now > before * TIMES && now > before + bounds.more => Strain::High,
            now if now < before * TIMES_CALM || now < before + bounds.more_calm => Strain::Calm,
            _ => Strain::Some,
        };
        (now, before, strain)
    }
}

impl Judge {
    /// How things were before the transfer began to read: what is known of that.
    pub fn before(&mut self, sample: &Sample) {
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        self.log_write.before = seconds(sample.log_write);
        self.disk_write.before = seconds(sample.disk_write);
        self.cpu_waits.before = sample.cpu_waits;
    }

    /// Takes what was seen in the newest seconds as what it was before.
    pub fn take_as_before(&mut self) {
        self.trends().into_iter().for_each(Trend::take_as_before);
    }

    /// What was seen in the newest seconds is what the transfer does to the server when it is not slowed.
    pub fn take_as_unslowed(&mut self) {
        self.trends().into_iter().for_each(|trend| trend.unslowed = trend.median());
    }

    /// Whether something is better now than when the transfer was not slowed.
    pub fn is_better_slowed(&mut self) -> bool {
        self.trends().into_iter().any(Trend::is_better_slowed)
    }

    fn trends(&mut self) -> [&mut Trend; 3] {
        [&mut self.log_write, &mut self.disk_write, &mut self.cpu_waits]
    }

    /// How the second was in which this was seen. The worst that was seen decides.
    pub fn judge(&mut self, sample: &Sample) -> Verdict {
        let mut seen = vec![Verdict { strain: Strain::Calm, reason: String::new() }];
        seen.extend(sample.flow_control.filter(|sent| *sent > 0).map(|_| Verdict {
            strain: Strain::Severe,
            reason: "this node asked the cluster to wait (flow control)".to_owned(),
        }));
        seen.extend(sample.queue.map(|queue| self.judge_queue(queue, sample.queue_limit)));
        let times = self.judge_times(sample);
        if sample.is_busy() {
            seen.extend(times);
        }
        seen.into_iter()
            .rev()
            .max_by_key(|verdict| verdict.strain)
            .unwrap_or(Verdict { strain: Strain::Calm, reason: String::new() })
    }

    /// What takes longer than before. An idle second is part of the comparison, but nobody waits in it.
    fn judge_times(&mut self, sample: &Sample) -> Vec<Verdict> {
        let mut seen = Vec::new();
        let ms = |(now, before, strain), what: &str| {
            let reason = format!("{what} takes {:.1} ms, {:.1} ms before", now * 1e3, before * 1e3);
            Verdict { strain, reason }
        };
        seen.extend(
            sample.log_write.map(|time| {
                ms(self.log_write.take(time.as_secs_f64(), &TIME), "a write of the server's log")
            }),
        );
        let waits_for_disk = sample.io_pressure.is_none_or(|part| part >= PRESSURE);
        seen.extend(sample.disk_write.map(|time| {
            unless(waits_for_disk, ms(self.disk_write.take(time.as_secs_f64(), &TIME), "a write of the disk"))
        }));
        let waits_for_cpu = sample.cpu_pressure.is_none_or(|part| part >= PRESSURE);
        seen.extend(sample.cpu_waits.map(|waits| {
            let (now, before, strain) = self.cpu_waits.take(waits, &WAIT);
            let reason = format!(
                "the server's threads wait {now:.1} s for a processor for each second that they run, {before:.1} s before"
            );
            unless(waits_for_cpu, Verdict { strain, reason })
        }));
        seen
    }

    fn judge_queue(&mut self, queue: u64, limit: Option<u64>) -> Verdict {
        self.queue.push_back(queue);
        if self.queue.len() > QUEUE_OVER + 1 {
            self.queue.pop_front();
        }
        // A second in which it became a little shorter changes nothing.
        let longest = self.queue.iter().max().copied().unwrap_or(queue);
        let grows = self.queue.len() > QUEUE_OVER
            && queue == longest
            && self.queue.front().is_some_and(|first| *first < queue);
        if let Some(limit) = limit.filter(|limit| queue as f64 >= *limit as f64 * NEAR) {
            let reason = format!(
                "{queue} write-sets wait to be applied, and with {limit} of them this node makes the others wait (flow control)"
            );
            return Verdict { strain: Strain::Severe, reason };
        }
        let strain = match queue {
            0..=QUEUE_SHORT => Strain::Calm,
            _ if grows => Strain::Severe,
            _ => Strain::Some,
        };
        let more = if grows { ", and they become more" } else { "" };
        Verdict { strain, reason: format!("{queue} write-sets wait to be applied{more}") }
    }
}

/// A verdict counts only if the kernel confirms it.
fn unless(confirmed: bool, verdict: Verdict) -> Verdict {
    let strain = if confirmed { verdict.strain } else { Strain::Calm };
    Verdict { strain, ..verdict }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Option<Duration> {
        Some(Duration::from_millis(ms))
    }

    fn strains(judge: &mut Judge, samples: &[Sample]) -> Vec<Strain> {
        samples.iter().map(|sample| judge.judge(sample).strain).collect()
    }

    #[test]
    fn where_nothing_is_seen_all_is_calm() {
        assert_eq!(strains(&mut Judge::default(), &[Sample::default(); 9]), [Strain::Calm; 9]);
    }

    #[test]
    fn a_queue_counts_if_it_is_long_and_grows() {
        let of = |queues: &[u64]| {
            let samples: Vec<Sample> =
                queues.iter().map(|queue| Sample { queue: Some(*queue), ..Sample::default() }).collect();
            strains(&mut Judge::default(), &samples).last().copied()
        };
        assert_eq!(of(&[0, 30, 60, 90]), Some(Strain::Calm));
        assert_eq!(of(&[0, 200, 400, 600]), Some(Strain::Severe));
        assert_eq!(of(&[0, 200, 400]), Some(Strain::Some), "not for long enough");
        assert_eq!(of(&[900, 800, 700, 600]), Some(Strain::Some), "it becomes shorter");
        assert_eq!(of(&[900, 500, 200, 90]), Some(Strain::Calm));
        assert_eq!(of(&[500, 800, 790, 1200]), Some(Strain::Severe), "it grows, with one second of rest");
        assert_eq!(of(&[500, 800, 1200, 1100]), Some(Strain::Some));
    }

    #[test]
    fn a_queue_near_the_limit_of_flow_control_counts_at_once() {
        let of = |queue, queue_limit| {
            let sample = Sample { queue: Some(queue), queue_limit, ..Sample::default() };
            Judge::default().judge(&sample)
        };
        assert_eq!(of(20, None).strain, Strain::Calm, "a donor that nobody waits for");
        assert_eq!(of(10, Some(28)).strain, Strain::Calm);
        let verdict = of(14, Some(28));
        assert_eq!(verdict.strain, Strain::Severe);
        assert!(
            verdict.reason.contains("14 write-sets wait") && verdict.reason.contains("28"),
            "{}",
            verdict.reason
        );
    }

    #[test]
    fn a_log_write_is_compared_with_those_before() {
        let sample = |time| Sample { log_write: ms(time), ..Sample::default() };
        let mut judge = Judge::default();
        judge.before(&sample(3));
        assert_eq!(strains(&mut judge, &[3, 3, 4].map(sample)), [Strain::Calm; 3]);
        // One long write among short ones is none, several are.
        assert_eq!(strains(&mut judge, &[90, 3, 3].map(sample)), [Strain::Calm; 3]);
        let verdicts = strains(&mut judge, &[20, 20, 20].map(sample));
        assert_eq!(verdicts.last(), Some(&Strain::High));
        let reason = judge.judge(&sample(20)).reason;
        assert_eq!(reason, "a write of the server's log takes 20.0 ms, 3.0 ms before");
        // A fast disk that becomes three times slower is still fast.
        let mut judge = Judge::default();
        judge.before(&sample(1));
        assert_eq!(strains(&mut judge, &[sample(2); 5]), [Strain::Calm; 5]);
    }

    #[test]
    fn waits_of_the_server_count_if_the_kernel_confirms_them() {
        let sample =
            |waits, pressure| Sample { cpu_waits: Some(waits), cpu_pressure: pressure, ..Sample::default() };
        for (pressure, expected) in
            [(Some(0.02), Strain::Calm), (Some(0.4), Strain::High), (None, Strain::High)]
        {
            let mut judge = Judge::default();
            judge.before(&sample(0.1, None));
            let strain = strains(&mut judge, &[sample(0.9, pressure); 3]);
            assert_eq!(strain.last(), Some(&expected), "{pressure:?}");
        }
    }

    #[test]
    fn nobody_waits_for_an_idle_server() {
        let of = |requests| {
            let mut judge = Judge::default();
            judge.before(&Sample { cpu_waits: Some(0.1), ..Sample::default() });
            let sample = Sample { cpu_waits: Some(2.1), requests, ..Sample::default() };
            strains(&mut judge, &[sample; 3]).last().copied()
        };
        assert_eq!(of(Some(4.0)), Some(Strain::Calm));
        assert_eq!(of(Some(400.0)), Some(Strain::High));
        assert_eq!(of(None), Some(Strain::High), "it is not known");
    }

    #[test]
    fn the_worst_decides_and_gives_the_reason() {
        let sample = Sample { flow_control: Some(2), queue: Some(5), disk_write: ms(1), ..Sample::default() };
        let verdict = Judge::default().judge(&sample);
        assert_eq!(verdict.strain, Strain::Severe);
        assert!(verdict.reason.contains("flow control"), "{}", verdict.reason);
    }
}
