//! `my.cnf`, as the server reads it.
//!
//! Grammar from mysys/my_default.c (MariaDB 10.11), compared line by line with `my_print_defaults` of
//! 10.11.19. It parses one file into lines; the caller follows `!include` and `!includedir`, and knows the
//! standard directories.
//!
//! - Blank lines and lines that start with `#` or `;` are comments. A `#` later in a line starts a comment too,
//!   unless it stands inside quotes; a `;` does not.
//! - `[group]`; text after `]` is ignored.
//! - `key` or `key=value`, blanks around both ignored. A value in one pair of quotes loses them. Then
//!   `\n \t \r \b \s \" \' \\` are escapes, quoted or not; other backslashes stay.
//! - `!include FILE`, `!includedir DIR` (its `*.cnf`, sorted); other words after `!` are ignored. The server takes
//!   the last byte of such a line for the newline: at the end of a file that lacks one the path loses a letter,
//!   there and here.
//! - There is no byte order mark: a file that starts with one has its first line misread (and usually refused).
//! - The server reads 4094 bytes at a time: a longer line falls into pieces, each read as a line.

use thiserror::Error;

pub use super::option_name::{Normalised, normalise, parse_bool, parse_size};
pub use super::option_set::{Entry, OptionSet};

/// One meaningful line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number in the file, from 1.
    pub number: usize,
    /// The parsed content.
    pub item: Item,
}

/// The content of a line. Bytes that are not UTF-8 are replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// `[name]`: the options that follow belong to it.
    Group(String),
    /// `name` or `name=value`, the name as written.
    Option {
        /// In the original spelling: neither `_` nor prefixes are changed, see [`normalise`].
        name: String,
        /// `None` for a bare name; `Some("")` for `name=`.
        value: Option<String>,
    },
    /// `!include`: a file to read at this place. Relative paths are relative to the reader's directory.
    Include(String),
    /// `!includedir`: read the `*.cnf` files of a directory at this place, sorted by name.
    IncludeDir(String),
}

/// A line for which the server refuses the whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("line {line}: {kind}")]
pub struct OptionFileError {
    /// Its number in the file, from 1.
    pub line: usize,
    /// What is wrong.
    pub kind: ErrorKind,
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ErrorKind {
    /// An option precedes the first group.
    #[error("option before any [group]")]
    NoGroup,
    /// `[` without `]`.
    #[error("group name without a closing ']'")]
    UnclosedGroup,
    /// `!include` or `!includedir` without a path.
    #[error("include directive without a path")]
    NoPath,
}

/// The content of a file: valid lines and errors.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OptionFile {
    /// Lines in file order.
    pub lines: Vec<Line>,
    /// Lines for which the server would refuse the file, in file order. Parsing continues after them.
    pub errors: Vec<OptionFileError>,
}

/// The number of bytes that the server reads at a time.
const CHUNK: usize = 4094;

impl OptionFile {
    /// Parses a whole file.
    pub fn parse(content: &[u8]) -> OptionFile {
        let mut file = OptionFile::default();
        let mut in_group = false;
        let chunks = content.split_inclusive(|&b| b == b'\n').flat_map(|line| line.chunks(CHUNK));
        for (at, chunk) in chunks.enumerate() {
            let number = at + 1;
            // The server's strings end at a NUL.
            let line = trim_start(chunk.split(|&b| b == 0).next().unwrap_or_default());
            match read_line(line, in_group) {
                Ok(Some(item)) => {
                    in_group |= matches!(item, Item::Group(_));
                    file.lines.push(Line { number, item });
                }
                Ok(None) => {}
                Err(kind) => file.errors.push(OptionFileError { line: number, kind }),
            }
        }
        file
    }
}

fn read_line(line: &[u8], in_group: bool) -> Result<Option<Item>, ErrorKind> {
    match line.split_first() {
        None | Some((b'#' | b';', _)) => Ok(None),
        Some((b'!', rest)) => directive(trim_start(rest)),
        Some((b'[', rest)) => {
            let end = rest.iter().position(|&b| b == b']').ok_or(ErrorKind::UnclosedGroup)?;
            Ok(Some(Item::Group(text(trim_end(rest.get(..end).unwrap_or_default())))))
        }
        Some(_) if !in_group => Err(ErrorKind::NoGroup),
        Some(_) => Ok(Some(option(without_comment(line)))),
    }
}

fn directive(rest: &[u8]) -> Result<Option<Item>, ErrorKind> {
    let word_end = rest.iter().position(|&b| is_space(b)).unwrap_or(rest.len());
    let (word, path) = rest.split_at_checked(word_end).unwrap_or((rest, &[]));
    // The server drops the last byte without looking at it, see above.
    let path = trim_start(path).split_last().map_or(&[][..], |(_, path)| path);
    let path = text(trim_end(path));
    let item = match word {
        // The word must be followed by a blank: at the very end of a file it is not a directive.
        b"include" if word_end < rest.len() => Item::Include(path.clone()),
        b"includedir" if word_end < rest.len() => Item::IncludeDir(path.clone()),
        _ => return Ok(None),
    };
    if path.is_empty() { Err(ErrorKind::NoPath) } else { Ok(Some(item)) }
}

fn option(line: &[u8]) -> Item {
    let Some(equals) = line.iter().position(|&b| b == b'=') else {
        return Item::Option { name: text(trim_end(line)), value: None };
    };
    let (name, value) = line.split_at_checked(equals).unwrap_or((line, &[]));
    let value = trim_end(trim_start(value.get(1..).unwrap_or_default()));
    let value = match value {
        [open @ (b'"' | b'\''), inner @ .., close] if open == close => inner,
        _ => value,
    };
    Item::Option { name: text(trim_end(name)), value: Some(text(&unescape(value))) }
}

/// The line up to a `#` outside quotes. A backslash protects a quote only inside quotes.
fn without_comment(line: &[u8]) -> &[u8] {
    let (mut quote, mut escaped) = (None, false);
    for (at, &byte) in line.iter().enumerate() {
        match (byte, quote) {
            (b'"' | b'\'', None) => quote = Some(byte),
            (b'"' | b'\'', Some(open)) if open == byte && !escaped => quote = None,
            (b'#', None) => return line.get(..at).unwrap_or_default(),
            _ => {}
        }
        escaped = quote.is_some() && byte == b'\\' && !escaped;
    }
    line
}

fn unescape(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut bytes = value.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let escape = if byte == b'\\' { bytes.peek().copied() } else { None };
        let replaced = match escape {
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'r') => b'\r',
            Some(b'b') => 8,
            Some(b's') => b' ',
            Some(same @ (b'"' | b'\'' | b'\\')) => same,
            _ => {
                out.push(byte);
                continue;
            }
        };
        out.push(replaced);
        bytes.next();
    }
    out
}

/// White space of latin1, in which the server reads option files. It includes 0xa0, so a value that ends with
/// a UTF-8 letter with that last byte loses it, as in the server.
fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ' | 0xa0)
}

fn trim_start(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|&b| !is_space(b)).unwrap_or(bytes.len());
    bytes.get(start..).unwrap_or_default()
}

fn trim_end(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|&b| !is_space(b)).map_or(0, |last| last + 1);
    bytes.get(..end).unwrap_or_default()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn options(content: &str) -> Vec<(String, Option<String>)> {
        OptionFile::parse(content.as_bytes())
            .lines
            .into_iter()
            .filter_map(|line| match line.item {
                Item::Option { name, value } => Some((name, value)),
                _ => None,
            })
            .collect()
    }

    fn value(line: &str) -> String {
        let mut read = options(&format!("[g]\n{line}\n"));
        assert_eq!(read.len(), 1, "{line}");
        read.remove(0).1.unwrap()
    }

    #[test]
    fn values() {
        for (line, expected) in [
            ("a=b", "b"),
            ("a = b c \r", "b c"),
            ("a=b # c", "b"),
            ("a=b;c", "b;c"),
            ("a=", ""),
            ("a='b # c'", "b # c"),
            ("a=\"b\" # c", "b"),
            ("a='b\"", "'b\""),
            ("a='", "'"),
            ("a=''", ""),
            ("a=b=c", "b=c"),
            (r"a=\s\t\q\\x\", " \t\\q\\x\\"),
            (r#"a="it\"s # x""#, "it\"s # x"),
        ] {
            assert_eq!(value(line), expected, "{line}");
        }
    }

    #[test]
    fn lines_are_numbered_and_errors_do_not_stop_the_reader() {
        let file = OptionFile::parse(
            b"early=1\n# c\n; c\n\n[open\n[ mysqld ] rest\n skip-x \n!include /a b \n! includedir /d\n!include \n!other\nk=v",
        );
        let line = |number, item| Line { number, item };
        assert_eq!(
            file.lines,
            [
                line(6, Item::Group(" mysqld".into())),
                line(7, Item::Option { name: "skip-x".into(), value: None }),
                line(8, Item::Include("/a b".into())),
                line(9, Item::IncludeDir("/d".into())),
                line(12, Item::Option { name: "k".into(), value: Some("v".into()) }),
            ]
        );
        let error = |line, kind| OptionFileError { line, kind };
        assert_eq!(
            file.errors,
            [error(1, ErrorKind::NoGroup), error(5, ErrorKind::UnclosedGroup), error(10, ErrorKind::NoPath)]
        );
    }

    #[test]
    fn a_line_longer_than_the_servers_buffer_falls_apart() {
        let mut content = b"[g]\nk=".to_vec();
        content.extend([b'a'; 4092]);
        content.extend(b"b=\nl\n");
        let read = options(std::str::from_utf8(&content).unwrap());
        assert_eq!(read.len(), 3);
        assert_eq!(read[1], ("b".into(), Some(String::new())));
    }

    #[test]
    fn an_include_without_newline_loses_a_letter() {
        let lines = |content: &[u8]| OptionFile::parse(content);
        assert_eq!(lines(b"!include /xy").lines[0].item, Item::Include("/x".into()));
        assert_eq!(lines(b"!include x").errors.len(), 1);
        assert_eq!(lines(b"!include"), OptionFile::default());
    }

    #[test]
    fn a_byte_order_mark_is_no_blank() {
        let file = OptionFile::parse(b"\xef\xbb\xbf[mysqld]\na=1\n");
        assert_eq!((file.lines.len(), file.errors.len()), (0, 2));
    }

    proptest! {
        #[test]
        fn a_quoted_value_survives(plain in "[ -~&&[^\\\\\"]]{0,40}") {
            prop_assert_eq!(value(&format!("a=\"{plain}\"")), plain);
        }

        #[test]
        fn never_panics_and_names_real_lines(content: Vec<u8>, odd in "([a\\[\\]!=#'\"\\\\ \n]|include ){0,60}") {
            for content in [content.as_slice(), odd.as_bytes()] {
                let file = OptionFile::parse(content);
                let last = content.split(|&b| b == b'\n').count() + content.len() / CHUNK;
                prop_assert!(file.lines.iter().all(|l| (1..=last).contains(&l.number)));
                prop_assert!(file.errors.iter().all(|e| (1..=last).contains(&e.line)));
            }
        }
    }
}
