//! The answer of `SHOW CREATE TABLE`, taken apart as far as loading rows needs it.
//!
//! From sql/sql_show.cc (`show_create_table_ex`, MariaDB 10.11): every column, key and constraint has a line of its own that
//! begins with two spaces and ends with a comma, except the last; a line feed inside a text is written `\n`. The text is
//! bytes, because a default can be of any character set.

/// The answer without the keys that can be made after the rows, and the statement fragment that makes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deferred {
    /// The statement that makes the table.
    pub create: Vec<u8>,
    /// `ADD KEY ..., ADD KEY ...`; empty if no key can wait.
    pub add: Vec<u8>,
}

/// Takes out plain secondary keys. Keys that prove something (`UNIQUE`), and those of engines' own parsers (`FULLTEXT`,
/// `SPATIAL`), stay. So do all keys of a table with a foreign key, which needs them, and of one whose counter
/// (`AUTO_INCREMENT`) may be led by one of them.
pub fn defer_keys(create: &[u8]) -> Deferred {
    let whole = || Deferred { create: create.to_vec(), add: Vec::new() };
    let mut lines: Vec<&[u8]> = create.split(|byte| *byte == b'\n').collect();
    let has = |text: &[u8]| lines.iter().any(|line| contains(line, text));
    let leads = |column: &[u8]| {
        let primary = [b"  PRIMARY KEY (".as_slice(), column].concat();
        lines.iter().any(|line| line.starts_with(&primary))
    };
    let counter_first = lines.iter().filter_map(|line| counter(line)).all(leads);
    if !counter_first || has(b" FOREIGN KEY ") {
        return whole();
    }
    let is_key = |line: &&[u8]| line.starts_with(b"  KEY `");
    let add: Vec<Vec<u8>> = lines
        .iter()
        .filter(|line| is_key(line))
        .map(|line| {
            [b"ADD ", line.trim_ascii_start().strip_suffix(b",").unwrap_or(line.trim_ascii_start())].concat()
        })
        .collect();
    if add.is_empty() {
        return whole();
    }
    lines.retain(|line| !is_key(line));
    // The last line inside the parentheses has no comma.
    let Some(end) = lines.iter().position(|line| line.starts_with(b")")).filter(|end| *end > 1) else {
        return whole();
    };
    if let Some(last) = lines.get_mut(end - 1) {
        *last = last.strip_suffix(b",").unwrap_or(last);
    }
    Deferred { create: lines.join(&b'\n'), add: add.join(b", ".as_slice()) }
}

/// The quoted name of the column that a line defines, if it counts.
fn counter(line: &[u8]) -> Option<&[u8]> {
    let column = line.strip_prefix(b"  `").filter(|_| contains(line, b" AUTO_INCREMENT"))?;
    let end = column.iter().position(|byte| *byte == b'`')?;
    line.get(2..end + 4)
}

fn contains(line: &[u8], text: &[u8]) -> bool {
    line.windows(text.len()).any(|window| window == text)
}

/// The answer without the next value of the counter, which each node counts by itself.
pub fn without_counter(create: &[u8]) -> Vec<u8> {
    const COUNTER: &[u8] = b" AUTO_INCREMENT=";
    let options = create.windows(3).rposition(|window| window == b"\n) ").unwrap_or(0);
    let (body, options) = create.split_at(options);
    let Some(at) = options.windows(COUNTER.len()).position(|window| window == COUNTER) else {
        return create.to_vec();
    };
    let (before, after) = options.split_at(at);
    let digits = after.iter().skip(COUNTER.len()).take_while(|byte| byte.is_ascii_digit()).count();
    [body, before, after.get(COUNTER.len() + digits..).unwrap_or_default()].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TABLE: &str = "CREATE TABLE `t` (\n  `id` int(11) NOT NULL AUTO_INCREMENT,\n  `a` int(11) DEFAULT NULL,\n  \
                         `b` varchar(9) DEFAULT 'x\\n  KEY `no`',\n  PRIMARY KEY (`id`),\n  UNIQUE KEY `u` (`b`),\n  \
                         KEY `a` (`a`),\n  KEY `ab` (`a`,`b`(3))\n) ENGINE=InnoDB AUTO_INCREMENT=17 DEFAULT CHARSET=latin1";

    #[test]
    fn plain_keys_wait() {
        let deferred = defer_keys(TABLE.as_bytes());
        assert_eq!(deferred.add, b"ADD KEY `a` (`a`), ADD KEY `ab` (`a`,`b`(3))");
        let create = String::from_utf8(deferred.create).unwrap();
        assert!(create.contains("  UNIQUE KEY `u` (`b`)\n) ENGINE=InnoDB AUTO_INCREMENT=17"), "{create}");
        assert!(!create.contains("\n  KEY"));
    }

    #[test]
    fn keys_that_something_needs_do_not() {
        let foreign = TABLE.replace(
            "  KEY `a` (`a`),",
            "  KEY `a` (`a`),\n  CONSTRAINT `c` FOREIGN KEY (`a`) REFERENCES `p` (`i`),",
        );
        let counted = TABLE.replace("  PRIMARY KEY (`id`),\n", "").replace("KEY `a` (`a`)", "KEY `a` (`id`)");
        let view = "CREATE ALGORITHM=UNDEFINED VIEW `v` AS select 1 AS `1`";
        for whole in [foreign.as_str(), counted.as_str(), view, "", "\n"] {
            let deferred = defer_keys(whole.as_bytes());
            assert_eq!(
                (deferred.create.as_slice(), deferred.add.as_slice()),
                (whole.as_bytes(), b"".as_slice())
            );
        }
    }

    #[test]
    fn the_counter_is_left_out_of_a_comparison() {
        let without = String::from_utf8(without_counter(TABLE.as_bytes())).unwrap();
        assert!(without.ends_with(") ENGINE=InnoDB DEFAULT CHARSET=latin1"), "{without}");
        assert!(without.contains("NOT NULL AUTO_INCREMENT,"));
        assert_eq!(without_counter(b"a AUTO_INCREMENT=x"), b"ax");
        assert_eq!(without_counter(b""), b"");
    }

    proptest! {
        #[test]
        fn never_panics(text in prop::collection::vec(prop::sample::select(b"\n) ,`KEYAUTO_INCREMENT=1x".to_vec()), 0..80)) {
            let _ = defer_keys(&text);
            let _ = without_counter(&text);
        }
    }
}
