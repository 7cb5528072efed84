//! What a transfer leaves on the joiner's server for the next one. 10.11 runs the donor's program again after it was killed, and only
//! the first one saw the server's settings as they were. It is the comment of a database, which one statement changes.
//!
//! The note is there before the first setting is changed, and stays until the last one is back: the program may be killed between any
//! two statements.
use super::joiner::NOT_UNDERSTOOD;
use crate::sql::definitions::Database;
use crate::sql::{Answer, Session, SqlError};

/// Settings of the whole server that a transfer changes, with the value that it needs.
const FOR_THE_TIME: [(&str, &str); 2] = [
    // Rows come over the connection.
    ("local_infile", "ON"),
    // Events of the old data must not run on the new one.
    ("event_scheduler", "OFF"),
];
/// The database with the note. It stays when the others are removed.
pub(super) const NOTE: &str = "#rejoin-incoming-note";
/// The word of [`Note::replacing`].
const REPLACING: &str = "replacing";

/// What the next transfer must know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Note {
    /// The server's `wsrep_gcomm_uuid`, which is another one whenever it joins.
    pub member: String,
    /// Settings as they were before the transfer.
    pub before: Vec<(&'static str, String)>,
    /// The old data was being replaced.
    pub replacing: bool,
}

/// A server that has settings and notes.
pub(super) trait Server {
    /// Changes a setting of the whole server.
    fn set(&mut self, variable: &str, value: &str) -> Answer<()>;
    /// Leaves a note, in place of an earlier one.
    fn leave(&mut self, note: &Note) -> Answer<()>;
    /// Removes the note.
    fn remove(&mut self) -> Answer<()>;
}

/// A statement that the server refuses: what it was about.
pub(super) type Refused = (String, SqlError);

/// The settings are as they were, so the note may go.
#[must_use]
pub(super) struct PutBack(());

impl PutBack {
    /// Removes the note.
    pub fn forget(self, server: &mut impl Server) -> Answer<()> {
        server.remove()
    }
}

impl Note {
    /// What must be noted of a server with settings as they are `now`, on which an earlier transfer may have left a note.
    pub fn of(member: &str, now: impl Fn(&str) -> String, left: Option<&str>) -> Note {
        let left = left.map(Note::read).unwrap_or_default();
        let changed = FOR_THE_TIME.iter().filter_map(|(name, wanted)| {
            let value = now(name);
            (!value.is_empty() && value != *wanted && value != "DISABLED").then_some((*name, value))
        });
        let mut before: Vec<(&str, String)> = changed.collect();
        // Of a server that was started since, these are its options'.
        if left.member == member {
            let known = |(name, _): &(&str, String)| !before.iter().any(|(known, _)| known == name);
            let unknown: Vec<_> = left.before.into_iter().filter(known).collect();
            before.extend(unknown);
        }
        Note { member: member.to_owned(), before, replacing: left.replacing }
    }

    /// Leaves the note and changes the settings for the time of the transfer.
    ///
    /// # Errors
    /// The server refuses it.
    pub fn change(&self, server: &mut impl Server) -> Result<(), Refused> {
        server.leave(self).map_err(|e| ("a database for a note".to_owned(), e))?;
        let changed = |(name, _): &&(&str, &str)| self.before.iter().any(|(changed, _)| changed == name);
        FOR_THE_TIME.iter().filter(changed).try_for_each(|(variable, wanted)| {
            server.set(variable, wanted).map_err(|e| (format!("{variable}={wanted}"), e))
        })
    }

    /// Puts the settings back.
    ///
    /// # Errors
    /// Those that stay changed.
    pub fn put_back(&self, server: &mut impl Server) -> Result<PutBack, Vec<Refused>> {
        let refused = self.before.iter().filter_map(|(variable, value)| {
            let error = server.set(variable, value).err()?;
            Some((format!("{variable} stays changed, it was {value}"), error))
        });
        let refused: Vec<Refused> = refused.collect();
        if refused.is_empty() { Ok(PutBack(())) } else { Err(refused) }
    }

    /// As the comment of a database.
    pub fn text(&self) -> String {
        let settings = self.before.iter().map(|(name, value)| format!(" {name}={value}"));
        let replacing = if self.replacing { format!(" {REPLACING}") } else { String::new() };
        format!("member={}{}{replacing}", self.member, settings.collect::<String>())
    }

    /// From the comment of a database. What is not known is left out.
    pub fn read(comment: &str) -> Note {
        let mut note = Note::default();
        for word in comment.split_whitespace() {
            match word.split_once('=') {
                Some(("member", uuid)) => uuid.clone_into(&mut note.member),
                Some((name, value)) => {
                    let known = FOR_THE_TIME.iter().find(|(known, _)| *known == name);
                    note.before.extend(known.map(|(known, _)| (*known, value.to_owned())));
                }
                None => note.replacing |= word == REPLACING,
            }
        }
        note
    }
}

impl Server for Session {
    fn set(&mut self, variable: &str, value: &str) -> Answer<()> {
        self.set_global(variable, value)
    }

    fn leave(&mut self, note: &Note) -> Answer<()> {
        let database = Database {
            name: NOTE.to_owned(),
            character_set: "utf8mb4".to_owned(),
            collation: "utf8mb4_general_ci".to_owned(),
            comment: note.text(),
        };
        match self.create_database(NOTE).and_then(|()| self.alter_database(&database)) {
            // Databases have no comments before 10.5.
            Err(e) if e.code == NOT_UNDERSTOOD => Ok(()),
            left => left,
        }
    }

    fn remove(&mut self) -> Answer<()> {
        self.drop_database(NOTE)
    }
}

#[cfg(test)]
#[path = "note_tests.rs"]
mod tests;
