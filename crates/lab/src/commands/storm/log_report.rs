//! What rejoin told in an error log of how it took the donor's data; other methods tell nothing.

use rejoin_lab::Position;

/// What one host told of one transfer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogReport {
    /// Which snapshot served.
    pub snapshot: Option<SnapshotKind>,
    /// The consistency point.
    pub moment: Option<ConsistencyPoint>,
    /// The position of mariadb-backup's backup.
    pub backup: Option<Position>,
    /// Newer checkpoints at which recovery was made to start.
    pub newer: Option<u32>,
}

/// Which snapshot served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotKind {
    /// The donor went on working.
    Online,
    /// It took the blocking snapshot, for this reason.
    Blocking(String),
    /// mariadb-backup took it.
    Mariabackup,
    /// Definitions and rows, for this reason.
    Logical(String),
}

/// The consistency point: milliseconds, but for the tries.
#[derive(Debug, Clone, PartialEq)]
pub struct ConsistencyPoint {
    pub position: Position,
    pub paused: f64,
    pub commits_held: f64,
    pub tries: u32,
    pub failed_held: f64,
}

impl LogReport {
    /// Reads what was logged of one transfer; of several tries the last one counts.
    pub fn read(log: &str) -> Self {
        Self {
            snapshot: last(log, "snapshot: ", snapshot),
            moment: last(log, "the consistency point is at ", moment),
            backup: last(log, "made the backup; it is at ", Position::parse),
            newer: last(log, "redo: ", newer),
        }
    }
}

/// What the last line says that has these words and can be read.
fn last<T>(log: &str, words: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
    log.lines().rev().find_map(|line| read(without_time(line.split_once(words)?.1.trim())))
}

/// What goes to a server's log ends with its time in brackets.
fn without_time(text: &str) -> &str {
    let is_time = |end: &str| end.get(..8).is_some_and(|day| day.bytes().all(|byte| byte.is_ascii_digit()));
    text.rsplit_once(" (").filter(|(_, end)| is_time(end)).map_or(text, |(said, _)| said)
}

fn snapshot(text: &str) -> Option<SnapshotKind> {
    let (kind, why) = text.split_once(' ').unwrap_or((text, ""));
    let why = why.strip_prefix('(').and_then(|why| why.strip_suffix(')')).unwrap_or(why).to_owned();
    match kind {
        "online" => Some(SnapshotKind::Online),
        "blocking" => Some(SnapshotKind::Blocking(why)),
        "mariabackup" => Some(SnapshotKind::Mariabackup),
        "logical" => Some(SnapshotKind::Logical(why)),
        _ => None,
    }
}

fn moment(text: &str) -> Option<ConsistencyPoint> {
    let (position, rest) = text.split_once(": ").unwrap_or((text, ""));
    let tries = rest.split(", ").find_map(|part| {
        let (number, what) = part.split_once(' ')?;
        matches!(what, "tries" | "try").then(|| number.parse().ok())?
    });
    Some(ConsistencyPoint {
        position: Position::parse(position)?,
        paused: after(rest, "replication paused for "),
        commits_held: after(rest, "commits held for "),
        tries: tries.unwrap_or(1),
        failed_held: after(rest, "failed tries held "),
    })
}

fn newer(text: &str) -> Option<u32> {
    text.split_once(" not sent because of ")?.1.split(' ').next()?.parse().ok()
}

/// The number behind `lead`, 0 when it is not told.
fn after(text: &str, lead: &str) -> f64 {
    let number = text.split_once(lead).and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    number.unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_sources_are_read() {
        let log = "x WSREP_SST: [INFO] snapshot: online\n\
            y WSREP_SST: [INFO] the consistency point is at 2f0eaefd-0000-11f0-a0a0-000000000000:77: replication paused \
            for 41.5 ms (granted after 3 ms), commits held for 7 ms, 3 files read in it, 2 tries, failed tries held 12.0 ms\n\
            y WSREP_SST: [INFO] snapshot: 1.4 GiB of data files in 4.0 s and 3 passes; at most 1 MiB of redo waiting to be read\n";
        let told = LogReport::read(log);
        assert_eq!(told.snapshot, Some(SnapshotKind::Online));
        let moment = told.moment.expect("a moment");
        assert_eq!((moment.position.seqno, moment.tries), (77, 2));
        assert_eq!((moment.paused, moment.commits_held, moment.failed_held), (41.5, 7.0, 12.0));

        let log = format!(
            "{log}y WSREP_SST: [INFO] redo: 12 bytes to replay; 34 bytes were not sent because of 2 newer checkpoints (1 KiB of pages read again)\n"
        );
        assert_eq!(LogReport::read(&log).newer, Some(2));
        let log = format!(
            "{log}z WSREP_SST: [INFO] snapshot: blocking (no consistency point within 60 s (held)) (20261127 00:52:32.027)\n"
        );
        let why = "no consistency point within 60 s (held)".to_owned();
        assert_eq!(LogReport::read(&log).snapshot, Some(SnapshotKind::Blocking(why)));
        let log = "x WSREP_SST: [INFO] snapshot: mariabackup (snapshot=mariabackup is set on the donor)\n\
            y WSREP_SST: [INFO] mariadb-backup 10.11.19-MariaDB made the backup; it is at 2f0eaefd-0000-11f0-a0a0-000000000000:9\n";
        let told = LogReport::read(log);
        assert_eq!(told.snapshot, Some(SnapshotKind::Mariabackup));
        assert_eq!(told.backup.map(|position| position.seqno), Some(9));
        let log = "x WSREP_SST: [INFO] snapshot: logical (innodb_page_size differs: donor 16384, joiner 8192)\n\
            y WSREP_SST: [INFO] the consistency point is at 2f0eaefd-0000-11f0-a0a0-000000000000:9: locks held until everything \
            was read (the tables changed 2 times, the last time a table was changed by DDL while rows were read), 3 tries\n";
        let told = LogReport::read(log);
        let why = "innodb_page_size differs: donor 16384, joiner 8192".to_owned();
        assert_eq!(told.snapshot, Some(SnapshotKind::Logical(why)));
        assert_eq!(told.moment.map(|moment| (moment.position.seqno, moment.tries)), Some((9, 3)));
        assert_eq!(LogReport::read("nothing of the kind\n"), LogReport::default());
    }
}
