//! What a transfer demands beside its time: how long the donor's server stands still, and room on this node.
use std::time::Duration;

use protocol::message::SnapshotKind;

use super::costs::{Back, Cost};
use super::kind::TransferKind;
use super::transfer::Estimate;
use crate::human::span;
use crate::joiner::{MARGIN_BYTES, ROWS_OF_FILES};
use crate::snapshot::logical::locked::{Hold, Until};

/// How the donor's server stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// Replication, once, for tens of milliseconds.
    Moment,
    /// Replication, while mariadb-backup holds its locks: for about a second.
    Backup,
    /// All writes, until everything has been read: about this long, if that is known.
    Whole(Option<Duration>),
    /// Writes, while tables without transactions are read: about this long.
    Tables(Duration),
}

impl Pause {
    /// That of a snapshot. `costs` has what the ways take; the donor compares files where it can.
    pub(super) fn of(snapshot: SnapshotKind, costs: &[Cost]) -> Pause {
        let takes = |back| costs.iter().find(|cost| cost.back == back).and_then(|cost| cost.takes);
        match snapshot {
            SnapshotKind::Online | SnapshotKind::Logical => Pause::Moment,
            SnapshotKind::Mariabackup => Pause::Backup,
            SnapshotKind::Blocking => Pause::Whole(takes(Back::Incremental).or(takes(Back::Full))),
        }
    }

    /// That of a snapshot of rows with tables that have no transactions.
    pub(super) fn by_tables(hold: &Hold) -> Pause {
        match hold.until {
            Until::TheyAreRead => Pause::Tables(hold.takes),
            Until::AllIsRead | Until::TheEnd => Pause::Whole(Some(hold.takes)),
        }
    }

    /// `replication` or `writes`.
    pub fn what(self) -> &'static str {
        match self {
            Pause::Moment | Pause::Backup => "replication",
            Pause::Whole(_) | Pause::Tables(_) => "writes",
        }
    }

    /// How long it takes, if that depends on the transfer and is known.
    pub fn takes(self) -> Option<Duration> {
        match self {
            Pause::Moment | Pause::Backup => None,
            Pause::Whole(takes) => takes,
            Pause::Tables(takes) => Some(takes),
        }
    }

    /// A sentence.
    pub fn in_words(self) -> String {
        match self {
            Pause::Moment => "replication on the donor is paused once, for tens of milliseconds".to_owned(),
            Pause::Backup => {
                "replication on the donor is paused for about a second, longer if this node or the network is slow"
                    .to_owned()
            }
            Pause::Whole(None) => "all writes on the donor wait until the whole copy has been read".to_owned(),
            Pause::Whole(Some(takes)) => {
                format!("all writes on the donor wait until the whole copy has been read, about {}", span(takes))
            }
            Pause::Tables(takes) => {
                format!("writes on the donor wait while tables without transactions are read, about {}", span(takes))
            }
        }
    }
}

/// Room beside this node's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that are needed.
    pub needed: u64,
    /// They are needed whatever this node already has; otherwise less may do.
    pub whole: bool,
    /// Bytes that are free on the filesystem of the datadir.
    pub free: u64,
}

impl Room {
    /// For what a donor sends, with so many bytes free. None if nothing is sent, or not known of which kind.
    pub(super) fn of(kind: Option<&TransferKind>, sends: &Estimate, free: u64) -> Option<Room> {
        let files = sends.all.saturating_add(sends.redo.map_or(0, |redo| redo.bytes));
        let (bytes, whole) = match kind? {
            TransferKind::Files(from) => {
                let is_backup = from.kind == SnapshotKind::Mariabackup;
                (files, is_backup || sends.about.is_some_and(|about| about >= sends.all))
            }
            TransferKind::Rows(_) => (sends.all.saturating_add(sends.all / ROWS_OF_FILES), true),
            TransferKind::Nothing(_) => return None,
        };
        Some(Room { needed: bytes.saturating_add(MARGIN_BYTES), whole, free })
    }

    /// Whether it does not suffice, as far as that is known now.
    pub fn is_short(&self) -> bool {
        self.whole && self.free < self.needed
    }
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::Predicted;
    use super::*;

    const GIB: u64 = 1 << 30;

    fn sends(about: Option<u64>) -> Estimate {
        Estimate { all: 10 * GIB, about, at_least: 0, why: String::new(), redo: None }
    }

    fn files(kind: SnapshotKind) -> TransferKind {
        TransferKind::Files(Predicted { kind, why: String::new() })
    }

    #[test]
    fn writes_wait_for_the_whole_copy_of_the_blocking_snapshot_only() {
        let cost = |back, seconds: Option<u64>| Cost {
            back,
            takes: seconds.map(Duration::from_secs),
            of: String::new(),
        };
        let full = [cost(Back::Full, Some(170)), cost(Back::Incremental, None)];
        let some = [cost(Back::Incremental, Some(20)), cost(Back::Full, Some(170))];
        assert_eq!(Pause::of(SnapshotKind::Online, &some), Pause::Moment);
        assert_eq!(Pause::of(SnapshotKind::Mariabackup, &some), Pause::Backup);
        let blocking = |costs: &[Cost]| Pause::of(SnapshotKind::Blocking, costs);
        assert_eq!(blocking(&some), Pause::Whole(Some(Duration::from_secs(20))));
        assert_eq!(blocking(&full), Pause::Whole(Some(Duration::from_secs(170))));
        assert_eq!(blocking(&[]), Pause::Whole(None));
        assert_eq!((blocking(&some).what(), Pause::Backup.what()), ("writes", "replication"));
        assert!(blocking(&some).in_words().ends_with("about 20.0 s"), "{}", blocking(&some).in_words());
    }

    #[test]
    fn a_backup_is_staged_whole_and_rows_need_more() {
        let of = |kind: TransferKind, about, free| Room::of(Some(&kind), &sends(about), free);
        let all = 10 * GIB + MARGIN_BYTES;
        let online = of(files(SnapshotKind::Online), Some(GIB), GIB).expect("known");
        assert_eq!((online.needed, online.whole, online.is_short()), (all, false, false));
        let backup = of(files(SnapshotKind::Mariabackup), Some(GIB), GIB).expect("known");
        assert_eq!((backup.needed, backup.whole, backup.is_short()), (all, true, true));
        assert!(!of(files(SnapshotKind::Mariabackup), Some(GIB), all).expect("known").is_short());
        assert!(of(files(SnapshotKind::Online), Some(10 * GIB), GIB).expect("known").is_short());
        let rows = of(TransferKind::Rows(String::new()), None, all).expect("known");
        assert!(rows.needed > all && rows.is_short(), "{rows:?}");
        assert_eq!(of(TransferKind::Nothing(String::new()), None, 0), None);
        assert_eq!(Room::of(None, &sends(None), 0), None);
    }
}
