//! The figures of a transfer, the reasons of its failure, and what each host said of itself.
use std::fmt::Write as _;

use super::html::{Text, span, time};
use crate::human::size;
use crate::pairs::Transfer;
use crate::record::{Method, Record};
use crate::why::{Part, ms_in};

/// Writes the reason of the failure, from each host that gave one.
pub(super) fn failures(out: &mut String, transfer: &Transfer) {
    for record in transfer.records() {
        if let Some(reason) = record.failure() {
            let _ = writeln!(
                out,
                "<p class=\"reason\" role=\"note\"><strong>{}:</strong> {}</p>",
                Text(&role(record)),
                Text(reason)
            );
        }
    }
}

/// `joiner n2`.
fn role(record: &Record) -> String {
    format!("{} {}", record.role, record.node).trim().to_owned()
}

/// Writes the most important figures.
pub(super) fn figures(out: &mut String, transfer: &Transfer) {
    let main = transfer.main();
    let bytes = &main.bytes;
    let mut figures = vec![("took", span(main.ms()), String::new())];
    match transfer.method() {
        Some(Method::Files) => {
            figures.push(("sent", size(bytes.sent), format!("of {}", size(bytes.total))));
            figures.push(("reused", size(bytes.reused), "the joiner had them".to_owned()));
            figures.push(("rebuilt", size(bytes.rebuilt), "from parts of pages".to_owned()));
            figures.push(("redo", size(bytes.redo), "sent".to_owned()));
            if bytes.remembered > 0 {
                let more = format!("{} were read on this host", size(bytes.read));
                figures.push(("remembered", size(bytes.remembered), more));
            }
        }
        Some(Method::WriteSets) => {
            figures.push(("write-sets", size(bytes.write_sets), "no file was sent".to_owned()))
        }
        _ => {}
    }
    if bytes.network > 0 {
        let rate = match ms_in(main, Part::Move) {
            // An average over less says nothing.
            0..100 => String::new(),
            ms => format!("{}/s on average", size(bytes.network.saturating_mul(1000) / ms)),
        };
        figures.push(("network", size(bytes.network), rate));
    }
    if let Some((what, took, times)) = pause(transfer) {
        figures.push(("pause", took, format!("{what}{times}")));
    }
    out.push_str("<dl class=\"figures\">\n");
    for (name, figure, more) in figures {
        let _ = writeln!(
            out,
            "<div><dt>{name}</dt><dd>{}{}</dd></div>",
            Text(&figure),
            if more.is_empty() { String::new() } else { format!(" <small>{}</small>", Text(&more)) }
        );
    }
    out.push_str("</dl>\n");
}

/// How long the donor's server stood still: what, how long, and in how many tries.
fn pause(transfer: &Transfer) -> Option<(String, String, String)> {
    let pauses = &transfer.donor.as_ref()?.pauses;
    let longest = pauses.iter().max_by_key(|pause| pause.took_us)?;
    let took = match longest.took_us {
        us @ 0..1_000_000 => format!("{:.1} ms", us as f64 / 1000.0),
        us => span(us / 1000),
    };
    let what = match longest.what.as_str() {
        "writes" => "writes were blocked",
        _ => "replication was paused",
    };
    let times = if pauses.len() > 1 { format!(", the longest of {}", pauses.len()) } else { String::new() };
    Some((what.to_owned(), took, times))
}

/// What a record says of something, if it does.
type Of<'a> = &'a dyn Fn(&Record) -> Option<String>;

/// Writes a table of what each host recorded.
pub(super) fn hosts(out: &mut String, transfer: &Transfer) {
    let records: Vec<&Record> = transfer.records().collect();
    out.push_str("<details class=\"hosts\"><summary>Both hosts</summary>\n<div class=\"scroll\"><table>\n<caption>What each host recorded");
    let skew = transfer.donors_clock_is_behind_ms();
    if skew.unsigned_abs() > 500 {
        let (word, ms) = if skew > 0 { ("behind", skew) } else { ("ahead of", -skew) };
        let ms = u64::try_from(ms).unwrap_or(u64::MAX);
        let _ = write!(
            out,
            ". The donor's clock was {} {word} the joiner's; the timeline allows for that",
            span(ms)
        );
    }
    out.push_str("</caption>\n<thead><tr><td></td>");
    for record in &records {
        let _ = write!(out, "<th scope=\"col\">{}</th>", Text(&role(record)));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    let moment = |ms: Option<u64>| ms.map(time);
    let rows: [(&str, Of<'_>); 12] = [
        ("program", &|record| Some(record.program.clone())),
        ("the other host", &|record| record.peer.as_ref().map(|peer| peer.address.clone())),
        ("its program", &|record| record.peer.as_ref().map(|peer| peer.program.clone())),
        ("began", &|record| Some(time(record.began_ms))),
        ("connected", &|record| moment(record.connected_ms)),
        ("ended", &|record| moment(record.ended_ms)),
        ("took", &|record| Some(span(record.ms()))),
        ("position before", &|record| record.position.before.clone()),
        ("position after", &|record| record.position.after.clone()),
        ("settings", &|record| Some(settings(record))),
        ("changed by rejoin set", &|record| Some(changes(record)).filter(|text| !text.is_empty())),
        ("snapshots", &|record| Some(attempts(record)).filter(|text| !text.is_empty())),
    ];
    for (name, of) in rows {
        let cells: Vec<Option<String>> = records.iter().map(|record| of(record)).collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let _ = write!(out, "<tr><th scope=\"row\">{name}</th>");
        for cell in cells {
            let _ = write!(out, "<td>{}</td>", Text(cell.as_deref().unwrap_or("–")));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table></div></details>\n");
}

fn settings(record: &Record) -> String {
    let settings = &record.settings;
    let limit = settings.rlimit.map(|limit| format!(", rlimit {}/s", size(limit))).unwrap_or_default();
    let incremental = if settings.incremental { "" } else { ", incremental=0" };
    format!("{} threads{limit}{incremental}", settings.threads)
}

fn changes(record: &Record) -> String {
    let words = record.changes.iter().map(|change| {
        let after = span(change.at_ms.saturating_sub(record.began_ms));
        format!("{} after {after} (user {})", changed(&change.set), change.user)
    });
    words.collect::<Vec<_>>().join("; then ")
}

/// An option with its new value, in words.
pub(super) fn changed(set: &str) -> String {
    match set.strip_prefix("rlimit=").and_then(|bytes| bytes.parse().ok()) {
        Some(0) => "no rlimit".to_owned(),
        Some(bytes) => format!("rlimit {}/s", size(bytes)),
        None => set.to_owned(),
    }
}

fn attempts(record: &Record) -> String {
    let words = record.attempts.iter().map(|attempt| match attempt.reason.as_str() {
        "" => attempt.snapshot.clone(),
        reason => format!("{} ({reason})", attempt.snapshot),
    });
    words.collect::<Vec<_>>().join("; then ")
}
