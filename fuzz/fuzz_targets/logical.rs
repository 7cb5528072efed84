//! What a joiner reads of a logical snapshot: its description, rows, and definitions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rejoin_formats::mariadb::{deferred, foreign_keys, rows_text, show_create};
use rejoin_protocol::logical::{Contents, Table};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(contents) = Contents::decode(bytes) {
        assert_eq!(Contents::decode(&contents.encode().unwrap()), Ok(contents));
    }
    if let Ok(table) = Table::decode(bytes) {
        assert_eq!(Table::decode(&table.encode().unwrap()), Ok(table));
    }
    let columns = rows_text::columns(bytes);
    let mut written = Vec::new();
    for (number, column) in columns.iter().enumerate() {
        rows_text::push_column(&mut written, column.as_deref(), number == 0);
    }
    assert_eq!(rows_text::columns(&written), columns);
    for plain in [deferred::PlainKeys::Stay, deferred::PlainKeys::WaitExcept(&[])] {
        assert!(deferred::defer_keys(bytes, plain).create.len() <= bytes.len());
    }
    let _ = show_create::comparable(bytes);
    let _ = foreign_keys::references(bytes);
});
