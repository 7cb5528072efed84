//! Why one transfer took longer than another.
use crate::human::size;
use crate::limits::ruling;
use crate::pairs::Transfer;
use crate::record::{Method, Phase, Record};
use crate::why_files::why_files;

/// What a node does in a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The nodes connect, list files and compare settings.
    Prepare,
    /// The joiner's `base-command` fills a directory.
    Base,
    /// Waiting for a lock, or for the server.
    Wait,
    /// Reading, comparing, sending and receiving.
    Move,
    /// Files are made: of rows, or of a backup.
    Make,
    /// The joiner copies unchanged bytes and verifies what it has.
    Store,
    /// The joiner installs.
    Install,
    /// After a failure.
    After,
}

impl Part {
    /// All parts, in the order in which they come.
    pub const ALL: [Part; 8] = [
        Part::Prepare,
        Part::Base,
        Part::Wait,
        Part::Move,
        Part::Make,
        Part::Store,
        Part::Install,
        Part::After,
    ];

    /// The part to which a phase belongs.
    pub fn of(phase: &str) -> Part {
        let begins = |words: &[&str]| words.iter().any(|word| phase.starts_with(word));
        match phase {
            _ if begins(&["filling"]) => Part::Base,
            _ if begins(&["sending", "receiving", "reading", "(later"]) => Part::Move,
            _ if begins(&["making", "loading", "ending the private server", "preparing"]) => Part::Make,
            _ if begins(&["waiting for the joiner to store", "copying", "verifying"]) => Part::Store,
            _ if begins(&["installing", "replacing", "done"]) => Part::Install,
            _ if begins(&["failed"]) => Part::After,
            _ => Part::Prepare,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Part::Prepare => "connecting, listing, checking",
            Part::Base => "filling a base",
            Part::Wait => "waiting for a lock or the server",
            Part::Move => "comparing and sending",
            Part::Make => "loading rows or preparing a backup",
            Part::Store => "storing and verifying",
            Part::Install => "installing",
            Part::After => "after the failure",
        }
    }

    /// The class in the page's style.
    pub fn class(self) -> &'static str {
        match self {
            Part::Prepare => "prepare",
            Part::Base => "base",
            Part::Wait => "wait",
            Part::Move => "move",
            Part::Make => "make",
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

/// Bytes that travelled because they were not there, before compression. Earlier builds counted the rows for a server that runs already only
/// on the network, where they are not compressed.
pub fn sent(record: &Record) -> u64 {
    let bytes = &record.bytes;
    if by_rows(record) && bytes.sent == 0 {
        return bytes.network;
    }
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
    let head = format!("{} {word} than #{number}:", span(now.abs_diff(then)));
    let by_write_sets = match before.method() {
        Some(Method::Ist) => Some("IST"),
        Some(Method::WriteSets) => Some("deep IST"),
        _ => None,
    };
    if let Some(how) = by_write_sets {
        let rest = format!(
            " #{number} was {how}, and this time files were needed: {}. {}",
            why_files(this),
            first(main)
        );
        return (head, rest);
    }
    if slower && lost_ms(main).saturating_sub(lost_ms(before.main())) > (now - then) / 2 {
        return (head, because_of_attempts(main));
    }
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
    (head, rest)
}

/// Milliseconds of attempts that were given up.
fn lost_ms(record: &Record) -> u64 {
    let (first, last) = (record.attempts.first(), record.attempts.last());
    first.zip(last).map_or(0, |(first, last)| last.began_ms.saturating_sub(first.began_ms))
}

fn because_of_attempts(record: &Record) -> String {
    let given_up = match record.attempts.len() {
        2 => "an attempt that was".to_owned(),
        count => format!("{} attempts that were", count - 1),
    };
    let last = record.attempts.last().map_or(String::new(), |last| match last.reason.as_str() {
        "" => format!("; the last one had the {} snapshot", last.snapshot),
        reason => format!("; the last one had the {} snapshot ({reason})", last.snapshot),
    });
    format!(" {} went by in {given_up} given up{last}.", span(lost_ms(record)))
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
        // The total is that of the files, which rows are no part of.
        _ if by_rows(record) => match sent(record) {
            0 => "Sent rows.".to_owned(),
            bytes => format!("Sent {} of rows.", size(bytes)),
        },
        _ => {
            let redo = if record.bytes.redo > 0 { ", with the redo" } else { "" };
            format!("Sent {} of {}{redo}.", size(sent(record)), size(record.bytes.total))
        }
    }
}

/// Whether the last attempt had definitions and rows instead of files.
fn by_rows(record: &Record) -> bool {
    record.attempts.last().is_some_and(|attempt| attempt.snapshot == "logical")
}

/// Why moving the data took another time: other bytes, or another speed.
fn because_of_bytes(this: &Transfer, before: &Transfer) -> Option<String> {
    let (now, then) = (this.main(), before.main());
    let (sent_now, sent_then) = (sent(now), sent(then));
    let (all_now, all_then) = (now.bytes.total, then.bytes.total);
    let per_second =
        |record: &Record, bytes: u64| bytes as f64 * 1000.0 / ms_in(record, Part::Move).max(1) as f64;
    let few = |sent: u64, all: u64| sent < all / 10;
    let few = few(sent_now, all_now) && few(sent_then, all_then);
    // What is remembered need not be read, so that comparing it takes no time.
    let remembered = on_both(this, before, |record| record.bytes.remembered);
    let remembers = few && remembered.0 != remembered.1;
    let (bytes_now, bytes_then) = match few {
        true if remembers => on_both(this, before, |record| record.bytes.read),
        true => (all_now, all_then),
        false => (sent_now, sent_then),
    };
    let what = match few {
        true if remembers => "read to be compared",
        true => "compared",
        false => "sent",
    };
    let (speed_now, speed_then) = (per_second(now, bytes_now), per_second(then, bytes_then));
    // How many times longer by bytes, and by speed.
    let by_bytes = bytes_now as f64 / bytes_then.max(1) as f64;
    let by_speed = speed_then / speed_now.max(1.0);
    let slower = now.ms() > then.ms();
    let more = if slower { by_bytes >= by_speed } else { by_bytes <= by_speed };
    if more {
        let mut text = format!("{} were {what} instead of {}", size(bytes_now), size(bytes_then));
        if remembers {
            let (now, then) = (size(remembered.0), size(remembered.1));
            text.push_str(&format!(" ({now} were remembered instead of {then})"));
        } else if let Some(plan) = this
            .plan()
            .map(|plan| plan.words.split("; ").next().unwrap_or_default())
            .filter(|w| !w.is_empty())
        {
            text.push_str(&format!(" ({plan})"));
        }
        return Some(text);
    }
    let speed = |speed: f64| size(speed as u64);
    let text = format!("data was {what} at {}/s instead of {}/s", speed(speed_now), speed(speed_then));
    Some(text + &slower.then(|| what_slowed(this, before)).flatten().unwrap_or_default())
}

/// What is known to have made this transfer slower than the one before.
fn what_slowed(this: &Transfer, before: &Transfer) -> Option<String> {
    let lasted = this.donor.as_ref().and_then(ruling).filter(|(_, ms, all)| ms.saturating_mul(4) >= *all);
    if let Some((limit, ms, all)) = lasted.filter(|(limit, ..)| limit_before(before) != Some(*limit)) {
        let changed = this.donor.as_ref().is_some_and(|donor| !donor.changes.is_empty());
        let time =
            if changed && ms < all { format!("for {} of {} ", span(ms), span(all)) } else { String::new() };
        return Some(format!(" ({time}the donor's rlimit was {}/s)", size(limit)));
    }
    // The donor gave way to its server for much of the time, and for longer than before.
    let slowed = |transfer: &Transfer| {
        let times = transfer.donor.iter().flat_map(|donor| &donor.slowed);
        times.map(Phase::ms).fold(0, u64::saturating_add)
    };
    let (now, then) = (slowed(this), slowed(before));
    let longest = this.donor.as_ref()?.slowed.iter().max_by_key(|slowed| slowed.ms())?;
    let much = now > then && now > ms_in(this.main(), Part::Move) / 4;
    let why = &longest.name;
    much.then(|| format!(" (for {} the donor read more slowly for its server's sake: {why})", span(now)))
}

/// The limit that a donor had for at least half of the time.
fn limit_before(before: &Transfer) -> Option<u64> {
    let (limit, ms, all) = before.donor.as_ref().and_then(ruling)?;
    (ms.saturating_mul(2) >= all).then_some(limit)
}

/// A figure of this transfer and of the one before, of the hosts that recorded both.
fn on_both(this: &Transfer, before: &Transfer, of: impl Fn(&Record) -> u64) -> (u64, u64) {
    let hosts = [(&this.joiner, &before.joiner), (&this.donor, &before.donor)];
    let hosts = hosts.into_iter().filter_map(|(this, before)| this.as_ref().zip(before.as_ref()));
    hosts.fold((0, 0), |sum: (u64, u64), (this, before)| {
        (sum.0.saturating_add(of(this)), sum.1.saturating_add(of(before)))
    })
}

#[cfg(test)]
#[path = "why_tests.rs"]
mod tests;
