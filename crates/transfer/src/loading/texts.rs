//! Definitions that a server keeps as texts in files: views, triggers, options of databases. They are written as they are on the
//! donor, after the private server has ended: no order of theirs is needed, an invalid view stays what it is, and a definer need not
//! exist.
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use protocol::logical::{Contents, Text};

use crate::private_server::homes::Homes;

/// Databases whose own definitions come with the server's program.
const OF_SERVER: [&str; 3] = ["mysql", "sys", "performance_schema"];

/// Writes them into the private server's datadir. `lower`: this node's names of tables are in lower case.
///
/// # Errors
/// One cannot be written.
pub fn write(contents: &Contents, homes: &Homes, lower: bool) -> Result<()> {
    for text in &contents.texts {
        let path = homes.datadir.join(path_of(&text.path, lower));
        let of_server = is_of_server(text);
        // What a program has made is its own version of it.
        if of_server && (path.exists() || !path.parent().is_some_and(|directory| directory.is_dir())) {
            continue;
        }
        let bytes = bytes_of(text, lower);
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Whether a text is of a database whose own definitions come with the server's program.
pub(crate) fn is_of_server(text: &Text) -> bool {
    OF_SERVER.iter().any(|database| text.path.split('/').next() == Some(*database))
}

/// The text as it is on a server whose names of tables are in lower case, or not.
pub(crate) fn bytes_of(text: &Text, lower: bool) -> Vec<u8> {
    if lower { lowered(text) } else { text.bytes.clone() }
}

/// The path of a text here. The name of a trigger stays: only those of databases and tables are in lower case.
pub(crate) fn path_of(path: &str, lower: bool) -> PathBuf {
    match path.rsplit_once('/') {
        Some((database, name)) if lower && name.ends_with(".TRN") => {
            PathBuf::from(database.to_lowercase()).join(name)
        }
        Some((database, name)) if lower => {
            let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
            PathBuf::from(database.to_lowercase()).join(format!("{}.{extension}", stem.to_lowercase()))
        }
        _ => PathBuf::from(path),
    }
}

/// The text of a trigger's name says of which table it is.
fn lowered(text: &Text) -> Vec<u8> {
    const OF: &[u8] = b"trigger_table=";
    if !text.path.ends_with(".TRN") {
        return text.bytes.clone();
    }
    let lines = text.bytes.split(|byte| *byte == b'\n').map(|line| match line.strip_prefix(OF) {
        Some(name) => [OF, String::from_utf8_lossy(name).to_lowercase().as_bytes()].concat(),
        None => line.to_vec(),
    });
    lines.collect::<Vec<_>>().join(&b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tables_get_lower_case_and_those_of_triggers_do_not() {
        assert_eq!(path_of("Db/View1.frm", true), PathBuf::from("db/view1.frm"));
        assert_eq!(path_of("Db/T.TRG", true), PathBuf::from("db/t.TRG"));
        assert_eq!(path_of("Db/Trig.TRN", true), PathBuf::from("db/Trig.TRN"));
        assert_eq!(path_of("Db/View1.frm", false), PathBuf::from("Db/View1.frm"));
        let text = Text { path: "d/x.TRN".into(), bytes: b"TYPE=TRIGGERNAME\ntrigger_table=Tab\n".to_vec() };
        assert_eq!(lowered(&text), b"TYPE=TRIGGERNAME\ntrigger_table=tab\n");
        let text = Text { path: "d/x.frm".into(), bytes: b"trigger_table=Tab\n".to_vec() };
        assert_eq!(lowered(&text), text.bytes);
    }
}
