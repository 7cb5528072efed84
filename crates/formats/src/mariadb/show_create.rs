//! The answer of `SHOW CREATE TABLE`, taken apart as far as loading rows needs it.
//!
//! From sql/sql_show.cc (`show_create_table_ex`, MariaDB 10.11): every column, key and constraint has a line of its own that
//! begins with two spaces and ends with a comma, except the last; a line feed inside a text is written `\n`. The text is
//! bytes, because a default can be of any character set.

use super::foreign_keys::first_column;

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
/// (`AUTO_INCREMENT`) may be led by one of them. So do those that begin with one of the columns `referenced`, in lower case: to these,
/// foreign keys of other tables refer, and InnoDB makes no such table if the key is not there.
pub fn defer_keys(create: &[u8], referenced: &[String]) -> Deferred {
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
    let is_needed = |line: &[u8]| first_column(line).is_none_or(|column| referenced.contains(&column));
    let is_key = |line: &&[u8]| line.starts_with(b"  KEY `") && !is_needed(line);
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

/// Takes out what names objects of other databases by their place: defaults that are values of sequences, and foreign keys into
/// other databases. So the table can be made, and filled, before these objects are where they belong; what is taken out is put
/// back with `ALTER TABLE`.
pub fn defer_references(create: &[u8]) -> Deferred {
    let mut add: Vec<Vec<u8>> = Vec::new();
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for line in create.split(|byte| *byte == b'\n') {
        let plain = line.strip_suffix(b",").unwrap_or(line);
        if line.starts_with(b"  `")
            && let Some(at) = default_of_sequence(plain)
        {
            add.push([b"MODIFY COLUMN ", plain.trim_ascii_start()].concat());
            kept.push(
                [plain.get(..at).unwrap_or_default(), line.get(plain.len()..).unwrap_or_default()].concat(),
            );
        } else if line.starts_with(b"  CONSTRAINT `") && refers_elsewhere(plain) {
            add.push([b"ADD ", plain.trim_ascii_start()].concat());
        } else {
            kept.push(line.to_vec());
        }
    }
    let end = kept.iter().position(|line| line.starts_with(b")")).filter(|end| *end > 1);
    let (Some(end), false) = (end, add.is_empty()) else {
        return Deferred { create: create.to_vec(), add: Vec::new() };
    };
    // The last line inside the parentheses has no comma.
    if let Some(last) = kept.get_mut(end - 1).filter(|last| last.ends_with(b",")) {
        last.pop();
    }
    Deferred { create: kept.join(&b'\n'), add: add.join(b", ".as_slice()) }
}

/// Where the default of a column begins, if it is computed from a sequence.
fn default_of_sequence(line: &[u8]) -> Option<usize> {
    let at = outside_quotes(line, b" DEFAULT ")?;
    let default = line.get(at..)?;
    let calls = [b"nextval(".as_slice(), b"lastval(", b"setval("];
    calls.iter().any(|call| outside_quotes(default, call).is_some()).then_some(at)
}

/// Whether a constraint is a foreign key whose table is named with its database.
fn refers_elsewhere(line: &[u8]) -> bool {
    const REFERENCES: &[u8] = b" REFERENCES ";
    let Some(at) = outside_quotes(line, REFERENCES) else { return false };
    // Behind the first quoted name is another one: `db`.`table` (`column`).
    let names = line.get(at + REFERENCES.len()..).unwrap_or_default();
    outside_quotes(names, b".").is_some_and(|dot| outside_quotes(names, b" ").is_none_or(|end| dot < end))
}

/// Where `text` begins outside of quoted names and texts.
pub(super) fn outside_quotes(line: &[u8], text: &[u8]) -> Option<usize> {
    let mut quote = None;
    let mut at = 0;
    while let Some(byte) = line.get(at) {
        match quote {
            None if line.get(at..)?.starts_with(text) => return Some(at),
            None if matches!(byte, b'`' | b'\'') => quote = Some(*byte),
            // A quote that is doubled closes and opens again.
            Some(open) if open == *byte => quote = None,
            Some(b'\'') if *byte == b'\\' => at += 1,
            _ => {}
        }
        at += 1;
    }
    None
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

/// The answer as that of another server is compared with it: without the next value of the counter, which each node counts by itself,
/// and without the comment on temporal columns that are stored as before 10.1. No server makes such columns anew.
pub fn comparable(create: &[u8]) -> Vec<u8> {
    const STORED: &[u8] = b" /* mariadb-5.3 */";
    let create = without_counter(create);
    let lines = create.split(|byte| *byte == b'\n').map(|line| {
        match outside_quotes(line, STORED).filter(|_| line.starts_with(b"  `")) {
            Some(at) => [line.get(..at), line.get(at + STORED.len()..)]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .concat(),
            None => line.to_vec(),
        }
    });
    lines.collect::<Vec<_>>().join(&b'\n')
}

/// Whether a table has several partitions for rows that were valid before, and the server fills one after the other
/// (`PARTITION BY SYSTEM_TIME LIMIT`). Nothing in such a row says in which of them it is.
pub fn has_history_in_turn(create: &[u8]) -> bool {
    let tail = create.windows(3).rposition(|window| window == b"\n) ").and_then(|at| create.get(at..));
    let tail = tail.unwrap_or_default();
    let Some(at) = outside_quotes(tail, b"PARTITION BY SYSTEM_TIME LIMIT ") else { return false };
    let mut lines = tail.get(at..).unwrap_or_default().split(|byte| *byte == b'\n');
    // The server adds more of them by itself, or their number is written instead of them.
    let adds = lines.next().is_some_and(|line| outside_quotes(line, b" AUTO").is_some());
    let number = lines.clone().find_map(|line| line.trim_ascii_start().strip_prefix(b"PARTITIONS "));
    let number = number.and_then(|number| std::str::from_utf8(number.trim_ascii()).ok()?.parse().ok());
    // The last one is for rows that are valid.
    let named = lines.filter(|line| outside_quotes(line, b" HISTORY").is_some()).count();
    adds || named.max(number.map_or(0, |number: usize| number.saturating_sub(1))) > 1
}

/// The answer without the next value of the counter.
fn without_counter(create: &[u8]) -> Vec<u8> {
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
        let deferred = defer_keys(TABLE.as_bytes(), &[]);
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
            let deferred = defer_keys(whole.as_bytes(), &[]);
            assert_eq!(
                (deferred.create.as_slice(), deferred.add.as_slice()),
                (whole.as_bytes(), b"".as_slice())
            );
        }
    }

    /// A table with a foreign key was refused (errno 150) if the one it refers to had its keys later.
    #[test]
    fn keys_that_other_tables_refer_to_do_not_wait() {
        let more = TABLE.replace("  KEY `a` (`a`),", "  KEY `a` (`a`),\n  KEY `B` (`B`),");
        let deferred = defer_keys(more.as_bytes(), &["b".to_owned()]);
        assert_eq!(deferred.add, b"ADD KEY `a` (`a`), ADD KEY `ab` (`a`,`b`(3))");
        let create = String::from_utf8(deferred.create).unwrap();
        assert!(create.contains("  KEY `B` (`B`)\n) ENGINE"), "{create}");
        assert_eq!(defer_keys(TABLE.as_bytes(), &["a".to_owned()]).add, b"");
    }

    #[test]
    fn what_names_other_places_waits() {
        let create = "CREATE TABLE `t` (\n  `id` int(11) NOT NULL,\n  `n` bigint(20) DEFAULT nextval(`d`.`s`) COMMENT 'x',\n  \
                      `e` enum('a DEFAULT nextval(','b\\\\''') DEFAULT 'nextval(',\n  PRIMARY KEY (`id`),\n  KEY `f` (`f`),\n  \
                      CONSTRAINT `c1` FOREIGN KEY (`a`) REFERENCES `p.q` (`i`) ON DELETE CASCADE,\n  \
                      CONSTRAINT `c2` FOREIGN KEY (`b`) REFERENCES `o`.`p` (`i`)\n) ENGINE=InnoDB";
        let deferred = defer_references(create.as_bytes());
        let (kept, add) =
            (String::from_utf8(deferred.create).unwrap(), String::from_utf8(deferred.add).unwrap());
        assert_eq!(
            add,
            "MODIFY COLUMN `n` bigint(20) DEFAULT nextval(`d`.`s`) COMMENT 'x', \
             ADD CONSTRAINT `c2` FOREIGN KEY (`b`) REFERENCES `o`.`p` (`i`)"
        );
        assert!(
            kept.contains(
                "  `n` bigint(20),\n  `e` enum('a DEFAULT nextval(','b\\\\''') DEFAULT 'nextval(',\n"
            ),
            "{kept}"
        );
        assert!(kept.ends_with("REFERENCES `p.q` (`i`) ON DELETE CASCADE\n) ENGINE=InnoDB"), "{kept}");
        assert_eq!(defer_references(TABLE.as_bytes()).create, TABLE.as_bytes());
    }

    #[test]
    fn the_counter_is_left_out_of_a_comparison() {
        let without = String::from_utf8(without_counter(TABLE.as_bytes())).unwrap();
        assert!(without.ends_with(") ENGINE=InnoDB DEFAULT CHARSET=latin1"), "{without}");
        assert!(without.contains("NOT NULL AUTO_INCREMENT,"));
        assert_eq!(without_counter(b"a AUTO_INCREMENT=x"), b"ax");
        assert_eq!(without_counter(b""), b"");
    }

    #[test]
    fn how_old_columns_are_stored_is_left_out_of_a_comparison() {
        let of = |old: &str| {
            format!(
                "CREATE TABLE `t` (\n  `a` datetime{old} DEFAULT NULL COMMENT ' /* mariadb-5.3 */',\n  `b` timestamp(3){old} NOT NULL\n) ENGINE=MyISAM"
            )
        };
        assert_eq!(comparable(of(" /* mariadb-5.3 */").as_bytes()), of("").as_bytes());
        assert_eq!(comparable(of("").as_bytes()), of("").as_bytes());
    }

    #[test]
    fn history_that_fills_partitions_in_turn_is_known() {
        let of = |partitions: &str| {
            let create = format!(
                "CREATE TABLE `t` (\n  `a` int(11) DEFAULT NULL\n) ENGINE=InnoDB DEFAULT CHARSET=latin1 WITH SYSTEM VERSIONING\n {partitions}"
            );
            has_history_in_turn(create.as_bytes())
        };
        let (one, two) = (
            "(PARTITION `p HISTORY` HISTORY ENGINE = InnoDB,\n",
            " PARTITION `p1` HISTORY ENGINE = InnoDB,\n",
        );
        let now = " PARTITION `pn` CURRENT ENGINE = InnoDB)";
        assert!(of(&format!("PARTITION BY SYSTEM_TIME LIMIT 9 \n{one}{two}{now}")));
        assert!(of("PARTITION BY SYSTEM_TIME LIMIT 9 \nPARTITIONS 3"));
        assert!(of("PARTITION BY SYSTEM_TIME LIMIT 9 AUTO\nPARTITIONS 2"));
        assert!(!of(&format!("PARTITION BY SYSTEM_TIME LIMIT 9 \n{one}{now}")));
        assert!(!of("PARTITION BY SYSTEM_TIME LIMIT 9 \nPARTITIONS 2"));
        assert!(!of(&format!(
            "PARTITION BY SYSTEM_TIME INTERVAL 1 DAY STARTS TIMESTAMP'2026-01-01 00:00:00'\n{one}{two}{now}"
        )));
        assert!(!of("PARTITION BY HASH (`a`)\nPARTITIONS 4") && !of(""));
    }

    proptest! {
        #[test]
        fn never_panics(text in prop::collection::vec(prop::sample::select(b"\n) ,`KEYAUTO_INCREMENT=1x'\\\\DFLCSR".to_vec()), 0..80)) {
            let _ = defer_keys(&text, &[]);
            let _ = defer_keys(&text, &["d".to_owned()]);
            let _ = defer_references(&text);
            let _ = comparable(&text);
            let _ = has_history_in_turn(&text);
        }
    }
}
