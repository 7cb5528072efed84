use proptest::prelude::*;

use super::*;

#[test]
fn what_is_missing_is_empty_and_what_is_unknown_is_passed_over() {
    let text = r#"{"schema":1,"role":"donor","began_ms":5,"written_ms":7,"phase_of_moon":{"x":[1]}}"#;
    let record = Record::parse(text).unwrap();
    assert_eq!((record.role.as_str(), record.ms(), record.is_ok()), ("donor", 2, false));
    assert_eq!(record.archive, None);
    assert_eq!(Record::parse(&record.to_text()), Ok(record));
    let text = r#"{"schema":1,"archive":{"history":"u","first":7,"last":9,"older":1}}"#;
    let archive = Archive { history: "u".to_owned(), first: 7, last: 9 };
    assert_eq!(Record::parse(text).unwrap().archive, Some(archive));
}

#[test]
fn changes_of_options_are_kept_and_a_record_without_them_has_none() {
    let text = r#"{"schema":1,"changes":[{"at_ms":7,"set":"rlimit=0","user":5}]}"#;
    let record = Record::parse(text).unwrap();
    assert_eq!(record.changes, [Change { at_ms: 7, set: "rlimit=0".to_owned(), user: 5 }]);
    assert_eq!(Record::parse(&record.to_text()), Ok(record));
    assert!(Record::parse(r#"{"schema":1}"#).unwrap().changes.is_empty());
}

#[test]
fn what_is_no_record_is_refused_with_a_reason() {
    for (text, why) in [
        ("", "not the record"),
        ("[]", "not the record"),
        (r#"{"role":"joiner","phase":"x"}"#, "no schema"),
        (r#"{"schema":2}"#, "schema 2"),
        (r#"{"schema":1,"bytes":{"sent":-1}}"#, "not the record"),
    ] {
        assert!(Record::parse(text).unwrap_err().contains(why), "{text}");
    }
    assert!(Record::parse(&" ".repeat(5 << 20)).unwrap_err().contains("longer"));
}

#[test]
fn a_record_is_bounded() {
    let mut record = Record { schema: SCHEMA, node: "ä".repeat(9000), ..Record::default() };
    record.samples = vec![Sample::default(); 9000];
    record.tables = vec![Table { name: "x".repeat(9000), ..Table::default() }; 9000];
    record.changes = vec![Change { set: "z".repeat(9000), ..Change::default() }; 9000];
    record.outcome = Some("y".repeat(100_000));
    let read = Record::parse(&record.to_text()).unwrap();
    assert_eq!((read.samples.len(), read.tables.len()), (SAMPLES_MAX, TABLES_MAX));
    assert_eq!(read.changes.len(), CHANGES_MAX);
    assert_eq!(read.node.chars().count(), NAME_MAX + 1);
    assert!(record.to_text().len() < 200_000);
}

proptest! {
    #[test]
    fn no_text_is_too_odd(text in "\\PC{0,300}") {
        let _ = Record::parse(&text);
    }
}
