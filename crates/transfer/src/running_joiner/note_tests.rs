use std::collections::BTreeMap;

use super::*;
use crate::snapshot::logical::INCOMING;

/// The joiner's server, and how many statements it gets before the donor's program is killed.
struct Joiner {
    settings: BTreeMap<String, String>,
    note: Option<String>,
    left: usize,
}

impl Joiner {
    fn new(settings: &[(&str, &str)]) -> Joiner {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Joiner { settings: settings.collect(), note: None, left: 0 }
    }

    fn statement(&mut self) -> Answer<()> {
        self.left = self.left.checked_sub(1).ok_or_else(SqlError::lost)?;
        Ok(())
    }

    /// One program's transfer, as far as this is about settings. Returns whether it lived to its end.
    fn transfer(&mut self, statements: usize) -> bool {
        self.left = statements;
        let now = |name: &str| self.settings.get(name).cloned().unwrap_or_default();
        let note = Note::of("n2", now, self.note.as_deref());
        let live = |joiner: &mut Joiner| -> Answer<()> {
            note.change(joiner).map_err(|(_, error)| error)?;
            joiner.leave(&Note { replacing: true, ..note.clone() })?;
            joiner.leave(&Note { replacing: false, ..note.clone() })?;
            let back = note.put_back(joiner).map_err(|mut refused| refused.remove(0).1)?;
            back.forget(joiner)
        };
        live(self).is_ok()
    }
}

impl Server for Joiner {
    fn set(&mut self, variable: &str, value: &str) -> Answer<()> {
        self.statement()?;
        self.settings.insert(variable.to_owned(), value.to_owned());
        Ok(())
    }

    fn leave(&mut self, note: &Note) -> Answer<()> {
        self.statement()?;
        self.note = Some(note.text());
        Ok(())
    }

    fn remove(&mut self) -> Answer<()> {
        self.statement()?;
        self.note = None;
        Ok(())
    }
}

/// Whatever the statement after which the program is killed: what is changed is noted, and the next program puts it back.
#[test]
fn a_setting_that_is_changed_is_noted_until_it_is_back() {
    for options in [
        [("local_infile", "OFF"), ("event_scheduler", "ON")],
        [("local_infile", "ON"), ("event_scheduler", "ON")],
    ] {
        let original = Joiner::new(&options).settings;
        for killed_after in 0.. {
            let mut joiner = Joiner::new(&options);
            let lived = joiner.transfer(killed_after);
            let noted = joiner.note.as_deref().map(Note::read).unwrap_or_default().before;
            for (name, value) in original.iter().filter(|(name, value)| joiner.settings[*name] != **value) {
                let is_noted = noted.iter().any(|(noted, before)| noted == name && before == value);
                assert!(is_noted, "{name} was {value}, killed after {killed_after} statements: {noted:?}");
            }
            if lived {
                assert_eq!((&joiner.settings, joiner.note), (&original, None));
                break;
            }
            // The next one may be killed as well.
            joiner.transfer(killed_after / 2);
            assert!(joiner.transfer(100));
            assert_eq!((&joiner.settings, joiner.note), (&original, None), "killed after {killed_after}");
        }
    }
}

/// A server that was started since has the settings of its option file.
#[test]
fn settings_of_another_member_do_not_count() {
    let now = |name: &str| if name == "local_infile" { "ON" } else { "OFF" }.to_owned();
    let left = "member=n1 local_infile=OFF event_scheduler=ON replacing";
    assert_eq!(Note::of("n2", now, Some(left)), Note { replacing: true, ..Note::read("member=n2") });
    assert_eq!(Note::of("n1", now, Some(left)), Note::read(left));
    assert_eq!(Note::of("n1", now, None), Note::read("member=n1"));
}

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
