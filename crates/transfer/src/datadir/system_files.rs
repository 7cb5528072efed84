//! The grammar of `innodb_data_file_path` and `innodb_temp_data_file_path`.
//!
//! The form is `NAME:SIZE[:autoextend[:max:SIZE]]`, with entries separated by `;`. By the rules of
//! storage/innobase/fsp/fsp0sysspace.cc (`SysTablespace::parse_params`, MariaDB 10.11), sizes are whole
//! megabytes, rounded down; only the last file may grow; a colon that is followed by `/`, `\` or another
//! colon belongs to the name.

/// One file as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// Name as written.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Whether the file may grow.
    pub autoextend: bool,
}

/// Default of `innodb_data_file_path`.
pub const DATA_DEFAULT: &str = "ibdata1:12M:autoextend";
/// Default of `innodb_temp_data_file_path`.
pub const TEMP_DEFAULT: &str = "ibtmp1:12M:autoextend";

/// Parses the whole value.
///
/// # Errors
/// A sentence that names the problem.
pub fn parse(value: &str) -> Result<Vec<DataFile>, String> {
    let mut files = Vec::new();
    let mut rest = value.trim();
    loop {
        let (name, after) = split_name(rest).ok_or_else(|| format!("no size after the name in {rest:?}"))?;
        let (entry, next) = after.split_once(';').map_or((after, None), |(entry, next)| (entry, Some(next)));
        files.push(parse_entry(name, entry)?);
        match next {
            None | Some("") => break,
            Some(next) => rest = next,
        }
    }
    match files.iter().rev().skip(1).find(|file| file.autoextend) {
        Some(file) => Err(format!("{:?} is autoextend but not the last file", file.name)),
        None => Ok(files),
    }
}

fn split_name(text: &str) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let end = (0..bytes.len()).find(|&at| {
        bytes.get(at) == Some(&b':') && !matches!(bytes.get(at + 1), Some(b'/' | b'\\' | b':'))
    })?;
    let (name, rest) = text.split_at(end);
    (!name.is_empty()).then(|| (name, rest.get(1..).unwrap_or_default()))
}

fn parse_entry(name: &str, entry: &str) -> Result<DataFile, String> {
    let mut fields = entry.split(':');
    let size = fields.next().unwrap_or_default();
    if size.ends_with("raw") {
        return Err(format!("{name:?} is a raw device, which cannot be transferred as a file"));
    }
    let size = megabytes(size).ok_or_else(|| format!("{size:?} is not a size of {name:?}"))?;
    let autoextend = match fields.next() {
        None => false,
        Some("autoextend") => true,
        Some(other) => return Err(format!("{other:?} instead of autoextend")),
    };
    match (fields.next(), fields.next(), fields.next()) {
        (None, ..) => {}
        (Some("max"), Some(max), None) if megabytes(max).is_some() => {}
        _ => return Err(format!("{entry:?} has more than a size, autoextend and max:SIZE")),
    }
    Ok(DataFile { name: name.to_owned(), size, autoextend })
}

fn megabytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok()?;
    let megabytes = match text.get(digits.len()..)? {
        "G" | "g" => number.checked_mul(1024)?,
        "M" | "m" => number,
        "K" | "k" => number / 1024,
        "" => number >> 20,
        _ => return None,
    };
    megabytes.checked_mul(1 << 20).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(name: &str, megabytes: u64, autoextend: bool) -> DataFile {
        DataFile { name: name.to_owned(), size: megabytes << 20, autoextend }
    }

    #[test]
    fn values_of_real_configurations() {
        for (text, want) in [
            (DATA_DEFAULT, vec![file("ibdata1", 12, true)]),
            (
                "ibdata1:10M;ibdata2:10M:autoextend",
                vec![file("ibdata1", 10, false), file("ibdata2", 10, true)],
            ),
            (
                "/disk1/ib1:1G;/disk2/ib2:50M",
                vec![file("/disk1/ib1", 1024, false), file("/disk2/ib2", 50, false)],
            ),
            ("ib:12582912:autoextend:max:20M", vec![file("ib", 12, true)]),
            ("ib:12300K;", vec![file("ib", 12, false)]),
            ("a::12M", vec![file("a:", 12, false)]),
        ] {
            assert_eq!(parse(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_no_server_would_take() {
        for text in [
            "",
            "ibdata1",
            ":12M",
            "a:0M",
            "a:12X",
            "a:12M:auto",
            "a:1M:autoextend;b:1M",
            "a:3Gnewraw",
            "a:1M:autoextend:max:x",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a-z0-9:;/MGK\\\\é]{0,30}") {
            let _ = parse(&text);
        }
    }
}
