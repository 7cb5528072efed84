//! Names and values of the server's options, by the rules of mysys/my_getopt.c (MariaDB 10.11).

/// An option's name in its normal form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Normalised {
    /// With `-` for `_`, without `loose-` and without a switching prefix.
    pub name: String,
    /// The value of a switching prefix: `skip-` and `disable-` false, `enable-` true.
    pub switch: Option<bool>,
}

/// Options whose own name begins with `skip-` (sql/mysqld.cc and sys_vars.cc, MariaDB 10.11): not the negation of
/// another. And `skip-engines`, an option of `[sst]`.
const NAMED_SKIP: [&str; 9] = [
    "skip-bdb",
    "skip-engines",
    "skip-grant-tables",
    "skip-host-cache",
    "skip-name-resolve",
    "skip-networking",
    "skip-replica-start",
    "skip-show-database",
    "skip-slave-start",
];

/// Normalises a name (with or without `--`). Case counts. Abbreviations, which the server accepts as long as
/// they are unique, are not resolved.
pub fn normalise(name: &str) -> Normalised {
    let name = name.strip_prefix("--").unwrap_or(name).replace('_', "-");
    let name = name.strip_prefix("loose-").unwrap_or(&name);
    let plain = |switch, name: &str| Normalised { name: name.to_owned(), switch };
    if NAMED_SKIP.contains(&name) {
        return plain(None, name);
    }
    for (prefix, switch) in [("skip-", false), ("disable-", false), ("enable-", true)] {
        if let Some(rest) = name.strip_prefix(prefix).filter(|rest| !rest.is_empty()) {
            return plain(Some(switch), rest);
        }
    }
    plain(None, name)
}

/// Parses a size: decimal digits, then nothing or one of `k m g t p e` in either case, each 1024 times the
/// previous one. As in the server, characters after that letter are ignored (`64MB` is `64M`). `None` for
/// anything else and for values above 64 bits.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, suffix) = text.split_at_checked(end)?;
    let shift = match suffix.bytes().next().map(|b| b.to_ascii_lowercase()) {
        None => 0,
        Some(b'k') => 10,
        Some(b'm') => 20,
        Some(b'g') => 30,
        Some(b't') => 40,
        Some(b'p') => 50,
        Some(b'e') => 60,
        Some(_) => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Parses a switch: `1 on true yes`, and the empty text of an option without a value, are true; `0 off false
/// no` are false; in any case of letters. `yes` and `no` are our addition: the server takes them for false
/// with a warning.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "" | "1" | "on" | "true" | "yes" => Some(true),
        "0" | "off" | "false" | "no" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names() {
        for (written, name, switch) in [
            ("log_bin", "log-bin", None),
            ("--loose-innodb_x", "innodb-x", None),
            ("skip-log-bin", "log-bin", Some(false)),
            ("loose_skip_log_bin", "log-bin", Some(false)),
            ("enable-x", "x", Some(true)),
            ("disable_x", "x", Some(false)),
            ("skip-networking", "skip-networking", None),
            ("skip_name_resolve", "skip-name-resolve", None),
            ("skip-", "skip-", None),
        ] {
            assert_eq!(normalise(written), Normalised { name: name.into(), switch }, "{written}");
        }
    }

    #[test]
    fn sizes() {
        for (text, size) in [
            ("0", Some(0)),
            (" 128 ", Some(128)),
            ("1k", Some(1024)),
            ("1G", Some(1 << 30)),
            ("15E", Some(15 << 60)),
            ("16E", None),
            ("18446744073709551616", None),
            ("64MB", Some(64 << 20)),
            ("1x", None),
            ("", None),
            ("G", None),
            ("-1", None),
        ] {
            assert_eq!(parse_size(text), size, "{text}");
        }
    }

    #[test]
    fn switches() {
        assert_eq!(parse_bool("ON"), Some(true));
        assert_eq!(parse_bool(""), Some(true));
        assert_eq!(parse_bool("False"), Some(false));
        assert_eq!(parse_bool("2"), None);
    }

    proptest! {
        #[test]
        fn normalising_again_changes_no_dash(name in "[a-z_-]{0,20}") {
            prop_assert!(!normalise(&name).name.contains('_'));
        }

        #[test]
        fn never_panics(text in ".{0,30}") {
            let _ = (normalise(&text), parse_size(&text), parse_bool(&text));
        }
    }
}
