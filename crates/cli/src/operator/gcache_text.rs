//! The output of `rejoin gcache`, as text and as JSON.
use anyhow::Result;
use formats::galera::conf_change::ConfChange;
use formats::galera::gcache::{Action, Store};
use formats::galera::write_set::WriteSet;
use formats::mariadb::binlog_events;
use serde_json::{Value, json};
use transfer::human::{size, span};
use transfer::writesets::gcache::sizing::{measured_rate, outage_for, warnings};
use transfer::writesets::gcache::{Entry, Gcache, InUse, Payload, Rate, Report, Source};
use transfer::writesets::store::StoredAction;

/// Printed with every result, because no file shows it.
const UNSEEN: &str =
    "write-sets that the server holds in memory only (gcache.mem_size, default 0) are in no file";

/// The summary as text.
pub fn summary(cache: &Gcache, report: &Report) -> String {
    let mut lines = vec![
        format!("file           {} ({})", cache.path().display(), state(cache)),
        format!("history        {}", cache.preamble().history),
        match cache.range() {
            Some((first, last)) => {
                format!("seqnos         {first} to {last} ({} actions)", last.0 - first.0 + 1)
            }
            None => "seqnos         none".to_owned(),
        },
        format!(
            "actions        {} write-sets, {} configuration changes; {} released, {} skipped",
            report.write_sets, report.conf_changes, report.released, report.skipped
        ),
        format!(
            "ring           {}; ring and pages hold {} of history",
            size(cache.ring_bytes()),
            size(report.bytes)
        ),
    ];
    for page in cache.pages() {
        let range =
            page.range.map_or("empty".to_owned(), |(first, last)| format!("seqnos {first} to {last}"));
        let used = if page.live { "in use" } else { "not in use, not counted" };
        lines.push(format!("page           {}: {}, {range}, {used}", page.path.display(), size(page.bytes)));
    }
    match measured_rate(report) {
        Ok(measured) => {
            lines.push(format!("write rate     {}", rate(&measured)));
            lines.push(format!(
                "outage         a node that stops now can return by IST within {}",
                span(outage_for(cache.ring_bytes(), &measured, largest(report)))
            ));
        }
        Err(why) => lines.push(format!("write rate     not known: {why}")),
    }
    if report.visited.overwritten > 0 {
        let parts = report.visited.overwritten;
        lines.push(format!(
            "counts         exclude {parts} MiB that the server overwrote while the file was read"
        ));
    }
    lines.extend(changes(report));
    lines.extend(warnings(cache, report).iter().map(|warning| format!("warning        {warning}")));
    lines.push(format!("unseen         {UNSEEN}"));
    lines.join("\n")
}

fn largest(report: &Report) -> u64 {
    report.largest.map_or(0, |(_, bytes)| bytes)
}

/// Returns the newest configuration change with its members, and the number of changes before it.
fn changes(report: &Report) -> Vec<String> {
    let Some(change) = report.changes.last() else { return Vec::new() };
    let mut lines = vec![format!(
        "members        as of the last change, seqno {} (lowest seqno each could serve then):",
        change.state.seqno
    )];
    for member in &change.members {
        let lowest = member.lowest_cached.map_or("nothing".to_owned(), |seqno| seqno.to_string());
        lines.push(format!("               {} {}: {lowest}", member.name, member.state));
    }
    lines
}

fn state(cache: &Gcache) -> String {
    match cache.in_use() {
        InUse::Closed => "closed cleanly".to_owned(),
        InUse::By(pid) => format!("in use by process {pid}"),
        InUse::Crashed => "left by a crash".to_owned(),
        InUse::Unknown => "in use, or left by a crash (no permission to inspect every process)".to_owned(),
    }
}

/// The summary as JSON.
pub fn json(cache: &Gcache, report: &Report) -> Value {
    let rate = measured_rate(report).ok();
    let (first, last) = cache.range().map(|(first, last)| (first.0, last.0)).unzip();
    let pages: Vec<Value> = cache
        .pages()
        .iter()
        .map(|page| {
            let (first, last) = page.range.map(|(first, last)| (first.0, last.0)).unzip();
            json!({"file": page.path.to_string_lossy(), "bytes": page.bytes, "in_use": page.live, "first": first, "last": last})
        })
        .collect();
    let state = match cache.in_use() {
        InUse::Closed => "closed",
        InUse::By(_) => "running",
        InUse::Crashed => "crashed",
        InUse::Unknown => "unknown",
    };
    json!({
        "file": cache.path().to_string_lossy(),
        "state": state,
        "history": cache.preamble().history.to_string(),
        "first": first,
        "last": last,
        "gcache_size": cache.ring_bytes(),
        "history_bytes": report.bytes,
        "pages": pages,
        "write_sets": report.write_sets,
        "configuration_changes": report.conf_changes,
        "other_actions": report.others,
        "released": report.released,
        "skipped": report.skipped,
        "unordered": report.visited.unordered,
        "discarded": report.visited.discarded,
        "overwritten_mib": report.visited.overwritten,
        "largest_action": largest(report),
        "rate": rate.as_ref().map(rate_json),
        "outage_seconds": rate.map(|r| outage_for(cache.ring_bytes(), &r, largest(report)).as_secs()),
        "changes": report.changes.iter().map(change_json).collect::<Vec<_>>(),
        "warnings": warnings(cache, report),
        "unseen": UNSEEN,
    })
}

fn change_json(change: &ConfChange) -> Value {
    let members = change.members.iter().map(|member| {
        json!({
            "name": member.name,
            "uuid": member.uuid.to_string(),
            "incoming": member.incoming,
            "state": member.state.to_string(),
            "lowest_cached": member.lowest_cached.map(|seqno| seqno.0),
        })
    });
    json!({"seqno": change.state.seqno.0, "configuration": change.conf_id, "members": members.collect::<Vec<_>>()})
}

/// A rate as JSON.
pub fn rate_json(rate: &Rate) -> Value {
    json!({
        "bytes_per_second": rate.bytes_per_second,
        "actions_per_second": rate.actions_per_second,
        "measured_seconds": rate.span.as_secs_f64(),
        "clock_of": rate.writer.to_string(),
    })
}

/// A rate as text.
pub fn rate(rate: &Rate) -> String {
    let per_second =
        format!("{}/s, {:.0} actions/s", size(rate.bytes_per_second as u64), rate.actions_per_second);
    format!("{per_second}, measured over {}", span(rate.span))
}

/// Formats one action as one line.
pub fn line(entry: &Entry, source: &Source<'_>, as_json: bool) -> Result<String> {
    let header = &entry.header;
    let store = if header.store == Store::Ring { "ring" } else { "page" };
    let (kind, what) = match (header.action, source.payload(entry)?) {
        (Action::WriteSet, Payload::Valid(bytes)) => ("write-set", write_set(&bytes)),
        (Action::ConfChange, Payload::Valid(bytes)) => ("change", members(&bytes)),
        (Action::Other(_), Payload::Valid(_)) => ("other", String::new()),
        (_, Payload::Bad(what)) => ("damaged", what),
        (_, Payload::Overwritten) => ("overwritten", String::new()),
    };
    Ok(match as_json {
        true => json!({
            "seqno": entry.seqno.0, "kind": kind, "bytes": header.size, "store": store, "at": entry.at,
            "released": header.released, "skipped": header.skipped, "what": what,
        })
        .to_string(),
        false => {
            let released = if header.released { "released" } else { "held" };
            let skipped = if header.skipped { " skipped" } else { "" };
            format!("{:>12} {:>10} {store} {released}{skipped} {kind} {what}", entry.seqno, header.size)
        }
    })
}

/// One action of any store on one line.
pub fn stored_line(action: &StoredAction, as_json: bool) -> String {
    let (kind, what) = match action.action {
        Action::WriteSet => ("write-set", write_set(&action.bytes)),
        Action::ConfChange => ("change", members(&action.bytes)),
        Action::Other(_) => ("other", String::new()),
    };
    match as_json {
        true => json!({
            "seqno": action.seqno.0, "kind": kind, "bytes": action.bytes.len(), "skipped": action.skipped, "what": what,
        })
        .to_string(),
        false => {
            let skipped = if action.skipped { " skipped" } else { "" };
            format!("{:>12} {:>10}{skipped} {kind} {what}", action.seqno, action.bytes.len())
        }
    }
}

/// Formats the source of a write-set and its events.
fn write_set(bytes: &[u8]) -> String {
    let Ok(set) = WriteSet::parse(bytes) else { return String::new() };
    let data = set.data.map(|data| data.records).unwrap_or_default();
    let events: Vec<String> = binlog_events::events(data)
        .map(|event| binlog_events::name(event.kind).map_or_else(|| event.kind.to_string(), str::to_owned))
        .collect();
    let order = if set.header.is_total_order() { "in total order " } else { "" };
    format!("by {} {order}{}", set.header.source, events.join(","))
}

fn members(bytes: &[u8]) -> String {
    let Ok(change) = ConfChange::parse(bytes) else { return String::new() };
    let members = change.members.iter().map(|member| {
        let lowest = member.lowest_cached.map_or("-".to_owned(), |seqno| seqno.to_string());
        format!("{} {} {lowest}", member.name, member.state)
    });
    members.collect::<Vec<_>>().join(", ")
}
