//! How far members' archives of write-sets reach: those that can be read here and now, and those that the donors of earlier
//! transfers reported.
use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use formats::{Seqno, Uuid};
use report::Record;
use report::record::Method;

use super::facts::Group;
use crate::human::local_time;
use crate::server::records::Records;
use crate::writesets::archive::Archive;

/// What an archive holds, as far as a prediction needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct ArchiveReach {
    /// The name of the member whose archive it is; none if the operator gave its directory.
    pub member: Option<String>,
    /// Its history.
    pub history: Uuid,
    /// The first write-set of its newest range.
    pub first: Seqno,
    /// The last one.
    pub last: Seqno,
    /// Mean bytes of a write-set in it, if that is known.
    pub bytes_each: Option<f64>,
    /// When its member reported this, as the donor of a transfer, in milliseconds since 1970; none if it was read just now.
    pub reported_ms: Option<u64>,
}

impl ArchiveReach {
    /// Reads an archive's headers. None if it is empty.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn read(dir: &Path, member: Option<String>) -> Result<Option<ArchiveReach>> {
        let archive = Archive::open(dir)?;
        let (runs, _) = archive.runs();
        let count: i64 = runs.iter().map(|run| run.last.0 - run.first.0 + 1).sum();
        let (_, bytes) = archive.bytes();
        let bytes_each = Some(bytes as f64 / count.max(1) as f64);
        let newest = archive.newest_run();
        Ok(newest.map(|run| ArchiveReach {
            member,
            history: run.history,
            first: run.first,
            last: run.last,
            bytes_each,
            reported_ms: None,
        }))
    }

    /// Number of its write-sets.
    pub fn count(&self) -> u64 {
        u64::try_from(self.last.0.saturating_sub(self.first.0).saturating_add(1)).unwrap_or(0)
    }

    /// Whose archive it is, how far it reaches or reached back, and when.
    pub fn in_words(&self) -> String {
        let whose = match &self.member {
            Some(member) => format!("{member}'s archive"),
            None => "the named archive".to_owned(),
        };
        let (first, count) = (self.first, self.count());
        match self.reported_ms {
            None => format!("{whose} reaches back to {first} ({count} write-sets)"),
            Some(ms) => {
                let at = local_time(ms);
                format!("as of the transfer at {at}, {whose} reached back to {first} ({count} write-sets)")
            }
        }
    }
}

/// All archives that are known of: the one in the directory `given`, those of members on this host, and those that other
/// members of the group reported earlier.
///
/// # Errors
/// `given` cannot be read.
pub(super) fn archives(group: &Group, given: Option<&Path>, datadir: &Path) -> Result<Vec<ArchiveReach>> {
    let given = given.map(|dir| ArchiveReach::read(dir, None)).transpose()?.flatten();
    let beside = group.members.iter().filter_map(|known| {
        // One that is not ours to read is as good as none.
        ArchiveReach::read(known.archive.as_deref()?, Some(known.member.name.clone())).ok()?
    });
    let mut all: Vec<ArchiveReach> = given.into_iter().chain(beside).collect();
    let mut records = Records::default();
    if records.add(datadir).is_ok() {
        let is_member = |name: &String| group.members.iter().any(|known| known.member.name == *name);
        for reported in reported(&records.records) {
            let is_read = all.iter().any(|known| known.member == reported.member);
            if !is_read && reported.member.as_ref().is_some_and(is_member) {
                all.push(reported);
            }
        }
    }
    Ok(all)
}

/// What each donor reported last. One that reported no archive in its last transfer has none any more.
fn reported(records: &[Record]) -> Vec<ArchiveReach> {
    let mut last: BTreeMap<&str, (u64, Option<ArchiveReach>)> = BTreeMap::new();
    for record in records.iter().filter(|record| record.role == "joiner") {
        // Before IST only a donor whose archiver runs reports; one that failed before it sent anything did not get that far.
        let has_reported =
            record.archive.is_some() || matches!(record.method, Some(Method::Files | Method::WriteSets));
        let Some(donor) = record.peer.as_ref().and_then(|peer| peer.name.as_deref()).filter(|_| has_reported)
        else {
            continue;
        };
        let at = record.connected_ms.unwrap_or(record.began_ms);
        if last.get(donor).is_none_or(|(known, _)| *known <= at) {
            last.insert(donor, (at, reported_in(record, donor, at)));
        }
    }
    last.into_values().filter_map(|(_, reach)| reach).collect()
}

fn reported_in(record: &Record, donor: &str, at: u64) -> Option<ArchiveReach> {
    let archive = record.archive.as_ref()?;
    Some(ArchiveReach {
        member: Some(donor.to_owned()),
        history: archive.history.parse().ok()?,
        first: Seqno(archive.first),
        last: Seqno(archive.last),
        bytes_each: None,
        reported_ms: Some(at),
    })
}

#[cfg(test)]
mod tests {
    use report::record::{self, Peer};

    use super::super::choice::Member;
    use super::super::facts::{Known, Origin};
    use super::*;

    const HISTORY: &str = "2f0eaefd-0000-11f0-a0a0-000000000000";

    fn record(donor: &str, at: u64, first: Option<i64>) -> Record {
        let archive = |first| record::Archive { history: HISTORY.to_owned(), first, last: 900 };
        Record {
            schema: record::SCHEMA,
            role: "joiner".to_owned(),
            peer: Some(Peer { name: Some(donor.to_owned()), ..Peer::default() }),
            connected_ms: Some(at),
            method: Some(Method::Files),
            archive: first.map(archive),
            ..Record::default()
        }
    }

    fn names(all: &[ArchiveReach]) -> Vec<(&str, i64)> {
        all.iter().map(|reach| (reach.member.as_deref().unwrap_or_default(), reach.first.0)).collect()
    }

    #[test]
    fn the_last_word_of_each_donor_counts() {
        let two = [record("n2", 30, Some(7)), record("n1", 10, Some(1)), record("n2", 20, Some(5))];
        assert_eq!(names(&reported(&two)), [("n1", 1), ("n2", 7)]);
        let reach = &reported(&two)[0];
        assert_eq!((reach.count(), reach.reported_ms), (900, Some(10)));
        assert!(reach.in_words().starts_with("as of the transfer at 1970-01-0"), "{}", reach.in_words());
        assert!(reach.in_words().ends_with(", n1's archive reached back to 1 (900 write-sets)"));

        let gone = [record("n1", 10, Some(1)), record("n1", 20, None)];
        assert!(reported(&gone).is_empty());
        // A transfer that was over before the donor could report.
        let early = [record("n1", 10, Some(1)), Record { method: None, ..record("n1", 20, None) }];
        assert_eq!(names(&reported(&early)), [("n1", 1)]);
        let unlike = [
            Record { role: "donor".to_owned(), ..record("n1", 10, Some(1)) },
            Record { peer: None, ..record("n1", 10, Some(1)) },
            Record {
                archive: Some(record::Archive { history: "x".to_owned(), first: 1, last: 2 }),
                ..record("n1", 10, None)
            },
        ];
        assert!(reported(&unlike).is_empty());
    }

    #[test]
    fn records_in_the_datadir_count_for_members_of_the_group_only() {
        let dir = tempfile::tempdir().unwrap();
        let write = |number: u32, text: &str| {
            std::fs::write(dir.path().join(format!("rejoin-joiner-2026010{number}-000000-1.json")), text)
                .unwrap();
        };
        write(1, &record("n1", 10, Some(1)).to_text());
        write(2, &record("gone", 20, Some(1)).to_text());
        // Of an earlier release, and one that is torn.
        write(3, r#"{"schema":1,"role":"joiner","method":"files","peer":{"name":"n2"}}"#);
        write(4, "{");
        let member = |name: &str| {
            let state = formats::galera::conf_change::MemberState::Synced;
            let name = name.to_owned();
            let member = Member { name, segment: 0, state, stateless: false, lowest_cached: None };
            Known::not_asked(member, Origin::Nothing(String::new()))
        };
        let group = Group {
            history: HISTORY.parse().unwrap(),
            newest: Seqno(1_000),
            members: vec![member("n1"), member("n2")],
            age: None,
            pace: None,
        };
        assert_eq!(names(&archives(&group, None, dir.path()).unwrap()), [("n1", 1)]);
        assert!(archives(&group, None, &dir.path().join("none")).unwrap().is_empty());
        assert!(archives(&group, Some(&dir.path().join("none")), dir.path()).is_err());
    }
}
