//! Whether replaying write-sets is cheaper than a transfer of files: a rough estimate from what is known before either.
use std::time::Duration;

use crate::human::size;

/// Write-sets that a server applies in a second: half of what a small one was seen to do with tiny transactions.
const APPLIED_PER_S: f64 = 5_000.0;
/// Bytes of write-sets in a second.
const APPLIED_BYTES_PER_S: f64 = (20 << 20) as f64;
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
    /// Bytes of the donor's files.
    pub files: u64,
    /// Bytes of them that would be sent.
    pub sent: u64,
}

impl Ways {
    /// How long replaying may take.
    pub fn replay(&self) -> Duration {
        let rows = self.write_sets as f64 / APPLIED_PER_S;
        let bytes = self.write_set_bytes as f64 / APPLIED_BYTES_PER_S;
        seconds(rows.max(bytes))
    }

    /// How long a transfer of files may take.
    pub fn transfer(&self) -> Duration {
        let (files, sent) = (self.files as f64, self.sent as f64);
        seconds(TRANSFER_S + files / COMPARED_BYTES_PER_S + sent / SENT_BYTES_PER_S)
    }

    /// Whether replaying is the cheaper way.
    pub fn replay_is_cheaper(&self) -> bool {
        self.replay() < self.transfer()
    }

    /// Both estimates, for both logs.
    pub fn in_words(&self) -> String {
        format!(
            "{} write-sets ({}) to replay, about {:.0} s; a transfer of files would send about {} of {}, about {:.0} s",
            self.write_sets,
            size(self.write_set_bytes),
            self.replay().as_secs_f64(),
            size(self.sent),
            size(self.files),
            self.transfer().as_secs_f64()
        )
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_write_sets_beside_much_data_are_replayed() {
        let ways = Ways { write_sets: 60_000, write_set_bytes: 60 << 20, files: 100 << 30, sent: 1 << 30 };
        assert!(ways.replay_is_cheaper() && ways.replay() == Duration::from_secs(12));
        let many = Ways { write_sets: 50_000_000, ..ways };
        assert!(!many.replay_is_cheaper());
        assert!(!Ways { write_set_bytes: 100 << 30, ..ways }.replay_is_cheaper());
        assert_eq!(
            Ways { write_sets: 10_000, write_set_bytes: 1 << 20, files: 500 << 20, sent: 60 << 20 }
                .in_words(),
            "10000 write-sets (1.0 MiB) to replay, about 2 s; a transfer of files would send about 60.0 MiB of 500.0 MiB, \
             about 5 s"
        );
        assert!(Ways { write_sets: 0, write_set_bytes: 0, files: 0, sent: 0 }.replay_is_cheaper());
    }
}
