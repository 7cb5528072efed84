//! What of a table is made after its rows, or after other tables: taken out of the answer of `SHOW CREATE TABLE`, whose lines
//! [`super::show_create`] describes.
use super::foreign_keys::first_column;
use super::show_create::outside_quotes;

/// The answer without what can be made after the rows, and what makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deferred {
    /// The statement that makes the table.
    pub create: Vec<u8>,
    /// `ADD KEY ..., ADD KEY ...`: each the end of an `ALTER TABLE` of its own. Empty if nothing can wait.
    pub add: Vec<Vec<u8>>,
}

/// Which plain secondary keys are made after the rows.
#[derive(Debug, Clone, Copy)]
pub enum PlainKeys<'a> {
    /// None, for a table with few rows.
    Stay,
    /// Those that do not begin with one of these columns, in lower case: to these, foreign keys of other tables refer, and InnoDB
    /// makes no such table if the key is not there.
    WaitExcept(&'a [String]),
}

/// Takes out keys that are made after the rows.
///
/// Plain secondary keys can wait. Keys that prove something (`UNIQUE`), and those of engines' own parsers (`FULLTEXT`, `SPATIAL`),
/// stay. So do all plain keys of a table with a foreign key, which needs them, of one whose counter (`AUTO_INCREMENT`) may be led by
/// one of them, and those before a key that stays: a server shows them in the order in which they were made.
///
/// `FULLTEXT` keys must wait if the table has document numbers of its own (the column `FTS_DOC_ID`), however few rows it has: InnoDB
/// refuses a number that is smaller than one of an earlier transaction, and rows come in several (`Invalid InnoDB FTS Doc ID`). No
/// other key is shown after them.
pub fn defer_keys(create: &[u8], plain: PlainKeys<'_>) -> Deferred {
    let whole = || Deferred { create: create.to_vec(), add: Vec::new() };
    let lines: Vec<&[u8]> = create.split(|byte| *byte == b'\n').collect();
    let mut waits = plain_keys_that_wait(&lines, plain);
    let in_one: Vec<Vec<u8>> = of_lines(&lines, &waits).map(added).collect();
    let mut add: Vec<Vec<u8>> =
        if in_one.is_empty() { Vec::new() } else { vec![in_one.join(b", ".as_slice())] };
    if has_own_document_numbers(&lines) {
        // InnoDB makes one such key at a time, or copies the table.
        for (line, waits) in lines.iter().zip(&mut waits).filter(|(line, _)| is_fulltext(line)) {
            add.push(added(line));
            *waits = true;
        }
    }
    if add.is_empty() {
        return whole();
    }
    let stays: Vec<bool> = waits.iter().map(|waits| !waits).collect();
    let mut kept: Vec<&[u8]> = of_lines(&lines, &stays).collect();
    // The last line inside the parentheses has no comma.
    let Some(end) = kept.iter().position(|line| line.starts_with(b")")).filter(|end| *end > 1) else {
        return whole();
    };
    if let Some(last) = kept.get_mut(end - 1) {
        *last = without_comma(last);
    }
    Deferred { create: kept.join(&b'\n'), add }
}

/// Which lines define plain keys that are made after the rows.
fn plain_keys_that_wait(lines: &[&[u8]], plain: PlainKeys<'_>) -> Vec<bool> {
    let mut waits = vec![false; lines.len()];
    let PlainKeys::WaitExcept(referenced) = plain else { return waits };
    let leads = |column: &[u8]| {
        let primary = [b"  PRIMARY KEY (".as_slice(), column].concat();
        lines.iter().any(|line| line.starts_with(&primary))
    };
    let counter_first = lines.iter().filter_map(|line| counter(line)).all(leads);
    if !counter_first || lines.iter().any(|line| contains(line, b" FOREIGN KEY ")) {
        return waits;
    }
    let is_needed = |line: &[u8]| first_column(line).is_none_or(|column| referenced.contains(&column));
    for (line, waits) in lines.iter().zip(&mut waits).rev() {
        *waits = line.starts_with(b"  KEY `") && !is_needed(line);
        if is_key(line) && !*waits && !is_fulltext(line) {
            break;
        }
    }
    waits
}

/// Whether InnoDB gets the numbers of documents from the table's rows.
fn has_own_document_numbers(lines: &[&[u8]]) -> bool {
    let has = |start: &[u8]| lines.iter().any(|line| line.starts_with(start));
    has(b"  `FTS_DOC_ID` ") && has(b") ENGINE=InnoDB")
}

fn is_key(line: &[u8]) -> bool {
    let kinds = [b"  KEY `".as_slice(), b"  UNIQUE KEY `", b"  SPATIAL KEY `", b"  VECTOR KEY `"];
    is_fulltext(line) || kinds.iter().any(|kind| line.starts_with(kind))
}

fn is_fulltext(line: &[u8]) -> bool {
    line.starts_with(b"  FULLTEXT KEY `")
}

/// `ADD KEY ...` for the line that defines a key.
fn added(line: &[u8]) -> Vec<u8> {
    [b"ADD ", without_comma(line.trim_ascii_start())].concat()
}

fn without_comma(line: &[u8]) -> &[u8] {
    line.strip_suffix(b",").unwrap_or(line)
}

fn of_lines<'a>(lines: &[&'a [u8]], which: &[bool]) -> impl Iterator<Item = &'a [u8]> {
    lines.iter().zip(which).filter(|(_, which)| **which).map(|(line, _)| *line)
}

/// Takes out what names objects of other databases by their place: defaults that are values of sequences, and foreign keys into
/// other databases. So the table can be made, and filled, before these objects are where they belong; what is taken out is put
/// back with `ALTER TABLE`.
pub fn defer_references(create: &[u8]) -> Deferred {
    let mut add: Vec<Vec<u8>> = Vec::new();
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for line in create.split(|byte| *byte == b'\n') {
        let plain = without_comma(line);
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
    Deferred { create: kept.join(&b'\n'), add: vec![add.join(b", ".as_slice())] }
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

/// The quoted name of the column that a line defines, if it counts.
fn counter(line: &[u8]) -> Option<&[u8]> {
    let column = line.strip_prefix(b"  `").filter(|_| contains(line, b" AUTO_INCREMENT"))?;
    let end = column.iter().position(|byte| *byte == b'`')?;
    line.get(2..end + 4)
}

fn contains(line: &[u8], text: &[u8]) -> bool {
    line.windows(text.len()).any(|window| window == text)
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
        let deferred = defer_keys(TABLE.as_bytes(), PlainKeys::WaitExcept(&[]));
        assert_eq!(deferred.add, [b"ADD KEY `a` (`a`), ADD KEY `ab` (`a`,`b`(3))"]);
        let create = String::from_utf8(deferred.create).unwrap();
        assert!(create.contains("  UNIQUE KEY `u` (`b`)\n) ENGINE=InnoDB AUTO_INCREMENT=17"), "{create}");
        assert!(!create.contains("\n  KEY"));
        assert_eq!(defer_keys(TABLE.as_bytes(), PlainKeys::Stay).create, TABLE.as_bytes());
    }

    /// InnoDB refused rows of a later transaction whose numbers were smaller: `Invalid InnoDB FTS Doc ID`.
    #[test]
    fn fulltext_keys_wait_for_rows_with_document_numbers_of_their_own() {
        let own = "CREATE TABLE `t` (\n  `FTS_DOC_ID` bigint(20) unsigned NOT NULL,\n  `p` int(11) DEFAULT NULL,\n  `b` text DEFAULT NULL,\n  \
                   UNIQUE KEY `FTS_DOC_ID_INDEX` (`FTS_DOC_ID`),\n  KEY `p` (`p`),\n  FULLTEXT KEY `b` (`b`),\n  \
                   FULLTEXT KEY `c` (`b`) /*!50100 WITH PARSER `x` */ ,\n  CONSTRAINT `f` FOREIGN KEY (`p`) REFERENCES `q` (`i`)\n) ENGINE=InnoDB";
        let keys = [
            b"ADD FULLTEXT KEY `b` (`b`)".to_vec(),
            b"ADD FULLTEXT KEY `c` (`b`) /*!50100 WITH PARSER `x` */ ".to_vec(),
        ];
        // Whatever the plain keys do.
        for plain in [PlainKeys::Stay, PlainKeys::WaitExcept(&[])] {
            let deferred = defer_keys(own.as_bytes(), plain);
            assert_eq!(deferred.add, keys, "{plain:?}");
            let create = String::from_utf8(deferred.create).unwrap();
            assert!(
                create.contains(
                    "  KEY `p` (`p`),\n  CONSTRAINT `f` FOREIGN KEY (`p`) REFERENCES `q` (`i`)\n) ENGINE"
                ),
                "{create}"
            );
        }
        let without = own.replace(",\n  CONSTRAINT `f` FOREIGN KEY (`p`) REFERENCES `q` (`i`)", "");
        let deferred = defer_keys(without.as_bytes(), PlainKeys::WaitExcept(&[]));
        assert_eq!(deferred.add, [vec![b"ADD KEY `p` (`p`)".to_vec()], keys.to_vec()].concat());
        assert!(
            String::from_utf8(deferred.create)
                .unwrap()
                .contains("  UNIQUE KEY `FTS_DOC_ID_INDEX` (`FTS_DOC_ID`)\n) ENGINE")
        );
        // InnoDB counts documents by itself, or another engine has the table.
        for counted in [own.replace("FTS_DOC_ID", "fts_doc"), own.replace("ENGINE=InnoDB", "ENGINE=MyISAM")] {
            assert_eq!(defer_keys(counted.as_bytes(), PlainKeys::Stay).create, counted.as_bytes());
        }
    }

    /// The table was refused, because its keys were in another order than the donor's.
    #[test]
    fn keys_are_made_in_their_order() {
        let of = |keys: [&str; 3]| {
            let keys = keys.map(|key| format!("  {key}")).join(",\n");
            let create = format!(
                "CREATE TABLE `t` (\n  `a` int(11) NOT NULL,\n  `g` point NOT NULL,\n{keys}\n) ENGINE=InnoDB"
            );
            defer_keys(create.as_bytes(), PlainKeys::WaitExcept(&["a".to_owned()])).add
        };
        let (referenced, plain, more) = ("KEY `a` (`a`)", "KEY `b` (`b`)", "KEY `c` (`c`)");
        assert_eq!(of([referenced, plain, more]), [b"ADD KEY `b` (`b`), ADD KEY `c` (`c`)"]);
        assert_eq!(of([plain, referenced, more]), [b"ADD KEY `c` (`c`)"]);
        assert!(of([plain, more, referenced]).is_empty());
        assert_eq!(of([plain, "SPATIAL KEY `g` (`g`)", more]), [b"ADD KEY `c` (`c`)"]);
        assert_eq!(of([plain, more, "FULLTEXT KEY `t` (`t`)"]), [b"ADD KEY `b` (`b`), ADD KEY `c` (`c`)"]);
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
            let deferred = defer_keys(whole.as_bytes(), PlainKeys::WaitExcept(&[]));
            assert_eq!((deferred.create.as_slice(), deferred.add.len()), (whole.as_bytes(), 0));
        }
    }

    /// A table with a foreign key was refused (errno 150) if the one it refers to had its keys later.
    #[test]
    fn keys_that_other_tables_refer_to_do_not_wait() {
        let more = TABLE.replace("  KEY `a` (`a`),", "  KEY `B` (`B`),\n  KEY `a` (`a`),");
        let deferred = defer_keys(more.as_bytes(), PlainKeys::WaitExcept(&["b".to_owned()]));
        assert_eq!(deferred.add, [b"ADD KEY `a` (`a`), ADD KEY `ab` (`a`,`b`(3))"]);
        let create = String::from_utf8(deferred.create).unwrap();
        assert!(create.contains("  KEY `B` (`B`)\n) ENGINE"), "{create}");
        assert!(defer_keys(TABLE.as_bytes(), PlainKeys::WaitExcept(&["a".to_owned()])).add.is_empty());
    }

    #[test]
    fn what_names_other_places_waits() {
        let create = "CREATE TABLE `t` (\n  `id` int(11) NOT NULL,\n  `n` bigint(20) DEFAULT nextval(`d`.`s`) COMMENT 'x',\n  \
                      `e` enum('a DEFAULT nextval(','b\\\\''') DEFAULT 'nextval(',\n  PRIMARY KEY (`id`),\n  KEY `f` (`f`),\n  \
                      CONSTRAINT `c1` FOREIGN KEY (`a`) REFERENCES `p.q` (`i`) ON DELETE CASCADE,\n  \
                      CONSTRAINT `c2` FOREIGN KEY (`b`) REFERENCES `o`.`p` (`i`)\n) ENGINE=InnoDB";
        let deferred = defer_references(create.as_bytes());
        let (kept, add) =
            (String::from_utf8(deferred.create).unwrap(), String::from_utf8(deferred.add.concat()).unwrap());
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

    proptest! {
        #[test]
        fn never_panics(text in prop::collection::vec(prop::sample::select(b"\n) ,`KEYAUTO_INCREMENT=1x'\\DFLCSR".to_vec()), 0..80)) {
            let _ = defer_keys(&text, PlainKeys::Stay);
            let _ = defer_keys(&text, PlainKeys::WaitExcept(&["d".to_owned()]));
            let _ = defer_references(&text);
        }
    }
}
