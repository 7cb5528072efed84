//! Names and passwords that the server passes to us.
//!
//! 10.11 puts `user:password` into the environment; 11.x writes `key=value` lines to a donor's stdin and closes it
//! (sql/wsrep_sst.cc, MariaDB 11.8; read by scripts/wsrep_sst_common.sh of the same version).

use std::fmt;

/// Text that must not appear in a log line: `Debug` and `Display` print a fixed placeholder.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps the text.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text itself; the name makes its uses easy to find.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Secret(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// Its name; may be empty.
    pub user: String,
    /// Its password; empty if there is none.
    pub password: Secret,
}

impl Account {
    /// Reads `user:password`, split at the first `:`; without one the whole text is the name. `None` for an
    /// empty text, which is what the server passes when `wsrep_sst_auth` is not set.
    pub fn from_pair(text: &str) -> Option<Account> {
        if text.is_empty() {
            return None;
        }
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        Some(Account { user: user.to_owned(), password: Secret::new(password) })
    }
}

/// What an 11.x server writes to a donor's stdin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DonorStdin {
    /// `sst_user`, `sst_password`: an account on this server.
    pub local: Option<Account>,
    /// `sst_remote_user`, `sst_remote_password`: the text before the `@` of the joiner's address.
    pub remote: Option<Account>,
}

impl DonorStdin {
    /// Parses all of stdin. Unknown keys and lines without `=` are skipped; a value ends at the newline (a
    /// carriage return before it is dropped) and may contain `=`. Bytes that are not UTF-8 are replaced; such
    /// a password does not work, which the login will report.
    pub fn parse(input: &[u8]) -> DonorStdin {
        let mut found = DonorStdin::default();
        for line in String::from_utf8_lossy(input).split('\n') {
            let line = line.strip_suffix('\r').unwrap_or(line);
            let Some((key, value)) = line.split_once('=') else { continue };
            match key.trim() {
                "sst_user" => found.local.get_or_insert_default().user = value.to_owned(),
                "sst_password" => found.local.get_or_insert_default().password = Secret::new(value),
                "sst_remote_user" => found.remote.get_or_insert_default().user = value.to_owned(),
                "sst_remote_password" => found.remote.get_or_insert_default().password = Secret::new(value),
                _ => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_an_11_8_server_writes_it() {
        let read =
            DonorStdin::parse(b"sst_user=wsrep.sst.1\nsst_password=a=b:c\nfuture=1\nsst_remote_user=t\n");
        let local = read.local.unwrap();
        assert_eq!((local.user.as_str(), local.password.reveal()), ("wsrep.sst.1", "a=b:c"));
        let remote = read.remote.unwrap();
        assert_eq!((remote.user.as_str(), remote.password.is_empty()), ("t", true));
        assert_eq!(DonorStdin::parse(b""), DonorStdin::default());
    }

    #[test]
    fn a_pair_splits_at_the_first_colon() {
        let account = Account::from_pair("root:a:b").unwrap();
        assert_eq!((account.user.as_str(), account.password.reveal()), ("root", "a:b"));
        assert_eq!(Account::from_pair("root").unwrap().password.reveal(), "");
        assert_eq!(Account::from_pair(":p").unwrap().user, "");
        assert_eq!(Account::from_pair(""), None);
    }

    #[test]
    fn a_secret_is_never_shown() {
        let account = Account::from_pair("u:hunter2").unwrap();
        assert!(!format!("{account:?} {} {:#?}", account.password, account).contains("hunter2"));
    }

    proptest! {
        #[test]
        fn never_panics(input: Vec<u8>, text in ".{0,40}") {
            let _ = DonorStdin::parse(&input);
            let _ = Account::from_pair(&text);
        }

        #[test]
        fn values_arrive_unchanged(user in "[^\r\n]{0,20}", password in "[^\r\n]{0,20}") {
            let read = DonorStdin::parse(format!("sst_user={user}\nsst_password={password}\n").as_bytes());
            let local = read.local.unwrap();
            prop_assert_eq!(local.user, user);
            prop_assert_eq!(local.password.reveal(), password);
        }
    }
}
