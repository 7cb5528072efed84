//! The record of one transfer, as one host saw it. `docs/report.md` documents every field.
use serde::{Deserialize, Serialize};

/// The version of the schema. A new field does not change it; a field with another meaning does.
pub const SCHEMA: u32 = 1;
/// Records that are longer than this are not read.
pub const RECORD_BYTES_MAX: u64 = 4 << 20;
/// Most phases, most waits and most times of reading slowly in a record.
pub const PHASES_MAX: usize = 200;
/// Most samples in a record.
pub const SAMPLES_MAX: usize = 500;
/// Most tables in a record; the bytes of all others are one sum.
pub const TABLES_MAX: usize = 200;
/// Most changes of options in a record.
pub const CHANGES_MAX: usize = 100;
/// Most attempts in a record.
pub const ATTEMPTS_MAX: usize = 20;
/// Texts are cut to this many characters.
pub const TEXT_MAX: usize = 4000;
/// Names are cut to this many characters.
pub const NAME_MAX: usize = 300;

/// The outcome of a transfer without a failure.
pub const OK: &str = "ok";

/// A transfer, as one host saw it. All times are milliseconds since 1970 by that host's clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The program and its version.
    pub program: String,
    /// Equal on both hosts; `None` if the transfer ended before the secret was known.
    pub id: Option<String>,
    /// `joiner` or `donor`.
    pub role: String,
    /// This node's name.
    pub node: String,
    /// The other host, once there was a connection.
    pub peer: Option<Peer>,
    /// When the program began.
    pub began_ms: u64,
    /// When the control connection was made: the same instant on both hosts.
    pub connected_ms: Option<u64>,
    /// When the transfer ended. `None`: it was running when the record was written, or the program was killed.
    pub ended_ms: Option<u64>,
    /// When the record was written.
    pub written_ms: u64,
    /// `ok` or the reason of the failure, once the transfer has ended.
    pub outcome: Option<String>,
    /// What was sent, once that was known.
    pub method: Option<Method>,
    /// The attempts, each from a snapshot of its own; the last one counts.
    pub attempts: Vec<Attempt>,
    /// Positions (`UUID:SEQNO`).
    pub position: Positions,
    /// Joiner: what the donor's archive of write-sets held, if the donor said so.
    pub archive: Option<Archive>,
    /// Why the donor's archive of write-sets did not bring the joiner back, if the donor has one: the line of both logs.
    pub no_deep_ist: Option<String>,
    /// What was expected before anything was sent.
    pub plan: Option<Plan>,
    /// What happened.
    pub bytes: Bytes,
    /// Donor: newer checkpoints to which recovery was moved, so that less redo was sent.
    pub redo_rounds: Option<u64>,
    /// Donor: how long replication or writes stood still, once for each time.
    pub pauses: Vec<Pause>,
    /// The phases, in order.
    pub phases: Vec<Phase>,
    /// What was waited for, within the phases.
    pub waits: Vec<Phase>,
    /// Donor: when it read its files more slowly than it could, for its server's sake, and why.
    pub slowed: Vec<Phase>,
    /// Donor: the options that an operator changed meanwhile (`rejoin set`).
    pub changes: Vec<Change>,
    /// Counts over time.
    pub samples: Vec<Sample>,
    /// Bytes by table, the largest first.
    pub tables: Vec<Table>,
    /// The sum of all other tables.
    pub other_tables: Option<Table>,
    /// Settings that change how long a transfer takes.
    pub settings: Settings,
}

/// The other host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Peer {
    /// Its node name, if it told it.
    pub name: Option<String>,
    /// `HOST:PORT`.
    pub address: String,
    /// The program and its version.
    pub program: String,
}

/// What was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Nothing: IST follows.
    Ist,
    /// Write-sets of the donor's archive (deep IST).
    WriteSets,
    /// Files.
    Files,
}

/// One attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attempt {
    /// When it began.
    pub began_ms: u64,
    /// `online`, `blocking`, `mariabackup` or `logical`.
    pub snapshot: String,
    /// Why this kind of snapshot was taken, or empty.
    pub reason: String,
}

/// Positions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Positions {
    /// Joiner: of its files before, at their last checkpoint.
    pub before: Option<String>,
    /// Of the state that was sent.
    pub after: Option<String>,
}

/// An archive of write-sets: what it holds without a gap, up to its newest one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Archive {
    /// The history, a UUID.
    pub history: String,
    /// The first write-set.
    pub first: i64,
    /// The last one.
    pub last: i64,
}

/// What was expected. Estimates that were not made are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Plan {
    /// The plan line of both logs.
    pub words: String,
    /// Everything is sent, nothing is compared.
    pub full: bool,
    /// Bytes of the files.
    pub total: u64,
    /// Bytes that will be sent at most.
    pub sent: Option<u64>,
    /// The same where only parts of pages are sent: the rest of these pages is rebuilt.
    pub sent_in_parts: Option<u64>,
    /// Bytes that will be sent at least.
    pub sent_at_least: Option<u64>,
    /// Blocks of the joiner's files that were sampled.
    pub sampled_blocks: Option<u64>,
    /// Blocks of these that the donor has too.
    pub equal_blocks: Option<u64>,
    /// Bytes of redo.
    pub redo: Option<u64>,
    /// Newer checkpoints that will be asked for.
    pub redo_rounds: Option<u64>,
    /// How long the joiner's server will replay the redo.
    pub recovery_ms: Option<u64>,
    /// Write-sets (deep IST).
    pub write_sets: Option<u64>,
    /// Bytes of them.
    pub write_set_bytes: Option<u64>,
}

/// Bytes of one transfer. `sent`, `reused`, `rebuilt` and `zero` add up to what was handled, which is more than `total` if
/// something was read again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bytes {
    /// Of all files and the redo, as far as was known.
    pub total: u64,
    /// Of files, sent, before compression.
    pub sent: u64,
    /// Taken from the joiner's own files.
    pub reused: u64,
    /// Taken from the joiner's version of pages of which only parts were sent.
    pub rebuilt: u64,
    /// Zeros, which are not sent.
    pub zero: u64,
    /// Of redo, sent, before compression; not part of `sent`.
    pub redo: u64,
    /// On the network, in both directions, with the overhead of encryption.
    pub network: u64,
    /// Of write-sets, before compression (deep IST).
    pub write_sets: u64,
    /// Of this host's files, read to be sent or compared.
    pub read: u64,
    /// Of this host's files, not read, because their fingerprints were remembered.
    pub remembered: u64,
}

/// A time in which the donor's server stood still.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pause {
    /// `replication` was paused, or `writes` were blocked.
    pub what: String,
    /// When it ended.
    pub ended_ms: u64,
    /// How long it took, in microseconds.
    pub took_us: u64,
}

/// A phase, or a wait.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// When it began.
    pub began_ms: u64,
    /// When it ended; of the current one, when the record was written.
    pub ended_ms: u64,
}

impl Phase {
    /// How long it took.
    pub fn ms(&self) -> u64 {
        self.ended_ms.saturating_sub(self.began_ms)
    }
}

/// An option that was changed while the transfer ran.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Change {
    /// When it came into effect.
    pub at_ms: u64,
    /// `rlimit=BYTES` (0: no limit) or `adaptive-throttle=0|1`.
    pub set: String,
    /// The id of the user who changed it.
    pub user: u32,
}

/// Counts at one time, all since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// Milliseconds since the transfer began.
    pub ms: u64,
    /// Bytes on the network.
    pub network: u64,
    /// Bytes of files that are complete; starts again with each attempt.
    pub done: u64,
}

/// A table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Table {
    /// `database.table`, or in parentheses what else it is.
    pub name: String,
    /// As in [`Bytes`].
    pub sent: u64,
    /// As in [`Bytes`].
    pub reused: u64,
    /// As in [`Bytes`].
    pub rebuilt: u64,
    /// As in [`Bytes`].
    pub zero: u64,
}

impl Table {
    /// All bytes that were handled.
    pub fn all(&self) -> u64 {
        self.sent.saturating_add(self.reused).saturating_add(self.rebuilt).saturating_add(self.zero)
    }
}

/// Settings of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// `threads`.
    pub threads: u64,
    /// `rlimit`, in bytes per second.
    pub rlimit: Option<u64>,
    /// `incremental`.
    pub incremental: bool,
}

impl Record {
    /// Reads a record. What is longer than a record may be is cut.
    ///
    /// # Errors
    /// The text is not a record, or one of a newer schema.
    pub fn parse(text: &str) -> Result<Record, String> {
        if text.len() as u64 > RECORD_BYTES_MAX {
            return Err(format!("longer than a record can be ({} bytes)", text.len()));
        }
        let mut record: Record =
            serde_json::from_str(text).map_err(|error| format!("not the record of a transfer: {error}"))?;
        match record.schema {
            0 => return Err("not the record of a transfer: it has no schema".to_owned()),
            SCHEMA => {}
            newer => {
                let text = format!(
                    "a record of schema {newer}; this program knows {SCHEMA} (hint: use the newer rejoin)"
                );
                return Err(text);
            }
        }
        record.limit();
        Ok(record)
    }

    /// The record as JSON.
    pub fn to_text(&self) -> String {
        let mut record = self.clone();
        record.limit();
        serde_json::to_string(&record).unwrap_or_default()
    }

    /// Whether the transfer succeeded.
    pub fn is_ok(&self) -> bool {
        self.outcome.as_deref() == Some(OK)
    }

    /// The reason of a failure.
    pub fn failure(&self) -> Option<&str> {
        self.outcome.as_deref().filter(|outcome| *outcome != OK)
    }

    /// How long the transfer took, or has taken when the record was written.
    pub fn ms(&self) -> u64 {
        self.ended_ms.unwrap_or(self.written_ms).saturating_sub(self.began_ms)
    }

    /// Cuts everything to its limit.
    fn limit(&mut self) {
        self.attempts.truncate(ATTEMPTS_MAX);
        self.pauses.truncate(ATTEMPTS_MAX);
        self.phases.truncate(PHASES_MAX);
        self.waits.truncate(PHASES_MAX);
        self.slowed.truncate(PHASES_MAX);
        self.changes.truncate(CHANGES_MAX);
        self.samples.truncate(SAMPLES_MAX);
        self.tables.truncate(TABLES_MAX);
        let mut names = vec![&mut self.program, &mut self.role, &mut self.node];
        names.extend(
            [&mut self.id, &mut self.position.before, &mut self.position.after].into_iter().flatten(),
        );
        names.extend(self.archive.iter_mut().map(|archive| &mut archive.history));
        let times = self.phases.iter_mut().chain(&mut self.waits).chain(&mut self.slowed);
        names.extend(times.map(|phase| &mut phase.name));
        names.extend(self.tables.iter_mut().chain(&mut self.other_tables).map(|table| &mut table.name));
        names.extend(self.attempts.iter_mut().map(|attempt| &mut attempt.snapshot));
        names.extend(self.pauses.iter_mut().map(|pause| &mut pause.what));
        names.extend(self.changes.iter_mut().map(|change| &mut change.set));
        if let Some(peer) = &mut self.peer {
            names.extend([&mut peer.address, &mut peer.program]);
            names.extend(&mut peer.name);
        }
        names.into_iter().for_each(|name| cut(name, NAME_MAX));
        let reasons = self.attempts.iter_mut().map(|attempt| &mut attempt.reason);
        self.no_deep_ist.iter_mut().for_each(|why| cut(why, TEXT_MAX));
        let words = self.plan.iter_mut().map(|plan| &mut plan.words);
        self.outcome.iter_mut().chain(reasons).chain(words).for_each(|text| cut(text, TEXT_MAX));
    }
}

fn cut(text: &mut String, chars: usize) {
    if let Some((at, _)) = text.char_indices().nth(chars) {
        text.truncate(at);
        text.push('…');
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
