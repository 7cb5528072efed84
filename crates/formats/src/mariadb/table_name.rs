//! The name of a table from the path of one of its files.
//!
//! The server writes a character that a file name should not have as `@` and four hexadecimal digits, and joins partitions
//! with `#P#` and `#SP#` (sql/sql_table.cc `filename_to_tablename`, sql/partition_info.cc; 10.11).

/// The name `database.table` of the table to which a file belongs, from the file's path in the datadir. The files of all its
/// partitions have this one. A file that belongs to no table has a name in parentheses.
pub fn of_path(path: &str) -> String {
    let Some((directory, file)) = path.rsplit_once('/') else { return "(other files)".to_owned() };
    let database = decoded(directory.rsplit('/').next().unwrap_or(directory));
    let stem = file.split('.').next().unwrap_or(file);
    if file == "db.opt" {
        return format!("({database}: options of the database)");
    }
    let end = ["#P#", "#p#"].iter().filter_map(|mark| stem.find(mark)).filter(|at| *at > 0).min();
    let table = stem.get(..end.unwrap_or(stem.len())).unwrap_or(stem);
    format!("{database}.{}", decoded(table))
}

/// The name that a file name encodes. What is not encoded as expected stays as it is.
pub fn decoded(name: &str) -> String {
    let (mut text, mut rest) = (String::with_capacity(name.len()), name);
    while let Some((before, after)) = rest.split_once('@') {
        text.push_str(before);
        let digits = after.get(..4).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).and_then(char::from_u32);
        match code {
            Some(character) => {
                text.push(character);
                rest = after.get(4..).unwrap_or_default();
            }
            None => {
                text.push('@');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn files_of_a_table_have_one_name() {
        for (path, name) in [
            ("sbtest/sbtest1.ibd", "sbtest.sbtest1"),
            ("sbtest/sbtest1.frm", "sbtest.sbtest1"),
            ("d/t#P#p0#SP#s1.ibd", "d.t"),
            ("d/t#p#p0.ibd", "d.t"),
            ("a@002db/x@0020y.MYD", "a-b.x y"),
            ("d/#sql-1a.ibd", "d.#sql-1a"),
            ("d/a@g.ibd", "d.a@g"),
            ("d/db.opt", "(d: options of the database)"),
            ("/data/elsewhere/d/t.ibd", "d.t"),
            ("mysql_upgrade_info", "(other files)"),
        ] {
            assert_eq!(of_path(path), name, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_path_has_a_name(path in "[a@0-9#P./é]{0,40}") {
            prop_assert!(!of_path(&path).is_empty());
        }
    }
}
