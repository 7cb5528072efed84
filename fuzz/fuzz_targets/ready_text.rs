//! Addresses: whatever reads must survive being written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rejoin_formats::wsrep::address::{BadAddress, ListenAddress, ReadyText};

fuzz_target!(|text: &str| {
    if let Ok(address) = ListenAddress::parse(text) {
        assert_eq!(ListenAddress::parse(&address.to_string()).as_ref(), Ok(&address));
    }
    if let Ok(ready) = ReadyText::parse(text) {
        match ready.to_text() {
            Ok(again) => assert_eq!(ReadyText::parse(&again).as_ref(), Ok(&ready)),
            // Read from others without a module, or longer once the default port is spelled out.
            Err(BadAddress::NoModule | BadAddress::Line(_)) => {}
            Err(error) => panic!("read but not written: {error}"),
        }
    }
});
