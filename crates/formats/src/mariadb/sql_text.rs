//! Names and texts inside SQL statements, for a session whose `sql_mode` has neither `ANSI_QUOTES` nor `NO_BACKSLASH_ESCAPES`.

/// A name in backquotes.
pub fn name(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A table with its database.
pub fn table(database: &str, table: &str) -> String {
    format!("{}.{}", name(database), name(table))
}

/// A text in single quotes.
pub fn text(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for character in text.chars() {
        match character {
            '\'' => quoted.push_str("''"),
            '\\' => quoted.push_str("\\\\"),
            '\0' => quoted.push_str("\\0"),
            other => quoted.push(other),
        }
    }
    quoted.push('\'');
    quoted
}

/// Names in backquotes, separated by commas.
pub fn names<'a>(all: impl IntoIterator<Item = &'a str>) -> String {
    all.into_iter().map(name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quotes_are_doubled() {
        assert_eq!(table("a`b", "c d"), "`a``b`.`c d`");
        assert_eq!(text("it's a \\ and a \0"), "'it''s a \\\\ and a \\0'");
        assert_eq!(names(["a", "b`"]), "`a`, `b```");
    }

    proptest! {
        #[test]
        fn nothing_ends_the_quotation(given in "[a'`\\\\\0\n é]{0,30}") {
            // Between the outer quotes every quote is one of a pair, and every backslash escapes what follows.
            let quoted = text(&given);
            let inner = &quoted[1..quoted.len() - 1];
            let mut rest = inner.chars();
            let mut read = String::new();
            while let Some(c) = rest.next() {
                match c {
                    '\'' => { prop_assert_eq!(rest.next(), Some('\'')); read.push('\''); }
                    '\\' => match rest.next() { Some('0') => read.push('\0'), Some(e) => read.push(e), None => prop_assert!(false) },
                    other => read.push(other),
                }
            }
            prop_assert_eq!(read, given.clone());
            let quoted = name(&given);
            prop_assert_eq!(quoted[1..quoted.len() - 1].replace("``", ""), given.replace('`', ""));
        }
    }
}
