//! Whether the donor's archive would bring the node back, where Galera decides for an SST.
use formats::{Seqno, Uuid};
use protocol::message::ReplayRate;
use serde::Serialize;

use super::archives::ArchiveReach;
use super::costs::Base;
use super::transfer::Estimate;
use crate::writesets::ist::cost::Ways;

/// A prediction of deep IST.
#[derive(Clone, Debug, PartialEq)]
pub struct DeepIst {
    /// What both ways cost, as the donor estimates it; none if it is not known what files would cost.
    pub ways: Option<Ways>,
    /// Write-sets to replay.
    pub write_sets: u64,
    /// About how many bytes they are.
    pub bytes: u64,
    /// Why this node cannot take it as it is set up.
    pub closed: Option<String>,
    /// The backup from which it starts, if it does not start from this node's own files.
    pub base: Option<Base>,
    /// The archive that they come from.
    pub archive: ArchiveReach,
}

/// How sure it is that an archive reaches back to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reaches {
    /// No archive is known that does.
    No,
    /// It does if it has kept more write-sets since its member reported it than it had then.
    IfItGrew,
    /// It does if it has kept as many as it had then.
    IfItStayed,
    /// It was read just now.
    Yes,
}

impl DeepIst {
    /// How sure it is that the archive reaches back.
    pub fn reaches(&self) -> Reaches {
        match self.archive.reported_ms {
            None => Reaches::Yes,
            Some(_) if self.archive.count() >= self.write_sets => Reaches::IfItStayed,
            Some(_) => Reaches::IfItGrew,
        }
    }
}

/// What there is to predict from.
pub(super) struct Question<'a> {
    /// The group's history, and its last write-set.
    pub group: (Uuid, Seqno),
    /// The node's position in that history, if it has one.
    pub position: Option<Seqno>,
    /// A backup on the node.
    pub base: Option<&'a Base>,
    /// The chosen donor, and the oldest write-set in its provider's cache.
    pub donor: (&'a str, Option<Seqno>),
    /// How fast this node applied write-sets last, if that is known.
    pub rate: Option<ReplayRate>,
    /// What files would cost.
    pub sends: Option<&'a Estimate>,
    /// Mean bytes of the group's write-sets.
    pub bytes_each: f64,
}

/// Whether one of the archives reaches back to the node's files, or to its backup if that is newer. The archive and the cache of
/// the donor must join; one that was reported earlier has gone on since, as far as is known.
pub(super) fn predict(
    archives: &[ArchiveReach],
    relay: &Result<(), String>,
    question: &Question<'_>,
) -> Option<DeepIst> {
    let (history, newest) = question.group;
    let (donor, cached) = question.donor;
    let base = question.base.filter(|base| base.position.uuid == history);
    let base = base.filter(|base| question.position.is_none_or(|own| own < base.position.seqno));
    let position = base.map(|base| base.position.seqno).or(question.position)?;
    let reaches = |archive: &&ArchiveReach| {
        archive.member.as_deref().is_none_or(|member| member == donor)
            && archive.history == history
            && archive.first.0 <= position.0.saturating_add(1)
            && (archive.reported_ms.is_some()
                || archive.last >= newest
                || cached.is_some_and(|low| low.0 <= archive.last.0.saturating_add(1)))
    };
    let archive = archives.iter().find(reaches)?;
    let write_sets = newest.0.saturating_sub(position.0).max(0).unsigned_abs();
    let bytes = (archive.bytes_each.unwrap_or(question.bytes_each) * write_sets as f64) as u64;
    let ways = question.sends.map(|sends| Ways {
        write_sets,
        write_set_bytes: bytes,
        rate: question.rate,
        files: sends.all.saturating_add(sends.redo.map_or(0, |redo| redo.bytes)),
        // What the donor remembers is not known here.
        remembered: 0,
        sent: sends.about.unwrap_or(sends.all),
        // The donor's own option, which is not known here.
        rlimit: None,
    });
    let (closed, base, archive) = (relay.clone().err(), base.cloned(), archive.clone());
    Some(DeepIst { ways, write_sets, bytes, closed, base, archive })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HISTORY: &str = "2f0eaefd-0000-11f0-a0a0-000000000000";

    fn archive(member: Option<&str>, first: i64, last: i64) -> ArchiveReach {
        let (history, member) = (HISTORY.parse().expect("a uuid"), member.map(str::to_owned));
        let (first, last) = (Seqno(first), Seqno(last));
        ArchiveReach { member, history, first, last, bytes_each: Some(500.0), reported_ms: None }
    }

    fn asked(archives: &[ArchiveReach], position: i64, cached: i64) -> Option<DeepIst> {
        from(archives, Some(position), cached, None)
    }

    fn from(
        archives: &[ArchiveReach],
        position: Option<i64>,
        cached: i64,
        base: Option<&Base>,
    ) -> Option<DeepIst> {
        let group = (HISTORY.parse().expect("a uuid"), Seqno(10_000));
        let donor = ("n1", Some(Seqno(cached)));
        let sends =
            Estimate { all: 1 << 30, about: Some(1 << 20), at_least: 0, why: String::new(), redo: None };
        let (position, sends) = (position.map(Seqno), Some(&sends));
        let question = Question { group, position, base, donor, rate: None, sends, bytes_each: 400.0 };
        predict(archives, &Ok(()), &question)
    }

    #[test]
    fn an_archive_reaches_from_the_position_to_the_donors_cache() {
        let found = asked(&[archive(Some("n1"), 1, 9_500)], 5_000, 9_000).expect("it reaches");
        assert_eq!((found.write_sets, found.bytes, found.closed), (5_000, 2_500_000, None));
        assert!(found.ways.is_some_and(|ways| ways.replay_is_cheaper()));
        for (archive, position, cached) in [
            (archive(Some("n1"), 5_002, 9_500), 5_000, 9_000),
            (archive(Some("n1"), 1, 8_000), 5_000, 9_000),
            (archive(Some("n2"), 1, 9_500), 5_000, 9_000),
            (ArchiveReach { history: Uuid::NIL, ..archive(None, 1, 9_500) }, 5_000, 9_000),
        ] {
            assert_eq!(asked(std::slice::from_ref(&archive), position, cached), None, "{archive:?}");
        }
        // The archive alone, also of an operator's copy.
        assert!(asked(&[archive(None, 5_001, 10_000)], 5_000, 10_001).is_some());
    }

    #[test]
    fn an_archive_that_was_reported_earlier_has_gone_on_since() {
        let reported = |first, last| ArchiveReach {
            bytes_each: None,
            reported_ms: Some(1_000),
            ..archive(Some("n1"), first, last)
        };
        let found = asked(&[reported(1, 4_000)], 5_000, 9_000).expect("nothing is against it");
        assert_eq!((found.write_sets, found.bytes, found.reaches()), (5_000, 2_000_000, Reaches::IfItGrew));
        let found = asked(&[reported(1, 5_000)], 5_000, 9_000).expect("nothing is against it");
        assert_eq!(found.reaches(), Reaches::IfItStayed);
        // It began later, or is another member's.
        assert_eq!(asked(&[reported(5_002, 9_500)], 5_000, 9_000), None);
        let of_n2 = ArchiveReach { member: Some("n2".to_owned()), ..reported(1, 5_000) };
        assert_eq!(asked(&[of_n2], 5_000, 9_000), None);
        let now = asked(&[archive(Some("n1"), 1, 9_500)], 5_000, 9_000).expect("it reaches");
        assert_eq!(now.reaches(), Reaches::Yes);
        assert!(Reaches::Yes > Reaches::IfItStayed && Reaches::IfItGrew > Reaches::No);
    }

    #[test]
    fn a_backup_that_is_newer_than_the_nodes_files_is_where_it_starts() {
        let archives = [archive(Some("n1"), 6_001, 9_500)];
        let base = |history: &str| Base {
            dir: "/backup".into(),
            position: format!("{history}:7000").parse().expect("a position"),
            bytes: 1 << 30,
        };
        let backup = base(HISTORY);
        for own in [None, Some(5_000)] {
            let found = from(&archives, own, 9_000, Some(&backup)).expect("it reaches to the backup");
            assert_eq!((found.write_sets, found.base.as_ref()), (3_000, Some(&backup)));
        }
        let found = from(&archives, Some(8_000), 9_000, Some(&backup)).expect("it reaches to the files");
        assert_eq!((found.write_sets, found.base), (2_000, None));
        let other = base("2f0eaefd-0000-11f0-a0a0-000000000001");
        assert_eq!(from(&archives, Some(5_000), 9_000, Some(&other)), None);
        assert_eq!(from(&archives, None, 9_000, None), None);
    }
}
