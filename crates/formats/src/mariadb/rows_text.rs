//! Rows as `LOAD DATA INFILE` reads them with its default format and `CHARACTER SET binary`: columns separated by a tab, rows ended
//! by a line feed, `\N` for NULL, and a backslash in front of the bytes that would mean something else.
//!
//! From sql/sql_load.cc (`READ_INFO`, MariaDB 10.11). In the character set `binary` a byte is a byte, so every value passes
//! unchanged, whatever character set its column has.

/// Between two columns.
pub const COLUMN: u8 = b'\t';
/// Behind a row.
pub const ROW: u8 = b'\n';
/// In front of a byte that is meant literally, or of the `N` of NULL.
const ESCAPE: u8 = b'\\';

/// Appends one column. `first`: of its row.
pub fn push_column(out: &mut Vec<u8>, value: Option<&[u8]>, first: bool) {
    if !first {
        out.push(COLUMN);
    }
    let Some(mut rest) = value else { return out.extend_from_slice(b"\\N") };
    while let Some(at) = rest.iter().position(|byte| matches!(*byte, ESCAPE | COLUMN | ROW)) {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        out.push(ESCAPE);
        match special.split_first() {
            Some((&ROW, after)) => {
                out.push(b'n');
                rest = after;
            }
            Some((&COLUMN, after)) => {
                out.push(b't');
                rest = after;
            }
            Some((&byte, after)) => {
                out.push(byte);
                rest = after;
            }
            None => return,
        }
    }
    out.extend_from_slice(rest);
}

/// Ends a row.
pub fn push_end(out: &mut Vec<u8>) {
    out.push(ROW);
}

/// Reads one row, without the line feed behind it, as the server does. The inverse of [`push_column`].
pub fn columns(row: &[u8]) -> Vec<Option<Vec<u8>>> {
    let (mut all, mut value, mut is_null) = (Vec::new(), Vec::new(), false);
    let mut bytes = row.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            COLUMN => {
                let whole = std::mem::take(&mut value);
                all.push((!std::mem::take(&mut is_null)).then_some(whole));
            }
            ESCAPE => match bytes.next() {
                // Only a column that is nothing else is NULL.
                Some(b'N') if value.is_empty() => is_null = true,
                Some(b'n') => value.push(b'\n'),
                Some(b't') => value.push(b'\t'),
                Some(b'r') => value.push(b'\r'),
                Some(b'b') => value.push(8),
                Some(b'0') => value.push(0),
                Some(b'Z') => value.push(26),
                Some(other) => value.push(other),
                None => value.push(ESCAPE),
            },
            other => value.push(other),
        }
    }
    all.push((!is_null).then_some(value));
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, value) in values.iter().enumerate() {
            push_column(&mut out, *value, number == 0);
        }
        out
    }

    #[test]
    fn special_bytes_are_escaped_and_nothing_else() {
        assert_eq!(text(&[Some(b"a\tb\nc\\d\r\0"), None, Some(b"")]), b"a\\tb\\nc\\\\d\r\0\t\\N\t");
        assert_eq!(text(&[Some(b"\\N")]), b"\\\\N");
        assert_eq!(text(&[Some(b"\xff\x5c\x09")]), b"\xff\\\\\\t");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            row in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..40)), 1..6)
        ) {
            let values: Vec<Option<&[u8]>> = row.iter().map(|v| v.as_deref()).collect();
            let written = text(&values);
            // A line feed only ends rows.
            prop_assert!(!written.contains(&ROW));
            prop_assert_eq!(columns(&written), row);
        }

        #[test]
        fn any_bytes_are_columns(row in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(!columns(&row).is_empty());
        }
    }
}
