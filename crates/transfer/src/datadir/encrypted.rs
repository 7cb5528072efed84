//! Whether keys are needed to open a donor's data.
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use formats::innodb::redo_header::RedoHeader;
use formats::innodb::tablespace::{Page0Error, is_encrypted, parse_page0};
use protocol::inventory::FileRole;

use super::layout::Layout;
use super::scan::ScannedFile;
use crate::flavor::SecondEngine;
use crate::server::options::ServerOptions;

/// Options that make a server encrypt its writes.
const ENCRYPTS: [&str; 2] = ["innodb-encrypt-tables", "innodb-encrypt-log"];

/// Returns what only a server with the keys can open: the option that encrypts all new data, or the first
/// encrypted redo log, tablespace or table of the second engine. Reads nothing if the options load no key management plugin:
/// then either nothing is encrypted, or the plugin is installed in `mysql.plugin`, which is sent with the
/// data, and has no options (otherwise they would reveal it). A file that cannot be read is skipped, because
/// the transfer itself will report it.
pub fn first_encrypted(layout: &Layout, options: &ServerOptions, files: &[ScannedFile]) -> Option<String> {
    if layout.key_plugins.is_empty() {
        return None;
    }
    let is_on = |name: &&&str| options.server(name).is_some_and(|value| !is_off(value));
    let second = layout.flavor.second_engine();
    if let Some(option) = ENCRYPTS.iter().chain(second.iter().map(|engine| &engine.encrypts)).find(is_on) {
        return Some(format!("{} is on", option.replace('-', "_")));
    }
    let page = layout.page_size as usize;
    let needs_keys = |file: &&ScannedFile| match file.entry.role {
        FileRole::Redo => {
            let header = head(&file.path, 512).ok().and_then(|head| RedoHeader::parse(&head).ok());
            header.is_some_and(|header| header.format.is_encrypted())
        }
        FileRole::SystemTablespace { .. } | FileRole::Undo => is_space_encrypted(&file.path, page),
        _ if file.entry.path.ends_with(".ibd") => is_space_encrypted(&file.path, page),
        _ => second.is_some_and(|engine| is_second_encrypted(engine, file)),
    };
    files.iter().find(needs_keys).map(|file| file.entry.path.clone())
}

fn is_second_encrypted(engine: &SecondEngine, file: &ScannedFile) -> bool {
    let (name, bytes) = (&file.entry.path, engine.head_bytes);
    engine.has_header(name) && head(&file.path, bytes).is_ok_and(|head| (engine.is_encrypted)(&head))
}

fn is_off(value: &str) -> bool {
    ["0", "off", "false", "no"].iter().any(|off| value.eq_ignore_ascii_case(off))
}

fn is_space_encrypted(path: &Path, page: usize) -> bool {
    let Ok(page0) = head(path, page) else { return false };
    match parse_page0(&page0) {
        // It was just created: its first page is only in the redo log, but its definition is on disk.
        Err(Page0Error::Zero | Page0Error::Short(_)) => is_defined_encrypted(path),
        _ => is_encrypted(&page0),
    }
}

/// Whether the table's `.frm` has `ENCRYPTED=YES`.
fn is_defined_encrypted(ibd: &Path) -> bool {
    let name = ibd.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let table = name.split("#P#").next().unwrap_or_default();
    let frm = fs::read(ibd.with_file_name(format!("{table}.frm"))).unwrap_or_default();
    asks_for_encryption(&frm)
}

/// Each option of an engine is a name, two bytes of length and a value (`engine_table_options_frm_image`).
fn asks_for_encryption(frm: &[u8]) -> bool {
    const NAME: &[u8] = b"encrypted";
    // The highest bit of the length means that the value was quoted.
    let value = |rest: &[u8]| match rest {
        [3, quoted, value @ ..] if quoted & 0x7f == 0 => {
            value.get(..3).is_some_and(|value| value.eq_ignore_ascii_case(b"yes"))
        }
        _ => false,
    };
    (0..frm.len()).any(|at| {
        let (name, rest) = frm[at..].split_at(NAME.len().min(frm.len() - at));
        name.eq_ignore_ascii_case(NAME) && value(rest)
    })
}

fn head(path: &Path, bytes: usize) -> io::Result<Vec<u8>> {
    let mut head = vec![0; bytes];
    let read = File::open(path)?.read_at(&mut head, 0)?;
    head.truncate(read);
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_asks_for_encryption_by_its_option() {
        assert!(asks_for_encryption(b"\xfe\x01x\x09ENCRYPTED\x03\x00YES"));
        assert!(asks_for_encryption(b"encrypted\x03\x80yes\0"));
        for not in [
            &b"ENCRYPTED\x02\x00NO"[..],
            b"ENCRYPTED\x03\x00YE",
            b"ENCRYPTE",
            b"a column named encrypted, yes",
            b"",
        ] {
            assert!(!asks_for_encryption(not), "{}", String::from_utf8_lossy(not));
        }
    }
}
