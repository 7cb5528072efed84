//! Why one transfer took longer than another.
use crate::human::size;
use crate::pairs::Transfer;
use crate::record::{Method, Phase, Record};

/// What a node does in a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The nodes connect, list files and compare settings.
    Prepare,
    /// Waiting for a lock, or for the server.
    Wait,
    /// Reading, comparing, sending and receiving.
    Move,
    /// The joiner copies unchanged bytes and verifies what it has.
    Store,
    /// The joiner installs.
    Install,
    /// After a failure.
    After,
}

impl Part {
    /// All parts, in the order in which they come.
    pub const ALL: [Part; 6] =
        [Part::Prepare, Part::Wait, Part::Move, Part::Store, Part::Install, Part::After];

    /// The part to which a phase belongs.
    pub fn of(phase: &str) -> Part {
        let begins = |words: &[&str]| words.iter().any(|word| phase.starts_with(word));
        match phase {
            _ if begins(&["sending", "receiving", "(later"]) => Part::Move,
            _ if begins(&["waiting for the joiner to store", "copying", "verifying"]) => Part::Store,
            _ if begins(&["installing", "done"]) => Part::Install,
            _ if begins(&["failed"]) => Part::After,
            _ => Part::Prepare,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Part::Prepare => "connecting, listing, checking",
            Part::Wait => "waiting for a lock or the server",
            Part::Move => "comparing and sending",
            Part::Store => "storing and verifying",
            Part::Install => "installing",
            Part::After => "after the failure",
        }
    }

    /// The class in the page's style.
    pub fn class(self) -> &'static str {
        match self {
            Part::Prepare => "prepare",
            Part::Wait => "wait",
            Part::Move => "move",
            Part::Store => "store",
            Part::Install => "install",
            Part::After => "after",
        }
    }
}

/// Milliseconds of a record in this part. Waits are a part of their own, taken from the phases in which they were.
pub fn ms_in(record: &Record, part: Part) -> u64 {
    let waited: u64 = record.waits.iter().map(Phase::ms).fold(0, u64::saturating_add);
    let in_phases = |part: Part| {
        let of_part = record.phases.iter().filter(|phase| Part::of(&phase.name) == part);
        of_part.map(Phase::ms).fold(0, u64::saturating_add)
    };
    match part {
        Part::Wait => waited.min(in_phases(Part::Move)),
        Part::Move => in_phases(Part::Move).saturating_sub(waited),
        part => in_phases(part),
    }
}

/// Bytes that travelled because they were not there, before compression.
pub fn sent(record: &Record) -> u64 {
    let bytes = &record.bytes;
    bytes.sent.saturating_add(bytes.redo).saturating_add(bytes.write_sets)
}

/// What to say of a transfer: the most important words, and the rest of the sentence.
pub type Verdict = (String, String);

/// What to say of a transfer, beside the last good one before it, with its number.
pub fn verdict(this: &Transfer, before: Option<(usize, &Transfer)>) -> Verdict {
    let main = this.main();
    if !this.is_ok() {
        return of_unfinished(this);
    }
    let alone = || (String::new(), first(main));
    let Some((number, before)) = before.filter(|_| this.method() == Some(Method::Files)) else {
        return alone();
    };
    let (now, then) = (main.ms(), before.main().ms());
    if now.abs_diff(then) <= (then / 10).max(500) {
        return (format!("As long as #{number}."), format!(" {}", first(main)));
    }
    let (word, slower) = if now > then { ("slower", true) } else { ("faster", false) };
    let changed = |part: &Part| {
        let (now, then) = (ms_in(main, *part), ms_in(before.main(), *part));
        if slower { now.saturating_sub(then) } else { then.saturating_sub(now) }
    };
    let Some(part) = Part::ALL.into_iter().max_by_key(changed) else { return alone() };
    let took = |record: &Record| span(ms_in(record, part));
    let because = match part {
        Part::Move => because_of_bytes(this, before),
        Part::Wait => main.waits.iter().max_by_key(|wait| wait.ms()).map(|wait| wait.name.clone()),
        _ => None,
    };
    let link = if part == Part::Wait { ": " } else { ", because " };
    let because = because.map(|because| format!("{link}{because}")).unwrap_or_default();
    let rest = format!(" {} took {} instead of {}{because}.", part.name(), took(main), took(before.main()));
    (format!("{} {word} than #{number}:", span(now.abs_diff(then))), rest)
}

fn span(ms: u64) -> String {
    crate::human::seconds(ms as f64 / 1000.0)
}

fn of_unfinished(this: &Transfer) -> Verdict {
    // Prefer the host that failed first: the other one only repeats that its peer gave up.
    let failures = || this.records().filter_map(|record| Some((record, record.failure()?)));
    let is_repeated = |reason: &str| {
        ["the donor gave up: ", "the joiner gave up: "].iter().any(|gave| reason.starts_with(gave))
    };
    let cause = failures().find(|(_, reason)| !is_repeated(reason)).or_else(|| failures().next());
    match cause {
        Some((record, reason)) => {
            let phase = record.phases.iter().rev().find(|phase| Part::of(&phase.name) != Part::After);
            let ms = phase.map_or(record.ms(), |phase| phase.ended_ms.saturating_sub(record.began_ms));
            let phase = phase.map(|phase| format!(" in phase “{}”", phase.name)).unwrap_or_default();
            (format!("Failed on the {} after {}{phase}:", record.role, span(ms)), format!(" {reason}"))
        }
        None => {
            let phase = this.main().phases.last().map_or("", |phase| phase.name.as_str());
            let rest = format!(
                " it was still running, or its program was killed, in phase “{phase}”, {} after its begin.",
                span(this.main().ms())
            );
            ("No outcome is recorded:".to_owned(), rest)
        }
    }
}

/// What there is to say of a transfer by itself.
fn first(record: &Record) -> String {
    match record.method {
        Some(Method::Ist) => "IST followed: no data was sent.".to_owned(),
        Some(Method::WriteSets) => {
            format!("Deep IST: {} of write-sets were sent, and no file.", size(record.bytes.write_sets))
        }
        _ => {
            let redo = if record.bytes.redo > 0 { ", with the redo" } else { "" };
            format!("Sent {} of {}{redo}.", size(sent(record)), size(record.bytes.total))
        }
    }
}

/// Why moving the data took another time: other bytes, or another speed.
fn because_of_bytes(this: &Transfer, before: &Transfer) -> Option<String> {
    let (now, then) = (this.main(), before.main());
    let (sent_now, sent_then) = (sent(now), sent(then));
    let (all_now, all_then) = (now.bytes.total, then.bytes.total);
    let per_second =
        |record: &Record, bytes: u64| bytes as f64 * 1000.0 / ms_in(record, Part::Move).max(1) as f64;
    let few = |sent: u64, all: u64| sent < all / 10;
    let (bytes_now, bytes_then, few) = match few(sent_now, all_now) && few(sent_then, all_then) {
        true => (all_now, all_then, true),
        false => (sent_now, sent_then, false),
    };
    let (speed_now, speed_then) = (per_second(now, bytes_now), per_second(then, bytes_then));
    // How many times longer by bytes, and by speed.
    let by_bytes = bytes_now as f64 / bytes_then.max(1) as f64;
    let by_speed = speed_then / speed_now.max(1.0);
    let slower = now.ms() > then.ms();
    let more = if slower { by_bytes >= by_speed } else { by_bytes <= by_speed };
    if more {
        let what = if few { "compared" } else { "sent" };
        let mut text = format!("{} were {what} instead of {}", size(bytes_now), size(bytes_then));
        if let Some(plan) = this
            .plan()
            .map(|plan| plan.words.split("; ").next().unwrap_or_default())
            .filter(|w| !w.is_empty())
        {
            text.push_str(&format!(" ({plan})"));
        }
        return Some(text);
    }
    let what = if few { "compared" } else { "sent" };
    let speed = |speed: f64| size(speed as u64);
    let mut text = format!("data was {what} at {}/s instead of {}/s", speed(speed_now), speed(speed_then));
    let limit = |transfer: &Transfer| transfer.donor.as_ref().and_then(|donor| donor.settings.rlimit);
    if let Some(limit) = limit(this).filter(|_| slower && limit(before) != limit(this)) {
        text.push_str(&format!(" (the donor's rlimit was {}/s)", size(limit)));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Bytes, OK, Plan, Settings};

    const MIB: u64 = 1 << 20;

    fn verdict(this: &Transfer, before: Option<(usize, &Transfer)>) -> String {
        let (head, rest) = super::verdict(this, before);
        head + &rest
    }

    fn transfer(phases: &[(&str, u64)], sent: u64) -> Transfer {
        let mut at = 1_000_000;
        let phases: Vec<Phase> = phases
            .iter()
            .map(|(name, ms)| {
                let phase = Phase { name: (*name).to_owned(), began_ms: at, ended_ms: at + ms };
                at += ms;
                phase
            })
            .collect();
        let bytes = Bytes { total: 1000 * MIB, sent, ..Bytes::default() };
        let record = Record {
            role: "joiner".into(),
            method: Some(Method::Files),
            phases,
            bytes,
            began_ms: 1_000_000,
            ended_ms: Some(at),
            outcome: Some(OK.to_owned()),
            ..Record::default()
        };
        Transfer { joiner: Some(record), donor: None }
    }

    #[test]
    fn more_bytes_are_a_reason() {
        let before = transfer(&[("starting", 100), ("receiving", 2000), ("installing", 500)], 200 * MIB);
        let mut now = transfer(&[("starting", 100), ("receiving", 10_000), ("installing", 600)], 1000 * MIB);
        if let Some(joiner) = &mut now.joiner {
            joiner.plan = Some(Plan {
                words: "plan: full, 1000.0 MiB to send: why; redo: x".into(),
                ..Plan::default()
            });
        }
        assert_eq!(
            verdict(&now, Some((1, &before))),
            "8.1 s slower than #1: comparing and sending took 10.0 s instead of 2.0 s, because 1000.0 MiB were sent instead \
             of 200.0 MiB (plan: full, 1000.0 MiB to send: why)."
        );
        assert!(
            verdict(&before, Some((2, &now)))
                .starts_with("8.1 s faster than #2: comparing and sending took 2.0 s")
        );
        assert_eq!(verdict(&before, None), "Sent 200.0 MiB of 1000.0 MiB.");
        assert!(verdict(&before, Some((1, &before))).starts_with("As long as #1."));
    }

    #[test]
    fn a_slow_network_and_its_limit_are_a_reason() {
        let before = transfer(&[("receiving", 2000)], 500 * MIB);
        let mut now = transfer(&[("receiving", 50_000)], 500 * MIB);
        let settings = Settings { rlimit: Some(10 * MIB), ..Settings::default() };
        now.donor = Some(Record { outcome: Some(OK.into()), settings, ..Record::default() });
        let text = verdict(&now, Some((1, &before)));
        assert!(
            text.contains("at 10.0 MiB/s instead of 250.0 MiB/s (the donor's rlimit was 10.0 MiB/s)"),
            "{text}"
        );
    }

    #[test]
    fn a_wait_is_a_reason_and_names_the_holder() {
        let before = transfer(&[("receiving", 2000)], 500 * MIB);
        let mut now = transfer(&[("receiving", 42_000)], 500 * MIB);
        if let Some(joiner) = &mut now.joiner {
            let name = "waiting for the consistency point: session 7 of app holds a lock".to_owned();
            joiner.waits = vec![Phase { name, began_ms: 1_001_000, ended_ms: 1_041_000 }];
        }
        let text = verdict(&now, Some((1, &before)));
        let expected = "40.0 s slower than #1: waiting for a lock or the server took 40.0 s instead of 0.0 s: waiting for the \
                        consistency point: session 7 of app holds a lock.";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_failure_is_told_by_the_host_that_knows_it() {
        let mut failed = transfer(&[("receiving", 2000), ("failed; waiting", 9000)], 5);
        if let Some(joiner) = &mut failed.joiner {
            joiner.outcome = Some("the donor gave up: a page is damaged".into());
            let donor =
                Record { role: "donor".into(), outcome: Some("a page is damaged".into()), ..joiner.clone() };
            failed.donor = Some(donor);
        }
        assert_eq!(
            verdict(&failed, None),
            "Failed on the donor after 2.0 s in phase “receiving”: a page is damaged"
        );
        let mut killed = transfer(&[("receiving", 2000)], 5);
        if let Some(joiner) = &mut killed.joiner {
            (joiner.outcome, joiner.ended_ms, joiner.written_ms) = (None, None, joiner.began_ms + 2000);
        }
        assert!(verdict(&killed, None).starts_with("No outcome is recorded"), "{}", verdict(&killed, None));
    }
}
