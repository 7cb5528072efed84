//! Lines on stdout, states, and the small files that hold states.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rejoin_formats::galera::grastate::GraState;
use rejoin_formats::wsrep::report::ReportLine;
use rejoin_formats::wsrep::state_id::StateId;
use rejoin_formats::wsrep::tables_flushed;

fuzz_target!(|text: &str| {
    if let Ok(line) = ReportLine::parse(text) {
        let again = line.to_text().expect("what was read can be written");
        assert!(again.len() <= 511 && again.find('\n') == Some(again.len() - 1));
        assert_eq!(ReportLine::parse(&again).as_ref(), Ok(&line));
    }
    if let Ok(state) = text.parse::<StateId>() {
        assert_eq!(state.to_string().parse::<StateId>(), Ok(state));
    }
    let _ = StateId::parse_annotated(text);
    let _ = tables_flushed::parse(text);
    if let Ok(state) = GraState::parse(text) {
        assert_eq!(GraState::parse(&state.emit()).as_ref(), Ok(&state));
    }
});
