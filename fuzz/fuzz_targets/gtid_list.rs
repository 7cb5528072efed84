//! Starts of binary logs, with the magic put before so that the fuzzer need not find it, and state files.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rejoin_formats::mariadb::gtid_list::{BinlogError, parse, parse_state, state_text};

fuzz_target!(|data: &[u8]| {
    let _ = parse(data);
    let mut log = b"\xfebin".to_vec();
    log.extend(data);
    match parse(&log) {
        Ok(list) => assert_eq!(parse_state(&state_text(&list)), Ok(list)),
        Err(BinlogError::Short { needed }) => assert!(needed > log.len()),
        Err(_) => {}
    }
    let _ = parse_state(&String::from_utf8_lossy(data));
});
