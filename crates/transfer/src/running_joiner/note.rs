//! What a transfer leaves on the joiner's server for the next one. 10.11 runs the donor's program again after it was killed, and only
//! the first one saw the server's settings as they were. It is the comment of a database, which one statement changes.

/// Settings of the whole server that a transfer changes, with the value that it needs.
pub(super) const FOR_THE_TIME: [(&str, &str); 2] = [
    // Rows come over the connection.
    ("local_infile", "ON"),
    // Events of the old data must not run on the new one.
    ("event_scheduler", "OFF"),
];
/// The database with the note. It is removed with the others, when there is nothing to know any more.
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

impl Note {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::logical::INCOMING;

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let settings = vec![("local_infile", "OFF".to_owned()), ("event_scheduler", "ON".to_owned())];
        let uuid = "2f0eaefd-0000-11f0-a0a0-000000000000".to_owned();
        let note = Note { member: uuid, before: settings, replacing: true };
        assert_eq!(Note::read(&note.text()), note);
        let note = Note { replacing: false, ..note };
        assert_eq!(Note::read(&note.text()), note);
        assert_eq!(Note::read("an operator's own words max_connections=5"), Note::default());
        // It goes with the other databases, and is no data.
        assert!(NOTE.starts_with(INCOMING));
    }
}
