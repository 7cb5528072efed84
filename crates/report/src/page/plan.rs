//! The plan beside what happened.
use std::fmt::Write as _;

use super::html::{Text, span};
use crate::human::size;
use crate::pairs::Transfer;
use crate::record::{Method, Plan, Record};

/// More than this part beyond the plan is marked.
const OVER: u64 = 4;
/// Fewer bytes beyond the plan are never marked.
const LITTLE: u64 = 1 << 20;

/// Writes the table, if there was a plan.
pub(super) fn write(out: &mut String, transfer: &Transfer) {
    let Some(plan) = transfer.plan() else { return };
    let record = transfer.main();
    let _ = write!(
        out,
        "<section class=\"plan\">\n<h3>Plan and outcome</h3>\n<p class=\"words\">{}</p>\n<div class=\"scroll\"><table>\n<thead><tr><td></td>\
         <th scope=\"col\">planned</th><th scope=\"col\">happened</th></tr></thead>\n<tbody>\n",
        Text(&plan.words)
    );
    let rows = match transfer.method() {
        Some(Method::WriteSets) => of_write_sets(plan, record),
        _ => of_files(plan, transfer, record),
    };
    for (name, planned, happened, over) in rows {
        let mark = if over { " <span class=\"over\">▲ more than planned</span>" } else { "" };
        let _ = writeln!(
            out,
            "<tr><th scope=\"row\">{name}</th><td>{}</td><td>{}{mark}</td></tr>",
            Text(&planned),
            Text(&happened)
        );
    }
    out.push_str("</tbody>\n</table></div>\n</section>\n");
}

type Row = (&'static str, String, String, bool);

fn of_write_sets(plan: &Plan, record: &Record) -> Vec<Row> {
    let number = plan.write_sets.map(|number| number.to_string()).unwrap_or_default();
    let bytes = plan.write_set_bytes.unwrap_or(0);
    vec![
        ("write-sets", number, "–".to_owned(), false),
        (
            "bytes of write-sets",
            size(bytes),
            size(record.bytes.write_sets),
            is_over(bytes, record.bytes.write_sets),
        ),
    ]
}

fn of_files(plan: &Plan, transfer: &Transfer, record: &Record) -> Vec<Row> {
    let bytes = &record.bytes;
    let unknown = || "–".to_owned();
    let ended = record.outcome.is_some();
    let mut rows = vec![("files and redo", size(plan.total), size(bytes.total), false)];
    if let Some(sent) = plan.sent {
        let planned = match plan.sent_at_least {
            _ if plan.full => size(sent),
            Some(least) if least > 0 && least < sent => format!("{} to {}", size(least), size(sent)),
            _ => format!("at most {}", size(sent)),
        };
        rows.push(("sent", planned, size(bytes.sent), is_over(sent, bytes.sent)));
        let reused = format!("about {}", size(plan.total.saturating_sub(sent)));
        rows.push(("reused", if plan.full { size(0) } else { reused }, size(bytes.reused), false));
        let rebuilt = plan.sent_in_parts.map(|parts| format!("at most {}", size(sent.saturating_sub(parts))));
        rows.push((
            "rebuilt from parts of pages",
            rebuilt.unwrap_or_else(unknown),
            size(bytes.rebuilt),
            false,
        ));
    }
    if bytes.zero > 0 {
        rows.push(("zeros, not sent", unknown(), size(bytes.zero), false));
    }
    if plan.redo.is_some() || bytes.redo > 0 {
        let redo = plan.redo.unwrap_or(0);
        let planned = plan.redo.map_or_else(unknown, |redo| format!("{} so far", size(redo)));
        rows.push(("redo", planned, size(bytes.redo), is_over(redo.saturating_mul(2), bytes.redo)));
    }
    let rounds = transfer.donor.as_ref().and_then(|donor| donor.redo_rounds);
    if plan.redo_rounds.is_some() || rounds.is_some() {
        let number = |rounds: Option<u64>| rounds.map_or_else(unknown, |rounds| rounds.to_string());
        rows.push(("newer checkpoints taken", number(plan.redo_rounds), number(rounds), false));
    }
    if let Some(ms) = plan.recovery_ms {
        rows.push((
            "recovery of the joiner's server",
            format!("about {}", span(ms)),
            "see its error log".to_owned(),
            false,
        ));
    }
    if let (Some(equal), Some(sampled @ 1..)) = (plan.equal_blocks, plan.sampled_blocks) {
        let reused = percent_reused(record).filter(|_| ended);
        let reused =
            reused.map_or_else(unknown, |percent| format!("{percent} % of the bytes reused or rebuilt"));
        rows.push(("sample", format!("{equal} of {sampled} blocks equal"), reused, false));
    }
    rows
}

fn percent_reused(record: &Record) -> Option<u64> {
    let bytes = &record.bytes;
    let had = bytes.reused.saturating_add(bytes.rebuilt);
    had.saturating_mul(100).checked_div(had.saturating_add(bytes.sent))
}

fn is_over(planned: u64, happened: u64) -> bool {
    happened > planned.saturating_add(planned / OVER).saturating_add(LITTLE)
}
