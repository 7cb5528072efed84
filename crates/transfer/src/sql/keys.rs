//! The key in whose order a table is read, and conditions about its values: by them the rows are divided into ranges.
use formats::mariadb::sql_text::{name, text};

use super::definitions::Column;

/// The values of the leading columns of a key, as the server sends them.
pub type Values = Vec<Vec<u8>>;

/// The key in whose order a table is read: the primary one, or another that identifies a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Key {
    /// Its name; empty for a table that has none.
    pub index: String,
    /// Its columns by which rows can be ordered: up to the first of which only the beginning is in the key.
    pub columns: Vec<KeyColumn>,
    /// There are no more columns.
    pub whole: bool,
}

/// A column of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyColumn {
    /// Its name.
    pub name: String,
    /// The greatest value comes first.
    pub descending: bool,
    /// How its values are written so that they are compared as in the key; none if they cannot be.
    pub written: Option<Written>,
}

/// How a value is written in a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// As a whole number.
    Whole,
    /// As a number with decimals.
    Number,
    /// As a text in quotes, of which the server makes a value of the column's type.
    Quoted,
    /// As bytes.
    Bytes,
    /// As a text of this character set, in the order of this collation.
    Characters(String, String),
}

/// Which rows of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Between {
    /// All.
    All,
    /// Those whose key, a whole number, is one of these.
    Numbers(i128, i128),
    /// Those from one combination of values on, and before another.
    Values(Option<Values>, Option<Values>),
}

impl Written {
    /// How values of a column are written.
    pub fn of(column: &Column) -> Option<Written> {
        Some(match column.data_type.as_str() {
            "tinyint" | "smallint" | "mediumint" | "int" | "bigint" => Written::Whole,
            "decimal" | "year" => Written::Number,
            "date" | "datetime" | "timestamp" | "time" | "uuid" | "inet4" | "inet6" => Written::Quoted,
            "binary" | "varbinary" => Written::Bytes,
            "char" | "varchar" => {
                let (charset, collation) = column.characters.clone()?;
                // What follows a CHAR in its key is not what a comparison adds to it.
                let is_plain = |word: &str| word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                if collation.contains("nopad") || !is_plain(&charset) || !is_plain(&collation) {
                    return None;
                }
                Written::Characters(charset, collation)
            }
            // ENUM and SET are in the order of their numbers, and compared as texts; a FLOAT as a text is another number.
            _ => return None,
        })
    }

    fn value(&self, value: &[u8]) -> String {
        let hexadecimal = || {
            let digits: String = value.iter().map(|byte| format!("{byte:02X}")).collect();
            format!("X'{digits}'")
        };
        let is_number = !value.is_empty() && value.iter().all(|b| b.is_ascii_digit() || b"+-.".contains(b));
        match self {
            Written::Whole | Written::Number if is_number => String::from_utf8_lossy(value).into_owned(),
            Written::Quoted => text(&String::from_utf8_lossy(value)),
            Written::Characters(charset, collation) => {
                format!("_{charset} {} COLLATE {collation}", hexadecimal())
            }
            Written::Whole | Written::Number | Written::Bytes => hexadecimal(),
        }
    }
}

impl Key {
    /// The columns by whose values rows can be divided: none unless all of them can be compared as in the key.
    pub fn dividing(&self) -> &[KeyColumn] {
        let divides = |column: &KeyColumn| !column.descending && column.written.is_some();
        if self.whole && self.columns.iter().all(divides) { &self.columns } else { &[] }
    }

    /// The column, if the key is one whole number.
    pub fn whole_number(&self) -> Option<&str> {
        match self.dividing() {
            [only] if only.written == Some(Written::Whole) => Some(&only.name),
            _ => None,
        }
    }

    /// ` FORCE INDEX (...)`, if there is a key.
    pub(super) fn forced(&self) -> String {
        match self.index.is_empty() {
            true => String::new(),
            false => format!(" FORCE INDEX ({})", name(&self.index)),
        }
    }

    /// ` ORDER BY ...`, if there is something to order by.
    pub(super) fn order(&self) -> String {
        let columns = self.columns.iter().map(|column| {
            let direction = if column.descending { " DESC" } else { "" };
            format!("{}{direction}", name(&column.name))
        });
        let columns: Vec<String> = columns.collect();
        if columns.is_empty() { String::new() } else { format!(" ORDER BY {}", columns.join(", ")) }
    }

    /// The condition that a row is one of these; none for all.
    pub(super) fn condition(&self, between: &Between) -> Option<String> {
        let columns = self.dividing();
        let (from, to) = match between {
            Between::Numbers(from, to) => {
                let column = name(&columns.first()?.name);
                return Some(format!("{column} BETWEEN {from} AND {to}"));
            }
            Between::All | Between::Values(None, None) => return None,
            Between::Values(from, to) => (from, to),
        };
        // The first column by itself, for the server to see at once where the range begins and ends.
        let first = |values: &Values, sign: &str| {
            let (column, value) = (columns.first()?, values.first()?);
            Some(format!("{} {sign} {}", name(&column.name), column.written.as_ref()?.value(value)))
        };
        let from = from.iter().flat_map(|from| [first(from, ">="), compared(columns, from, ">", ">=")]);
        let to = to.iter().flat_map(|to| [first(to, "<="), compared(columns, to, "<", "<")]);
        let all: Vec<String> = from.chain(to).flatten().collect();
        Some(all.join(" AND "))
    }

    /// The condition that a row comes after these values.
    pub(super) fn after(&self, values: &Values) -> Option<String> {
        compared(self.dividing(), values, ">", ">")
    }

    /// A number of each row that depends on the values that divide, and on nothing else.
    pub(super) fn hash(&self) -> String {
        // Columns that are often equal must not cancel each other.
        let columns = self.dividing().iter().zip((1..).step_by(2));
        let parts: Vec<String> =
            columns.map(|(column, weight)| format!("{weight} * CRC32({})", name(&column.name))).collect();
        parts.join(" + ")
    }
}

/// Compares combinations of values: `sign` while columns are left that can decide, `last` for the last one. Written out,
/// because a server looks for no range in a comparison of rows.
fn compared(columns: &[KeyColumn], values: &[Vec<u8>], sign: &str, last: &str) -> Option<String> {
    let ((column, columns), (value, values)) = (columns.split_first()?, values.split_first()?);
    let value = column.written.as_ref()?.value(value);
    let column = name(&column.name);
    match compared(columns, values, sign, last) {
        None => Some(format!("{column} {last} {value}")),
        Some(rest) => Some(format!("({column} {sign} {value} OR ({column} = {value} AND {rest}))")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, written: Option<Written>) -> KeyColumn {
        KeyColumn { name: name.to_owned(), descending: false, written }
    }

    fn key(columns: Vec<KeyColumn>) -> Key {
        Key { index: "PRIMARY".to_owned(), columns, whole: true }
    }

    #[test]
    fn ranges_of_several_columns() {
        let words = Written::Characters("latin1".to_owned(), "latin1_bin".to_owned());
        let key = key(vec![column("a", Some(Written::Whole)), column("b`", Some(words))]);
        let (from, to) = (vec![b"-7".to_vec(), b"x\xff".to_vec()], vec![b"9".to_vec(), Vec::new()]);
        assert_eq!(
            key.condition(&Between::Values(Some(from.clone()), Some(to))).unwrap(),
            "`a` >= -7 AND (`a` > -7 OR (`a` = -7 AND `b``` >= _latin1 X'78FF' COLLATE latin1_bin)) AND \
             `a` <= 9 AND (`a` < 9 OR (`a` = 9 AND `b``` < _latin1 X'' COLLATE latin1_bin))"
        );
        assert_eq!(
            key.after(&from).unwrap(),
            "(`a` > -7 OR (`a` = -7 AND `b``` > _latin1 X'78FF' COLLATE latin1_bin))"
        );
        assert_eq!(key.condition(&Between::All), None);
        assert_eq!(key.condition(&Between::Numbers(-5, 7)).unwrap(), "`a` BETWEEN -5 AND 7");
        assert_eq!(key.hash(), "1 * CRC32(`a`) + 3 * CRC32(`b```)");
        assert_eq!(key.order(), " ORDER BY `a`, `b```");
        assert_eq!(key.whole_number(), None);
    }

    #[test]
    fn only_columns_that_are_compared_as_in_the_key_divide() {
        let of = |data_type: &str, characters: Option<(&str, &str)>| {
            let characters = characters.map(|(set, collation)| (set.to_owned(), collation.to_owned()));
            Written::of(&Column { data_type: data_type.to_owned(), characters, ..Column::default() })
        };
        assert_eq!(of("bigint", None), Some(Written::Whole));
        assert_eq!(of("inet6", None), Some(Written::Quoted));
        assert!(of("varchar", Some(("utf8mb4", "utf8mb4_uca1400_ai_ci"))).is_some());
        for none in [of("enum", Some(("latin1", "latin1_bin"))), of("float", None), of("bit", None)] {
            assert_eq!(none, None);
        }
        assert_eq!(of("char", Some(("utf8mb4", "utf8mb4_nopad_bin"))), None);
        let three = |second: KeyColumn| {
            key(vec![column("a", Some(Written::Whole)), second, column("c", Some(Written::Whole))])
        };
        assert_eq!(three(column("b", Some(Written::Bytes))).dividing().len(), 3);
        assert_eq!(three(column("b", None)).dividing(), []);
        let descending = KeyColumn { descending: true, ..column("b", Some(Written::Whole)) };
        assert_eq!(three(descending.clone()).dividing(), []);
        assert_eq!(Key { whole: false, ..three(column("b", Some(Written::Bytes))) }.dividing(), []);
        assert_eq!(three(descending).order(), " ORDER BY `a`, `b` DESC, `c`");
        assert_eq!(Key::default().order(), "");
    }

    #[test]
    fn a_value_is_never_more_than_a_value() {
        assert_eq!(Written::Whole.value(b"1 OR 1"), "X'31204F522031'");
        assert_eq!(Written::Number.value(b"-1.50"), "-1.50");
        assert_eq!(Written::Whole.value(b""), "X''");
        assert_eq!(Written::Quoted.value(b"it's"), "'it''s'");
    }
}
