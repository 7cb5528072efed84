//! Foreign keys in the answer of `SHOW CREATE TABLE`, whose lines [`super::show_create`] describes.
use super::show_create::outside_quotes;

/// What a foreign key refers to. Names are in lower case: a server may have written them in another case than their table's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The database; `None` for that of the table with the foreign key.
    pub database: Option<String>,
    /// The table.
    pub table: String,
    /// The first of the columns. InnoDB wants a key that begins with all of them.
    pub column: String,
}

/// What the foreign keys of a table refer to.
pub fn references(create: &[u8]) -> Vec<Reference> {
    let constraints = create.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"  CONSTRAINT `"));
    constraints.filter_map(reference).collect()
}

fn reference(line: &[u8]) -> Option<Reference> {
    const REFERENCES: &[u8] = b" REFERENCES ";
    outside_quotes(line, b" FOREIGN KEY ")?;
    let (first, rest) = quoted(line.get(outside_quotes(line, REFERENCES)? + REFERENCES.len()..)?)?;
    let (database, table, rest) = match rest.strip_prefix(b".").and_then(quoted) {
        Some((table, rest)) => (Some(first), table, rest),
        None => (None, first, rest),
    };
    let (column, _) = quoted(rest.strip_prefix(b" (")?)?;
    Some(Reference { database, table, column })
}

/// The first column of the key that a line defines, in lower case.
pub(super) fn first_column(line: &[u8]) -> Option<String> {
    let (_, rest) = quoted(line.strip_prefix(b"  KEY ")?)?;
    Some(quoted(rest.strip_prefix(b" (")?)?.0)
}

/// The name in backquotes with which a text begins, in lower case, and what follows.
fn quoted(text: &[u8]) -> Option<(String, &[u8])> {
    let text = text.strip_prefix(b"`")?;
    let mut name = Vec::new();
    let mut at = 0;
    loop {
        match (text.get(at)?, text.get(at + 1)) {
            (b'`', Some(b'`')) => {
                name.push(b'`');
                at += 2;
            }
            (b'`', _) => {
                return Some((String::from_utf8_lossy(&name).to_lowercase(), text.get(at + 1..)?));
            }
            (byte, _) => {
                name.push(*byte);
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn references_are_read() {
        let create = b"CREATE TABLE `t` (\n  `a` int(11) DEFAULT NULL COMMENT 'FOREIGN KEY (`a`) REFERENCES `x` (`y`)',\n  \
                       KEY `a` (`a`),\n  CONSTRAINT `c1` FOREIGN KEY (`a`) REFERENCES `P``q` (`Code`, `b`) ON DELETE CASCADE,\n  \
                       CONSTRAINT `c2` FOREIGN KEY (`a`) REFERENCES `o`.`p` (`i`),\n  CONSTRAINT `k` CHECK (`a` > 0)\n) ENGINE=InnoDB";
        let of = |database: Option<&str>, table: &str, column: &str| Reference {
            database: database.map(str::to_owned),
            table: table.to_owned(),
            column: column.to_owned(),
        };
        assert_eq!(references(create), [of(None, "p`q", "code"), of(Some("o"), "p", "i")]);
        assert_eq!(first_column(b"  KEY `x (` (`Code`(3),`b`),").as_deref(), Some("code"));
        assert_eq!(first_column(b"  UNIQUE KEY `x` (`a`)"), None);
    }

    proptest! {
        #[test]
        fn never_panics(text in prop::collection::vec(prop::sample::select(b"\n (`).CONSTRAINT FOREIGN KEY REFERENCES '\\".to_vec()), 0..80)) {
            let _ = references(&text);
            let _ = references(&[b"  CONSTRAINT `c` FOREIGN KEY (`a`) REFERENCES ", text.as_slice()].concat());
            let _ = first_column(&[b"  KEY ", text.as_slice()].concat());
        }
    }
}
