//! The options of all files and of the command line, in the server's order.

use super::option_name::normalise;

/// One option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The group that it was in.
    pub group: String,
    /// Normalised name.
    pub name: String,
    /// Value; `None` for a bare name. A switching prefix becomes the value `0` or `1`.
    pub value: Option<String>,
}

/// Options in order; the last setting of an option counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OptionSet {
    entries: Vec<Entry>,
}

impl OptionSet {
    /// Adds one option, after all others.
    pub fn push(&mut self, group: &str, name: &str, value: Option<&str>) {
        let name = normalise(name);
        // `skip-x` needs no value; `skip-x=0` sets x after all.
        let value = match (name.switch, value) {
            (None, value) => value.map(str::to_owned),
            (Some(on), Some("0")) => Some(u8::from(!on).to_string()),
            (Some(on), _) => Some(u8::from(on).to_string()),
        };
        self.entries.push(Entry { group: group.to_owned(), name: name.name, value });
    }

    /// Adds a server's command line as options of `group`. It comes last, so it wins. Supports
    /// `--name=value`, `--name value` and `--name`; one-letter options and other words are skipped.
    pub fn overlay_argv(&mut self, group: &str, argv: &[String]) {
        let mut words = argv.iter().map(String::as_str).peekable();
        while let Some(word) = words.next() {
            let Some(body) = word.strip_prefix("--").filter(|body| !body.is_empty()) else { continue };
            match body.split_once('=') {
                Some((name, value)) => self.push(group, name, Some(value)),
                None => {
                    let value = words.next_if(|next| !next.starts_with('-'));
                    self.push(group, body, value);
                }
            }
        }
    }

    /// The last option of that name in any of the groups.
    pub fn entry(&self, groups: &[&str], name: &str) -> Option<&Entry> {
        let wanted = normalise(name).name;
        self.entries.iter().rev().find(|e| e.name == wanted && groups.contains(&e.group.as_str()))
    }

    /// Its value; `Some("")` for a bare name, which [`super::option_name::parse_bool`] reads as true.
    pub fn get(&self, groups: &[&str], name: &str) -> Option<&str> {
        self.entry(groups, name).map(|entry| entry.value.as_deref().unwrap_or_default())
    }

    /// Like [`Self::get`], but groups are tried in order and the first that has the option wins, wherever it
    /// is: wsrep_sst_common's `parse_cnf` searches its group lists like this.
    pub fn get_in_order(&self, groups: &[&str], name: &str) -> Option<&str> {
        groups.iter().find_map(|group| self.get(&[group], name))
    }

    /// All options in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

impl<'a> FromIterator<(&'a str, &'a str, Option<&'a str>)> for OptionSet {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str, Option<&'a str>)>>(iter: I) -> Self {
        let mut set = OptionSet::default();
        for (group, name, value) in iter {
            set.push(group, name, value);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_last_counts_and_the_command_line_is_last() {
        let mut set: OptionSet = [
            ("mysqld", "datadir", Some("/a")),
            ("sst", "datadir", Some("/s")),
            ("mysqld", "innodb_data_home_dir", None),
            ("mariadb", "log_bin", Some("x")),
            ("mysqld", "skip-log-bin", None),
        ]
        .into_iter()
        .collect();
        assert_eq!(set.get(&["mysqld", "sst"], "datadir"), Some("/s"));
        assert_eq!(set.get_in_order(&["mysqld", "sst"], "datadir"), Some("/a"));
        assert_eq!(set.get(&["mysqld"], "innodb-data-home-dir"), Some(""));
        assert_eq!(set.get(&["mysqld", "mariadb"], "log-bin"), Some("0"));
        assert_eq!(set.get(&["client"], "datadir"), None);
        let argv = ["--datadir=/b", "--log_bin", "--tmpdir", "/t", "-x", "stray"].map(str::to_owned);
        set.overlay_argv("mysqld", &argv);
        assert_eq!(set.get(&["mysqld", "sst"], "datadir"), Some("/b"));
        assert_eq!(set.get(&["sst"], "datadir"), Some("/s"));
        assert_eq!(set.get(&["mysqld"], "tmpdir"), Some("/t"));
        assert_eq!(set.entry(&["mysqld"], "log-bin").unwrap().value, None);
        assert_eq!(set.entries().len(), 8);
    }

    #[test]
    fn double_negation() {
        let mut set = OptionSet::default();
        set.push("g", "skip-x", Some("0"));
        assert_eq!(set.get(&["g"], "x"), Some("1"));
    }

    proptest! {
        #[test]
        fn never_panics(argv in prop::collection::vec(".{0,12}", 0..8)) {
            let mut set = OptionSet::default();
            set.overlay_argv("g", &argv);
            prop_assert!(set.entries().len() <= argv.len());
        }
    }
}
