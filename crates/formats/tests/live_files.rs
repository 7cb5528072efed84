//! Comparisons with MariaDB's own tools. They need those installed, so they run on request only:
//!
//! `KEEP=/tmp/kept tests/data/remake.sh && FORMATS_FILES=/tmp/kept cargo test -p rejoin-formats --test live_files
//! -- --ignored`

use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rejoin_formats::innodb::page::{PageState, verify};
use rejoin_formats::innodb::tablespace::{PageFormat, parse_page0};
use rejoin_formats::mariadb::option_file::{Item, OptionFile};

fn tablespaces(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            tablespaces(&path, found);
        } else if name.ends_with(".ibd") || name == "ibdata1" || name.starts_with("undo0") {
            found.push(path);
        }
    }
}

fn innochecksum_accepts(file: &Path) -> bool {
    Command::new("innochecksum").arg(file).output().expect("innochecksum").status.success()
}

fn damaged_pages(format: &PageFormat, bytes: &[u8]) -> usize {
    bytes.chunks(format.physical_size).filter(|page| !verify(format, page).is_usable()).count()
}

/// Every page of every tablespace is usable, and a damaged page is seen exactly when innochecksum sees it.
#[test]
#[ignore = "needs FORMATS_FILES and innochecksum"]
fn whole_files_like_innochecksum() {
    let dir = std::env::var_os("FORMATS_FILES").expect("FORMATS_FILES names a directory of data directories");
    let mut files = Vec::new();
    tablespaces(Path::new(&dir), &mut files);
    assert!(!files.is_empty());
    let scratch = tempdir("pages");
    let (mut pages, mut unverifiable, mut trials) = (0, 0, 0);
    for path in &files {
        let bytes = std::fs::read(path).unwrap();
        let format = parse_page0(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display())).format;
        for (number, page) in bytes.chunks(format.physical_size).enumerate() {
            let state = verify(&format, page);
            assert!(state.is_usable(), "{} page {number}: {state:?}", path.display());
            pages += 1;
            unverifiable += usize::from(state == PageState::Unverifiable);
        }
        // The test's own table of each format, damaged in a few places. Byte 36 (space identifier) is left
        // out: the formats before full_crc32 do not cover it, innochecksum compares it with page 0 instead.
        if !path.ends_with("t/t.ibd") {
            continue;
        }
        let copy = scratch.join("t.ibd");
        for at in
            [0usize, 5, 20, 24, 27, 31, 40, 300, 1000, format.physical_size - 6, format.physical_size - 2]
        {
            let at = 3 * format.physical_size + at;
            let mut damaged = bytes.clone();
            let Some(byte) = damaged.get_mut(at) else { continue };
            *byte ^= 0x20;
            std::fs::write(&copy, &damaged).unwrap();
            let ours = damaged_pages(&format, &damaged) == 0;
            let theirs = innochecksum_accepts(&copy);
            let at = at % format.physical_size;
            assert_eq!(ours, theirs, "{} byte {at} {format:?}", path.display());
            trials += 1;
        }
    }
    std::fs::remove_dir_all(scratch).unwrap();
    assert!(pages > 1000 && unverifiable > 0 && trials > 100, "{pages} {unverifiable} {trials}");
}

fn tempdir(test: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("formats-{test}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// What `my_print_defaults` prints for group `g`; `None` when it refuses the file.
fn printed_by_server(file: &Path) -> Option<Vec<u8>> {
    let arg = format!("--defaults-file={}", file.display());
    let output =
        Command::new("my_print_defaults").args([arg.as_str(), "g"]).output().expect("my_print_defaults");
    output.status.success().then_some(output.stdout)
}

fn printed_by_us(content: &[u8]) -> Option<Vec<u8>> {
    let file = OptionFile::parse(content);
    if !file.errors.is_empty() {
        return None;
    }
    let (mut in_group, mut out) = (false, String::new());
    for line in file.lines {
        match line.item {
            Item::Group(name) => in_group = name == "g",
            Item::Option { name, value } if in_group => {
                let value = value.map(|v| format!("={v}")).unwrap_or_default();
                out.push_str(&format!("--{name}{value}\n"));
            }
            _ => {}
        }
    }
    Some(out.into_bytes())
}

/// Random files made of the characters that matter, byte for byte as the server's own reader prints them.
#[test]
#[ignore = "needs my_print_defaults"]
fn option_files_like_my_print_defaults() {
    let scratch = tempdir("options");
    let path = scratch.join("my.cnf");
    let piece =
        "(\\[g\\]|\\[h \\]|\\[|\\]|a|=|'|\"|#|;|\\\\|\\\\[ntrbs\"'\\\\x]| |\t|\r|\n|\n|b_c|!x|\u{e0}|\u{0})";
    let content = prop::collection::vec(piece, 0..40).prop_map(|pieces| format!("[g]\n{}", pieces.concat()));
    let mut runner = TestRunner::new(Config { cases: 3000, failure_persistence: None, ..Config::default() });
    runner
        .run(&content, |content| {
            // Blanks before a `=` without a name make the server read before its line: nothing to compare.
            let blank = |c: char| c.is_whitespace() || c == '\u{a0}';
            let odd = |line: &str| line.trim_start_matches(blank).starts_with('=') && !line.starts_with('=');
            prop_assume!(!content.split('\n').any(odd));
            std::fs::write(&path, &content).unwrap();
            let theirs = printed_by_server(&path).map(|out| String::from_utf8_lossy(&out).into_owned());
            let ours =
                printed_by_us(content.as_bytes()).map(|out| String::from_utf8_lossy(&out).into_owned());
            prop_assert_eq!(ours, theirs);
            Ok(())
        })
        .unwrap();
    std::fs::remove_dir_all(scratch).unwrap();
}
