//! Tables without transactions (MyISAM, Aria, CSV, ARCHIVE): which there are, and for how long reading them holds writes. No view shows
//! them as they were, so they are read under locks: within the consistency point if they are small, otherwise the locks are held until
//! everything is read.
use std::collections::BTreeSet;
use std::time::Duration;

use super::error::ReadError;
use super::listing::{Kind, kind_of};
use crate::human::{seconds, size};
use crate::settings::Blocking;
use crate::sql::Session;

/// Bytes of such tables that are read within a consistency point: that takes about a second.
const IN_POINT_MAX: u64 = 32 << 20;
/// Bytes that are assumed to be read in a second.
const ASSUMED_RATE: u64 = 50 << 20;
/// A shorter time is not told from none.
const SHORT: Duration = Duration::from_millis(100);
/// Every server has a small table in it, which is read like those of `mysql` and needs no mention.
const OF_SERVER: &str = "sys";
/// Tables that are named at most.
const NAMED: usize = 3;

/// A table without transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedTable {
    /// `database.table`.
    pub name: String,
    /// Its engine.
    pub engine: String,
    /// Bytes of its rows.
    pub bytes: u64,
}

/// All of a server's, the largest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockedTables(Vec<LockedTable>);

/// Until when writes are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// These tables are read.
    TheyAreRead,
    /// All tables are read, because these are too large for a consistency point.
    AllIsRead,
    /// The transfer is over: the donor's server holds every commit itself.
    TheEnd,
}

/// How fast rows are expected to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadRate {
    /// As fast as on other servers.
    Assumed,
    /// No faster than `rlimit`, in bytes per second.
    Rlimit(u64),
}

/// For how long tables without transactions hold writes on a donor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The tables. There is at least one.
    pub tables: LockedTables,
    /// Until when.
    pub until: Until,
    /// How long that takes, or takes at least.
    pub takes: Duration,
    /// The size of what is read until then is not known: it takes longer than that.
    pub at_least: bool,
    /// The rate of that estimate.
    pub rate: ReadRate,
    /// `blocking` ends the transfer so long after the locks were taken, which is before everything is read.
    pub ended_after: Option<Duration>,
}

impl ReadRate {
    /// `rlimit` counts where it is the lower rate.
    fn of(rlimit: Option<u64>) -> ReadRate {
        rlimit.filter(|limit| *limit < ASSUMED_RATE).map_or(ReadRate::Assumed, ReadRate::Rlimit)
    }

    /// Bytes in a second.
    pub fn bytes_per_second(self) -> u64 {
        match self {
            ReadRate::Assumed => ASSUMED_RATE,
            ReadRate::Rlimit(limit) => limit.max(1),
        }
    }

    /// `assumed` or `rlimit`.
    pub fn name(self) -> &'static str {
        match self {
            ReadRate::Assumed => "assumed",
            ReadRate::Rlimit(_) => "rlimit",
        }
    }

    fn in_words(self) -> String {
        let rate = size(self.bytes_per_second());
        match self {
            ReadRate::Assumed => format!("at an assumed {rate}/s"),
            ReadRate::Rlimit(_) => format!("at the rlimit of {rate}/s"),
        }
    }

    fn time(self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.bytes_per_second() as f64)
    }
}

impl LockedTables {
    /// What a session sees of them. `skip`: engines whose tables are left out, in upper case.
    ///
    /// # Errors
    /// From the server; a table that cannot be read at all.
    pub(super) fn find(session: &mut Session, skip: &BTreeSet<String>) -> Result<LockedTables, ReadError> {
        let mut found = Vec::new();
        for listed in session.listed()? {
            if kind_of(&listed, skip)? == Kind::UnderLocks && listed.database != OF_SERVER {
                let bytes = session.extent(&listed.database, &listed.name)?.bytes;
                let name = format!("{}.{}", listed.database, listed.name);
                found.push(LockedTable { name, engine: listed.engine, bytes });
            }
        }
        Ok(LockedTables::of(found))
    }

    fn of(mut tables: Vec<LockedTable>) -> LockedTables {
        tables.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
        LockedTables(tables)
    }

    /// As [`LockedTables::find`], for a prediction: none if that cannot be found out, because then no snapshot is taken.
    pub(crate) fn seen(session: &mut Session, skip: &BTreeSet<String>) -> Option<LockedTables> {
        LockedTables::find(session, skip).ok()
    }

    /// The largest first.
    pub fn tables(&self) -> &[LockedTable] {
        &self.0
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|table| table.bytes).sum()
    }

    /// Why they cannot be read within a consistency point, if they cannot.
    pub fn too_large(&self) -> Option<String> {
        (self.bytes() > IN_POINT_MAX).then(|| {
            format!(
                "{} of tables without transactions would hold writes until everything is read, for at least {}: {}; convert them to \
                 InnoDB",
                size(self.bytes()),
                seconds(ReadRate::Assumed.time(self.bytes()).as_secs_f64()),
                self.names()
            )
        })
    }

    /// For how long they hold writes; none if there are none. `all`: bytes of all tables, if they are known. `blocking`: for how long
    /// the donor may hold locks. `server_holds`: the server holds every commit itself.
    pub fn hold(
        self,
        all: Option<u64>,
        rlimit: Option<u64>,
        blocking: Blocking,
        server_holds: bool,
    ) -> Option<Hold> {
        if self.0.is_empty() {
            return None;
        }
        let bytes = self.bytes();
        let large = bytes > IN_POINT_MAX;
        let until = match (server_holds, large) {
            (true, _) => Until::TheEnd,
            (false, true) => Until::AllIsRead,
            (false, false) => Until::TheyAreRead,
        };
        // Within a consistency point nothing is sent.
        let (rate, read) = match until {
            Until::TheyAreRead => (ReadRate::Assumed, bytes),
            Until::AllIsRead | Until::TheEnd => (ReadRate::of(rlimit), all.unwrap_or(bytes).max(bytes)),
        };
        let takes = rate.time(read);
        let at_least = until != Until::TheyAreRead && all.is_none();
        let ended_after = match blocking {
            Blocking::AtMost(limit) if large && limit < takes => Some(limit),
            _ => None,
        };
        Some(Hold { tables: self, until, takes, at_least, rate, ended_after })
    }

    /// The largest with engine and size, and how many more there are.
    fn names(&self) -> String {
        let name = |table: &LockedTable| format!("{} ({}, {})", table.name, table.engine, size(table.bytes));
        let named = self.0.iter().take(NAMED).map(name).collect::<Vec<_>>().join(", ");
        match self.0.len().saturating_sub(NAMED) {
            0 => named,
            more => format!("{named} and {more} more"),
        }
    }
}

impl Hold {
    fn time_in_words(&self) -> String {
        let takes = seconds(self.takes.as_secs_f64());
        match self.at_least {
            true => format!("at least {takes}"),
            false if self.takes < SHORT => format!("less than {}", seconds(SHORT.as_secs_f64())),
            false => format!("about {takes}"),
        }
    }

    /// A part of a sentence, without its end.
    pub fn in_words(&self) -> String {
        let Hold { tables, until, .. } = self;
        let (are, have, them) = match tables.0.len() {
            1 => ("1 table without transactions is".to_owned(), "has", "it"),
            count => (format!("{count} tables without transactions are"), "have", "them"),
        };
        let number = are.trim_end_matches(" is").trim_end_matches(" are");
        let (bytes, names, rate) = (size(tables.bytes()), tables.names(), self.rate.in_words());
        let takes = format!("{} {rate}", self.time_in_words());
        let ended = self.ended_after.map_or_else(String::new, |limit| {
            let limit = limit.as_secs();
            format!(
                "; blocking={limit} under [sst] on the donor would end the transfer after {limit} s of that"
            )
        });
        let held = match until {
            Until::TheyAreRead => {
                format!("writes on the donor wait while {are} read, {bytes} in {takes}: {names}")
            }
            Until::AllIsRead => format!(
                "all writes on the donor wait until everything is read, {takes}, because {number} {have} {bytes}: {names}; convert \
                 {them} to InnoDB to avoid that"
            ),
            Until::TheEnd => format!(
                "the donor's server holds every commit until the transfer is over, and {are} locked until everything is read, \
                 {takes}: {names}"
            ),
        };
        held + &ended
    }
}

/// Why there is no snapshot where locks may not be held for as long as `why` demands.
pub(crate) fn never_held(why: &str) -> String {
    format!("{why}, and blocking=never forbids to hold locks until they are read")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn tables(sizes: &[u64]) -> LockedTables {
        let table = |(at, bytes): (usize, &u64)| LockedTable {
            name: format!("d.t{at}"),
            engine: if at % 2 == 0 { "MyISAM" } else { "Aria" }.to_owned(),
            bytes: *bytes,
        };
        LockedTables::of(sizes.iter().enumerate().map(table).collect())
    }

    fn words(sizes: &[u64], all: Option<u64>, rlimit: Option<u64>, server_holds: bool) -> String {
        tables(sizes).hold(all, rlimit, Blocking::Auto, server_holds).expect("tables").in_words()
    }

    #[test]
    fn small_tables_hold_writes_while_they_are_read() {
        assert_eq!(tables(&[]).hold(Some(MIB), None, Blocking::Auto, true), None);
        assert_eq!(
            words(&[5 * MIB], Some(1 << 40), Some(1), false),
            "writes on the donor wait while 1 table without transactions is read, 5.0 MiB in about 0.1 s at an assumed 50.0 MiB/s: \
             d.t0 (MyISAM, 5.0 MiB)"
        );
        let tiny = words(&[16 << 10], None, None, false);
        assert!(tiny.contains("16.0 KiB in less than 0.1 s at an assumed"), "{tiny}");
        let many = words(&[MIB, 2 * MIB, 3 * MIB, 4 * MIB, 5 * MIB], None, None, false);
        let end = "5 tables without transactions are read, 15.0 MiB in about 0.3 s at an assumed 50.0 MiB/s: \
                   d.t4 (MyISAM, 5.0 MiB), d.t3 (Aria, 4.0 MiB), d.t2 (MyISAM, 3.0 MiB) and 2 more";
        assert!(many.ends_with(end), "{many}");
        assert_eq!(tables(&[32 * MIB]).too_large(), None);
    }

    #[test]
    fn large_tables_hold_writes_until_everything_is_read() {
        let large = [20 * MIB, 30 * MIB];
        assert_eq!(
            words(&large, Some(500 * MIB), None, false),
            "all writes on the donor wait until everything is read, about 10.0 s at an assumed 50.0 MiB/s, because 2 tables without \
             transactions have 50.0 MiB: d.t1 (Aria, 30.0 MiB), d.t0 (MyISAM, 20.0 MiB); convert them to InnoDB to avoid that"
        );
        let slowly =
            |blocking| tables(&large).hold(Some(500 * MIB), Some(5 * MIB), blocking, false).expect("tables");
        let slow = slowly(Blocking::Auto);
        assert_eq!((slow.takes, slow.rate.name()), (Duration::from_secs(100), "rlimit"));
        assert!(slow.in_words().contains("about 100.0 s at the rlimit of 5.0 MiB/s"), "{}", slow.in_words());
        // A limit beyond what is read anyway changes nothing.
        let fast =
            tables(&large).hold(Some(500 * MIB), Some(1 << 40), Blocking::Auto, false).expect("tables");
        assert_eq!((fast.takes, fast.rate), (Duration::from_secs(10), ReadRate::Assumed));
        let ends = "; blocking=60 under [sst] on the donor would end the transfer after 60 s of that";
        let limited = |seconds| slowly(Blocking::AtMost(Duration::from_secs(seconds)));
        assert!(limited(60).in_words().ends_with(ends), "{}", limited(60).in_words());
        assert_eq!(limited(101), slow);
        let unknown = words(&large, None, None, false);
        assert!(unknown.contains("until everything is read, at least 1.0 s"), "{unknown}");
        let why = tables(&large).too_large().expect("too large");
        assert!(why.starts_with("50.0 MiB of tables without transactions would hold writes"), "{why}");
        assert!(never_held(&why).contains("d.t1 (Aria, 30.0 MiB)"), "{why}");
    }

    #[test]
    fn a_server_that_holds_commits_itself_does_so_whatever_their_size() {
        let held = tables(&[MIB]).hold(Some(100 * MIB), None, Blocking::Auto, true).expect("tables");
        assert_eq!((held.until, held.takes), (Until::TheEnd, Duration::from_secs(2)));
        let words = held.in_words();
        assert!(
            words
                .starts_with("the donor's server holds every commit until the transfer is over, and 1 table")
        );
        assert!(words.ends_with("is locked until everything is read, about 2.0 s at an assumed 50.0 MiB/s: d.t0 (MyISAM, 1.0 MiB)"), "{words}");
    }
}
