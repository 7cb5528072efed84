//! Whether replaying write-sets is cheaper than a transfer of files: a rough estimate from what is known before either.
use std::time::Duration;

use protocol::message::ReplayRate;

use crate::human::size;

/// What a server applies in a second if nothing is known of it: half of the write-sets that a small one was seen to apply of
/// tiny transactions, or so many bytes of large ones.
const ASSUMED: ReplayRate = ReplayRate { write_sets: 5_000, bytes: 20 << 20 };
/// Bytes in a second that both nodes read to compare what they have.
const COMPARED_BYTES_PER_S: f64 = (500 << 20) as f64;
/// Bytes in a second that travel, are stored and read back.
const SENT_BYTES_PER_S: f64 = (60 << 20) as f64;
/// What a transfer takes however little is sent: the consistency point, the install, recovery.
const TRANSFER_S: f64 = 3.0;

/// The two ways, in numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ways {
    /// Write-sets to replay.
    pub write_sets: u64,
    /// Their bytes.
    pub write_set_bytes: u64,
    /// How fast the joiner's server applied them last, if that is known.
    pub rate: Option<ReplayRate>,
    /// Bytes of the donor's files.
    pub files: u64,
    /// Bytes of them that are not read, because their fingerprints are remembered.
    pub remembered: u64,
    /// Bytes of them that would be sent.
    pub sent: u64,
    /// Bytes that may travel in a second, if there is a limit.
    pub rlimit: Option<u64>,
}

impl Ways {
    /// How long replaying may take.
    pub fn replay(&self) -> Duration {
        let now = assumed_seconds(self.write_sets, self.write_set_bytes);
        // Write-sets may be larger or smaller than last time. So what was measured says how much faster or slower than
        // assumed the server is, and nothing more.
        let faster = self.rate.map_or(1.0, |rate| assumed_seconds(rate.write_sets, rate.bytes));
        seconds(self.sending(self.write_set_bytes) + now / faster)
    }

    /// How long a transfer of files may take.
    pub fn transfer(&self) -> Duration {
        let compared = self.files.saturating_sub(self.remembered) as f64 / COMPARED_BYTES_PER_S;
        let stored = self.sent as f64 / SENT_BYTES_PER_S;
        seconds(TRANSFER_S + compared + stored.max(self.sending(self.sent)))
    }

    /// Seconds in which so many bytes may be sent. Write-sets are sent before the first one of them is applied; a link without a
    /// limit carries them in a small part of the time that they take to apply.
    fn sending(&self, bytes: u64) -> f64 {
        self.rlimit.map_or(0.0, |limit| bytes as f64 / limit.max(1) as f64)
    }

    /// Whether replaying is the cheaper way.
    pub fn replay_is_cheaper(&self) -> bool {
        self.replay() < self.transfer()
    }

    /// Where the estimate of replaying comes from.
    fn basis(&self) -> String {
        let ReplayRate { write_sets, bytes } = self.rate.unwrap_or(ASSUMED);
        match self.rate {
            Some(_) => format!("(last time {write_sets} write-sets, {} a second)", size(bytes)),
            None => format!("(assuming {write_sets} write-sets or {} a second)", size(bytes)),
        }
    }

    /// Both estimates, for both logs.
    pub fn in_words(&self) -> String {
        let limit =
            self.rlimit.map_or_else(String::new, |limit| format!(" (rlimit: {} a second)", size(limit)));
        format!(
            "{} write-sets ({}) to replay, about {:.0} s {}; a transfer of files would send about {} of {}, about {:.0} s{limit}",
            self.write_sets,
            size(self.write_set_bytes),
            self.replay().as_secs_f64(),
            self.basis(),
            size(self.sent),
            size(self.files),
            self.transfer().as_secs_f64()
        )
    }
}

/// How long so much would take at the assumed rate.
fn assumed_seconds(write_sets: u64, bytes: u64) -> f64 {
    let rows = write_sets as f64 / ASSUMED.write_sets as f64;
    rows.max(bytes as f64 / ASSUMED.bytes as f64)
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_write_sets_beside_much_data_are_replayed() {
        let (rate, rlimit) = (None, None);
        let ways = Ways {
            write_sets: 60_000,
            write_set_bytes: 60 << 20,
            rate,
            files: 100 << 30,
            remembered: 0,
            sent: 1 << 30,
            rlimit,
        };
        assert!(ways.replay_is_cheaper() && ways.replay() == Duration::from_secs(12));
        let many = Ways { write_sets: 50_000_000, ..ways };
        assert!(!many.replay_is_cheaper());
        assert!(!Ways { write_set_bytes: 100 << 30, ..ways }.replay_is_cheaper());
        // Hardly anything is read, so files are cheaper sooner.
        let long = Ways { write_sets: 400_000, ..ways };
        assert!(long.replay_is_cheaper() && !Ways { remembered: 99 << 30, ..long }.replay_is_cheaper());
        assert_eq!(
            Ways {
                write_sets: 10_000,
                write_set_bytes: 1 << 20,
                rate,
                files: 500 << 20,
                remembered: 0,
                sent: 60 << 20,
                rlimit
            }
            .in_words(),
            "10000 write-sets (1.0 MiB) to replay, about 2 s (assuming 5000 write-sets or 20.0 MiB a second); a transfer of \
             files would send about 60.0 MiB of 500.0 MiB, about 5 s"
        );
        assert!(
            Ways { write_sets: 0, write_set_bytes: 0, rate, files: 0, remembered: 0, sent: 0, rlimit }
                .replay_is_cheaper()
        );
    }

    #[test]
    fn what_was_measured_counts_instead_of_what_is_assumed() {
        let of = |write_sets: u64, each: u64, rate| Ways {
            write_sets,
            write_set_bytes: write_sets * each,
            rate,
            files: 1 << 30,
            remembered: 0,
            sent: 1 << 30,
            rlimit: None,
        };
        let last = Some(ReplayRate { write_sets: 10_000, bytes: 5_000_000 });
        // As last time, and ten times as large each.
        assert_eq!(of(60_000, 500, last).replay(), Duration::from_secs(6));
        let large = |rate| of(60_000, 5000, rate).replay().as_secs_f64();
        assert!((large(None) / large(last) - 2.0).abs() < 0.01, "twice as fast as assumed");
        assert!(!of(150_000, 100, None).replay_is_cheaper() && of(150_000, 100, last).replay_is_cheaper());
        let slow = Some(ReplayRate { write_sets: 100, bytes: 50_000 });
        assert!(of(60_000, 500, None).replay_is_cheaper() && !of(60_000, 500, slow).replay_is_cheaper());
        assert!(
            of(1, 1, last).in_words().contains("about 0 s (last time 10000 write-sets, 4.8 MiB a second);")
        );
    }

    #[test]
    fn the_limit_of_what_the_donor_may_send_counts_for_both_ways() {
        let (write_sets, write_set_bytes) = (400_000, 200 << 20);
        let free = Ways {
            write_sets,
            write_set_bytes,
            rate: None,
            files: 4 << 30,
            remembered: 0,
            sent: 1 << 30,
            rlimit: None,
        };
        assert!(!free.replay_is_cheaper(), "{} against {}", free.in_words(), "one GiB in 28 s");
        let limited = Ways { rlimit: Some(5 << 20), ..free };
        assert!(limited.replay_is_cheaper() && limited.transfer() > Duration::from_secs(200));
        assert_eq!(limited.replay() - free.replay(), Duration::from_secs(40));
        assert!(limited.in_words().ends_with("s (rlimit: 5.0 MiB a second)"), "{}", limited.in_words());
    }
}
