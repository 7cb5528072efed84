//! Option files, their names and values, and sets made of them; and the lines of a backup's info files.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rejoin_formats::mariadb::backup;
use rejoin_formats::mariadb::option_file::{Item, OptionFile, OptionSet, parse_bool, parse_size};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let _ = (backup::is_prepared(&text), backup::position(&text));
    let file = OptionFile::parse(data);
    let mut set = OptionSet::default();
    let mut group = String::new();
    for line in &file.lines {
        assert!(line.number > 0);
        match &line.item {
            Item::Group(name) => group.clone_from(name),
            Item::Option { name, value } => {
                set.push(&group, name, value.as_deref());
                assert!(set.get(&[&group], name).is_some(), "just pushed");
                let value = value.as_deref().unwrap_or_default();
                let _ = (parse_size(value), parse_bool(value));
            }
            Item::Include(path) | Item::IncludeDir(path) => assert!(!path.is_empty()),
        }
    }
});
