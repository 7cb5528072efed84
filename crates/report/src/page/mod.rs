//! One self-contained HTML page of transfers: no script, nothing that is loaded from anywhere.
//!
//! Everything that comes from a record goes through `html::Text`.
mod facts;
mod html;
mod overview;
mod plan;
mod tables;
mod throughput;
mod timeline;

use std::fmt::Write as _;

use self::html::{Text, time};
use crate::pairs::{Transfer, pair};
use crate::record::Record;

/// Transfers whose details are open at first.
const OPEN: usize = 3;
const STYLE: &str = include_str!("style.css");

/// A file that is not shown, and why.
pub type Unread = (String, String);

/// The page of the `last` transfers of these records, and of the files that could not be read. `made_ms` is when it is made.
pub fn page(records: Vec<Record>, last: usize, unread: &[Unread], made_ms: u64) -> String {
    let mut transfers = pair(records);
    let dropped = transfers.len().saturating_sub(last);
    transfers.drain(..dropped);
    let mut out = String::new();
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>State transfers</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<header>\n<h1>State transfers</h1>\n<p class=\"made\">{}. All times are UTC.</p>\n</header>\n<main>\n",
        Text(&summary(&transfers, made_ms))
    );
    match transfers.is_empty() {
        true => out.push_str("<p class=\"empty\">There is no record of a transfer.</p>\n"),
        false => overview::write(&mut out, &transfers),
    }
    ["donor", "joiner"].into_iter().for_each(|role| missing(&mut out, &transfers, role));
    for (index, transfer) in transfers.iter().enumerate() {
        details(&mut out, index, transfers.len(), transfer);
    }
    not_shown(&mut out, unread);
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

fn summary(transfers: &[Transfer], made_ms: u64) -> String {
    let mut nodes: Vec<&str> = transfers
        .iter()
        .flat_map(Transfer::records)
        .map(|record| record.node.as_str())
        .filter(|n| !n.is_empty())
        .collect();
    nodes.sort_unstable();
    nodes.dedup();
    let of = if nodes.is_empty() { String::new() } else { format!(", recorded on {}", nodes.join(", ")) };
    let many = if transfers.len() == 1 { "transfer" } else { "transfers" };
    format!(
        "{} {many}{of}; page made {} by rejoin {}",
        transfers.len(),
        time(made_ms),
        env!("CARGO_PKG_VERSION")
    )
}

/// Writes where the records of this role are that would tell more.
fn missing(out: &mut String, transfers: &[Transfer], role: &str) {
    let without = transfers.iter().filter(|transfer| transfer.records().all(|record| record.role != role));
    let others: Vec<Option<String>> = without.map(|transfer| peer(transfer.main())).collect();
    if others.is_empty() {
        return;
    }
    let mut nodes: Vec<&str> = others.iter().flatten().map(String::as_str).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let of = if nodes.is_empty() { "the other host".to_owned() } else { nodes.join(", ") };
    let _ = writeln!(
        out,
        "<p class=\"made missing\">Of {} the {role}'s record is not here, which may say more: <code>rejoin-{role}-*.json</code> in the \
         datadir of {}.</p>",
        match others.len() {
            1 => "one transfer".to_owned(),
            count => format!("{count} transfers"),
        },
        Text(&of)
    );
}

/// The other host, as a record names it.
fn peer(record: &Record) -> Option<String> {
    let peer = record.peer.as_ref()?;
    Some(peer.name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| peer.address.clone()))
}

/// `NODE from DONOR`, as far as the names are known.
fn title(transfer: &Transfer) -> String {
    let named = |record: &Option<Record>| {
        record.as_ref().map(|record| record.node.clone()).filter(|name| !name.is_empty())
    };
    let told = |record: &Option<Record>| peer(record.as_ref()?);
    let unknown = || "(unknown)".to_owned();
    let joiner = named(&transfer.joiner).or_else(|| told(&transfer.donor)).unwrap_or_else(unknown);
    let donor = named(&transfer.donor).or_else(|| told(&transfer.joiner)).unwrap_or_else(unknown);
    format!("{joiner} from {donor}")
}

/// The outcome in a word, and its class in the style.
fn outcome(transfer: &Transfer) -> (&'static str, &'static str) {
    match transfer.is_ok() {
        true => ("✓ succeeded", "ok"),
        false if transfer.records().any(|record| record.failure().is_some()) => ("✗ failed", "failed"),
        false => ("? no outcome", "unknown"),
    }
}

fn details(out: &mut String, index: usize, count: usize, transfer: &Transfer) {
    let number = index + 1;
    let open = if index + OPEN >= count { " open" } else { "" };
    let (word, class) = outcome(transfer);
    let _ = write!(
        out,
        "<details class=\"transfer\" id=\"t{number}\"{open}>\n<summary><h2>#{number} {}</h2> \
         <span class=\"badge {class}\">{word}</span> <span class=\"when\">{}</span></summary>\n",
        Text(&title(transfer)),
        Text(&time(transfer.main().began_ms)),
    );
    facts::failures(out, transfer);
    facts::figures(out, transfer);
    timeline::write(out, transfer, number);
    let mut columns = String::new();
    plan::write(&mut columns, transfer);
    tables::write(&mut columns, transfer);
    if !columns.is_empty() {
        let _ = writeln!(out, "<div class=\"columns\">\n{columns}</div>");
    }
    facts::hosts(out, transfer);
    out.push_str("</details>\n");
}

fn not_shown(out: &mut String, unread: &[Unread]) {
    if unread.is_empty() {
        return;
    }
    out.push_str("<section class=\"unread\">\n<h2>Files that are not shown</h2>\n<ul>\n");
    for (file, why) in unread {
        let _ = writeln!(out, "<li><code>{}</code>: {}</li>", Text(file), Text(why));
    }
    out.push_str("</ul>\n</section>\n");
}

#[cfg(test)]
mod tests;
