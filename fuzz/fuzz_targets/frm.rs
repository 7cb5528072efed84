//! Table definitions, and names of files.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rejoin_formats::mariadb::{file_kind, frm};

fuzz_target!(|data: &[u8]| {
    let _ = frm::engine(data);
    let name = String::from_utf8_lossy(data);
    let _ = file_kind::top_level(&name);
    let _ = file_kind::in_database(&name);
    let _ = file_kind::database_directory(&name);
    let _ = file_kind::is_binlog_of("b", &name);
});
