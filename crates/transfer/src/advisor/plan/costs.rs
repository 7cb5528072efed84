//! What each way back would cost this node, by the estimates with which a donor decides.
use std::path::PathBuf;
use std::time::Duration;

use formats::wsrep::state_id::StateId;
use protocol::message::ReplayRate;

use super::deep_ist::{DeepIst, Reaches};
use super::kind::TransferKind;
use super::predict::Way;
use super::transfer::Estimate;
use crate::human::size;
use crate::writesets::ist::cost::Ways;

/// A backup on this node from which a deep IST can start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Its directory.
    pub dir: PathBuf,
    /// Its position.
    pub position: StateId,
    /// Bytes of its files, which are installed first.
    pub bytes: u64,
}

/// A way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Back {
    /// Write-sets of the donor's provider.
    Ist,
    /// Those of its archive before them.
    DeepIst,
    /// The same from a backup, which is installed first.
    BaseAndDeepIst,
    /// The files' differing parts.
    Incremental,
    /// All files.
    Full,
    /// All rows.
    Rows,
}

impl Back {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Back::Ist => "IST",
            Back::DeepIst => "deep IST",
            Back::BaseAndDeepIst => "base and deep IST",
            Back::Incremental => "incremental",
            Back::Full => "full",
            Back::Rows => "logical",
        }
    }
}

/// What one of them costs.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// The way.
    pub back: Back,
    /// How long it takes; none if that is known only when it begins.
    pub takes: Option<Duration>,
    /// What it is made of.
    pub of: String,
}

/// What decides about the costs.
pub(super) struct Known<'a> {
    /// What Galera decides.
    pub way: &'a Way,
    /// Write-sets between the node and the group, and their bytes.
    pub missing: (u64, u64),
    /// How fast the node applies them, if that is known.
    pub rate: Option<ReplayRate>,
    /// Bytes that travel in a second, if the operator says so.
    pub link: Option<u64>,
    /// What the chosen donor would send, and of which kind.
    pub sends: Option<&'a Estimate>,
    pub kind: Option<&'a TransferKind>,
    pub deep_ist: Option<&'a DeepIst>,
}

/// The ways that are open to the node, the cheapest first.
pub(super) fn costs(known: &Known<'_>) -> Vec<Cost> {
    let mut all = match known.way {
        Way::Ist { .. } => {
            let (write_sets, bytes) = known.missing;
            vec![replayed(Back::Ist, (write_sets, bytes), known)]
        }
        Way::Sst { .. } => {
            let deep = known.deep_ist.filter(|deep| deep.closed.is_none());
            deep.map(|deep| by_archive(deep, known)).into_iter().chain(by_files(known)).collect()
        }
        Way::NothingMissing | Way::Ahead { .. } | Way::Waits | Way::Refused => Vec::new(),
    };
    all.sort_by_key(|cost| cost.takes.unwrap_or(Duration::MAX));
    all
}

fn replayed(back: Back, (write_sets, write_set_bytes): (u64, u64), known: &Known<'_>) -> Cost {
    let ways = Ways {
        write_sets,
        write_set_bytes,
        rate: known.rate,
        files: 0,
        remembered: 0,
        sent: 0,
        rlimit: known.link,
    };
    Cost { back, takes: Some(ways.replay()), of: format!("{write_sets} write-sets") }
}

fn by_archive(deep: &DeepIst, known: &Known<'_>) -> Cost {
    let replayed = |back| {
        let cost = replayed(back, (deep.write_sets, deep.bytes), known);
        let sure = deep.reaches() == Reaches::Yes;
        let of = if sure { cost.of } else { format!("{}, if its archive has kept them", cost.of) };
        Cost { of, ..cost }
    };
    let Some(base) = &deep.base else { return replayed(Back::DeepIst) };
    let cost = replayed(Back::BaseAndDeepIst);
    // Copied, where the filesystem cannot share them; the donor counts only what it has to do with.
    let copied = moved(0, base.bytes, None);
    let takes = cost.takes.map(|takes| takes.saturating_add(copied));
    Cost { takes, of: format!("{} copied, {}", size(base.bytes), cost.of), ..cost }
}

fn by_files(known: &Known<'_>) -> Vec<Cost> {
    let Some(&Estimate { all, about, .. }) = known.sends else { return Vec::new() };
    let everything =
        |back| Cost { back, takes: Some(moved(0, all, known.link)), of: format!("{} sent", size(all)) };
    let incremental = match about {
        Some(about) if about >= all => None,
        Some(about) => {
            Some((Some(moved(all, about, known.link)), format!("{} of {} sent", size(about), size(all))))
        }
        None => Some((None, format!("at most {} sent", size(all)))),
    };
    match known.kind {
        Some(TransferKind::Nothing(_)) => Vec::new(),
        Some(TransferKind::Rows(_)) => vec![everything(Back::Rows)],
        Some(TransferKind::Files(_)) | None => {
            let incremental = incremental.map(|(takes, of)| Cost { back: Back::Incremental, takes, of });
            incremental.into_iter().chain([everything(Back::Full)]).collect()
        }
    }
}

/// How long it takes to compare files and to send, or copy, a part of them.
fn moved(files: u64, sent: u64, link: Option<u64>) -> Duration {
    Ways { write_sets: 0, write_set_bytes: 0, rate: None, files, remembered: 0, sent, rlimit: link }
        .transfer()
}

#[cfg(test)]
mod tests {
    use formats::Seqno;
    use protocol::message::SnapshotKind;

    use super::super::archives::ArchiveReach;
    use super::super::choice::Rule;
    use super::super::snapshot::Predicted;
    use super::*;

    const GIB: u64 = 1 << 30;

    fn sst() -> Way {
        Way::Sst { donor: "n1".to_owned(), rule: Rule::Named }
    }

    fn estimate(about: Option<u64>) -> Estimate {
        Estimate { all: 10 * GIB, about, at_least: 0, why: String::new(), redo: None }
    }

    fn deep(write_sets: u64, base: Option<u64>) -> DeepIst {
        let position: StateId = "2f0eaefd-0000-11f0-a0a0-000000000000:7".parse().unwrap();
        let base = base.map(|bytes| Base { dir: "/backup".into(), position, bytes });
        let (history, first, last) = (position.uuid, Seqno(1), Seqno(9));
        let archive =
            ArchiveReach { member: None, history, first, last, bytes_each: None, reported_ms: None };
        DeepIst { ways: None, write_sets, bytes: write_sets * 500, closed: None, base, archive }
    }

    fn order(sends: &Estimate, kind: Option<&TransferKind>, deep_ist: Option<&DeepIst>) -> Vec<Back> {
        let way = sst();
        let known =
            Known { way: &way, missing: (0, 0), rate: None, link: None, sends: Some(sends), kind, deep_ist };
        costs(&known).iter().map(|cost| cost.back).collect()
    }

    #[test]
    fn a_slow_link_and_a_slow_server_make_their_ways_dearer() {
        let (way, some) = (sst(), estimate(Some(GIB)));
        let deep = deep(400_000, None);
        let first = |rate, link| {
            let (sends, kind, deep_ist) = (Some(&some), None, Some(&deep));
            costs(&Known { way: &way, missing: (0, 0), rate, link, sends, kind, deep_ist })[0].back
        };
        assert_eq!(first(None, None), Back::Incremental);
        assert_eq!(first(None, Some(2 << 20)), Back::DeepIst);
        let slow = Some(ReplayRate { write_sets: 100, bytes: 50_000 });
        assert_eq!(first(slow, Some(2 << 20)), Back::Incremental);
    }

    #[test]
    fn the_cheapest_comes_first() {
        use Back::{BaseAndDeepIst, DeepIst as Deep, Full, Incremental, Rows};
        let some = estimate(Some(GIB / 8));
        assert_eq!(order(&some, None, Some(&deep(20_000, None))), [Deep, Incremental, Full]);
        assert_eq!(order(&some, None, Some(&deep(500_000, None))), [Incremental, Deep, Full]);
        assert_eq!(order(&some, None, Some(&deep(20_000, Some(GIB)))), [BaseAndDeepIst, Incremental, Full]);
        assert_eq!(
            order(&some, None, Some(&deep(20_000, Some(9 * GIB)))),
            [Incremental, BaseAndDeepIst, Full]
        );
        assert_eq!(order(&estimate(Some(10 * GIB)), None, None), [Full], "nothing matches");
        let blocking = Predicted { kind: SnapshotKind::Blocking, why: String::new() };
        assert_eq!(order(&estimate(None), Some(&TransferKind::Files(blocking)), None), [Full, Incremental]);
        assert_eq!(order(&some, Some(&TransferKind::Rows(String::new())), None), [Rows]);
        assert!(order(&some, Some(&TransferKind::Nothing(String::new())), None).is_empty());
        let closed = DeepIst { closed: Some("ist.recv_bind is not set".to_owned()), ..deep(1, None) };
        assert_eq!(order(&some, None, Some(&closed)), [Incremental, Full]);
    }

    #[test]
    fn an_ist_is_the_only_way_where_galera_decides_for_it() {
        let way = Way::Ist { donor: "n1".to_owned(), rule: Rule::Named, from: Seqno(8) };
        let some = estimate(Some(1));
        let known = |rate| {
            let (sends, deep_ist) = (Some(&some), None);
            costs(&Known {
                way: &way,
                missing: (10_000, 1 << 20),
                rate,
                link: None,
                sends,
                kind: None,
                deep_ist,
            })
        };
        let of = "10000 write-sets".to_owned();
        assert_eq!(known(None), [Cost { back: Back::Ist, takes: Some(Duration::from_secs(2)), of }]);
        let fast = known(Some(ReplayRate { write_sets: 20_000, bytes: 2 << 20 }));
        assert_eq!(fast[0].takes, Some(Duration::from_millis(500)));
        let nothing = Known {
            way: &Way::Waits,
            missing: (1, 1),
            rate: None,
            link: None,
            sends: None,
            kind: None,
            deep_ist: None,
        };
        assert!(costs(&nothing).is_empty());
    }
}
