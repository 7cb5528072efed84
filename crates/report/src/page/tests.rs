use super::*;
use crate::record::{Attempt, Bytes, Change, Method, OK, Pause, Peer, Phase, Plan, SCHEMA, Sample, Table};

/// Text that would be markup, or change how what follows is read.
const HOSTILE: &str = "<script>alert(1)</script>\" onload='x' &amp;\u{202e}\u{0}";

/// A record in which every text is `text`.
fn record(text: &str) -> Record {
    let phase = |began_ms, ended_ms| Phase { name: text.to_owned(), began_ms, ended_ms };
    Record {
        schema: SCHEMA,
        program: text.to_owned(),
        id: Some(text.to_owned()),
        role: text.to_owned(),
        node: text.to_owned(),
        peer: Some(Peer { name: Some(text.to_owned()), address: text.to_owned(), program: text.to_owned() }),
        began_ms: 1_700_000_000_000,
        connected_ms: Some(1_700_000_000_100),
        ended_ms: Some(1_700_000_009_000),
        written_ms: 1_700_000_009_000,
        outcome: Some(text.to_owned()),
        method: Some(Method::Files),
        attempts: vec![Attempt { began_ms: 5, snapshot: text.to_owned(), reason: text.to_owned() }],
        plan: Some(Plan { words: text.to_owned(), sent: Some(7), ..Plan::default() }),
        bytes: Bytes { total: 100, sent: 50, reused: 50, network: 30, ..Bytes::default() },
        pauses: vec![Pause { what: text.to_owned(), ended_ms: 1_700_000_005_000, took_us: 5000 }],
        phases: vec![phase(1_700_000_000_000, 1_700_000_009_000)],
        waits: vec![phase(1_700_000_003_000, 1_700_000_004_000)],
        slowed: vec![phase(1_700_000_002_000, 1_700_000_003_000)],
        changes: vec![Change { at_ms: 1_700_000_006_000, set: text.to_owned(), user: 5 }],
        samples: vec![Sample { ms: 0, network: 0, done: 0 }, Sample { ms: 9000, network: 30, done: 100 }],
        tables: vec![Table { name: text.to_owned(), sent: 50, reused: 50, ..Table::default() }],
        ..Record::default()
    }
}

/// The markup alone: the names of elements and attributes, without their values and without text.
fn markup(page: &str) -> String {
    let body = page.split_once("</style>").expect("a style").1;
    let (mut out, mut in_tag, mut in_value) = (String::new(), false, false);
    for c in body.chars() {
        match c {
            '<' if !in_value => in_tag = true,
            '"' if in_tag => in_value = !in_value,
            _ => {}
        }
        if in_tag && !in_value && !c.is_ascii_digit() {
            out.push(c);
        }
        if c == '>' && !in_value {
            in_tag = false;
        }
    }
    out
}

#[test]
fn no_text_of_a_record_is_markup() {
    let plain = page(vec![record("x")], 9, &[("f".into(), "y".into())], 0);
    let hostile = page(vec![record(HOSTILE)], 9, &[(HOSTILE.into(), HOSTILE.into())], 0);
    assert_eq!(markup(&plain), markup(&hostile));
    assert!(!hostile.contains("<script") && !hostile.contains('\u{202e}') && !hostile.contains('\u{0}'));
    assert!(hostile.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot; onload=&#39;x&#39; &amp;amp;"));
}

#[test]
fn a_changed_limit_is_shown_where_it_happened() {
    let mut record = record("donor");
    record.changes = [(2_500, "rlimit=52428800"), (4_000, "rlimit=0"), (5_000, "adaptive-throttle=0")]
        .map(|(ms, set)| Change { at_ms: record.began_ms + ms, set: set.to_owned(), user: 5 })
        .to_vec();
    let text = page(vec![record], 9, &[], 0);
    assert_eq!(text.matches("<rect class=\"set\"").count(), 3);
    assert!(text.contains("<title>rejoin set: rlimit 50.0 MiB/s</title>"), "{text}");
    assert!(text.contains("<tr><th scope=\"row\">rejoin set: no rlimit</th><td>4.0 s</td>"), "{text}");
    assert!(text.contains("limit changed (rejoin set)"), "{text}");
    assert!(text.contains("rlimit 50.0 MiB/s after 2.5 s (user 5); then no rlimit after 4.0 s (user 5); then adaptive-throttle=0"), "{text}");
}

#[test]
fn nothing_is_loaded_from_anywhere() {
    let text = page(vec![record("x")], 9, &[], 0);
    for word in ["http://", "https://", "url(", "@import", "<link", "<script", "<img", "src=", "javascript:"]
    {
        assert!(!text.contains(word), "{word}");
    }
    assert!(text.contains("default-src 'none'"));
}

#[test]
fn numbers_beyond_measure_make_a_page() {
    let most = u64::MAX;
    let mut record = record("donor");
    record.bytes = Bytes {
        total: most,
        sent: most,
        reused: most,
        rebuilt: most,
        zero: most,
        redo: most,
        network: most,
        write_sets: most,
        read: most,
        remembered: most,
    };
    (record.began_ms, record.ended_ms, record.connected_ms) = (0, Some(most), Some(most));
    record.phases = vec![Phase { name: "sending".into(), began_ms: most, ended_ms: 0 }; 3];
    record.waits = vec![Phase { name: "waiting".into(), began_ms: 0, ended_ms: most }; 3];
    record.samples = vec![
        Sample { ms: most, network: most, done: most },
        Sample { ms: 0, network: 0, done: most },
        Sample { ms: most, network: most, done: 0 },
    ];
    record.tables = vec![Table { name: "t".into(), sent: most, reused: most, rebuilt: most, zero: most }; 3];
    record.pauses = vec![Pause { what: "writes".into(), ended_ms: 0, took_us: most }];
    let mut joiner = record.clone();
    (joiner.role, joiner.connected_ms, joiner.outcome) = ("joiner".into(), Some(0), Some(OK.into()));
    record.plan = Some(Plan {
        total: most,
        sent: Some(most),
        redo: Some(most),
        recovery_ms: Some(most),
        ..Plan::default()
    });
    let text = page(vec![record, joiner], 9, &[], most);
    assert!(text.ends_with("</html>\n") && !text.contains("NaN") && !text.contains("inf"), "{text}");
}

#[test]
fn the_last_ones_are_shown() {
    let of = |began_ms: u64| Record {
        role: "joiner".into(),
        node: format!("n{began_ms}"),
        began_ms,
        ..Record::default()
    };
    let text = page((1..=9).map(of).collect(), 2, &[], 0);
    assert!(
        text.contains("#1 n8 from")
            && text.contains("#2 n9 from")
            && !text.contains(">#3 ")
            && !text.contains("n7"),
        "{text}"
    );
    assert!(page(Vec::new(), 2, &[], 0).contains("There is no record of a transfer."));
}
