//! The phases of both hosts on one axis of time, with the throughput below them.
use std::fmt::Write as _;

use super::facts::changed;
use super::html::{Text, percent, span};
use super::throughput;
use crate::pairs::Transfer;
use crate::record::{Phase, Record};
use crate::why::Part;

/// A phase that takes at least this much of the axis, in percent, is labelled in it.
const LABELLED: f64 = 9.0;
/// The least width of what is marked, in percent.
const SEEN: f64 = 0.35;

/// The axis: the time of both hosts by the joiner's clock.
pub(super) struct Axis {
    began_ms: i128,
    /// Its length.
    pub ms: u64,
}

impl Axis {
    fn of(transfer: &Transfer) -> Axis {
        let all = || transfer.records().map(|record| (record, shift(transfer, record)));
        let began_ms = all().map(|(record, shift)| i128::from(record.began_ms) + shift).min().unwrap_or(0);
        let end = |record: &Record| i128::from(record.began_ms) + i128::from(record.ms());
        let ended = all().map(|(record, shift)| end(record) + shift).max().unwrap_or(0);
        Axis { began_ms, ms: u64::try_from(ended - began_ms).unwrap_or(1).max(1) }
    }

    /// An axis by its numbers.
    #[cfg(test)]
    pub fn for_tests(began_ms: i128, ms: u64) -> Axis {
        Axis { began_ms, ms }
    }

    /// Where an instant is, in milliseconds since the axis begins.
    pub fn at(&self, ms: u64, shift: i128) -> u64 {
        u64::try_from((i128::from(ms) + shift - self.began_ms).max(0)).unwrap_or(u64::MAX).min(self.ms)
    }
}

/// What is added to the times of a record to have them by the joiner's clock.
pub(super) fn shift(transfer: &Transfer, record: &Record) -> i128 {
    if record.role == "donor" { transfer.donors_clock_is_behind_ms() } else { 0 }
}

/// Writes the charts, and the same as tables.
pub(super) fn write(out: &mut String, transfer: &Transfer, number: usize) {
    let axis = Axis::of(transfer);
    out.push_str("<section class=\"timeline\">\n<h3>Timeline</h3>\n");
    legend(out, transfer);
    out.push_str("<div class=\"chart\">\n");
    for record in transfer.records() {
        lane(out, record, shift(transfer, record), &axis);
    }
    throughput::write(out, transfer, &axis, number);
    out.push_str("<div class=\"axis\" aria-hidden=\"true\">");
    for quarter in 0..=4u64 {
        let _ = write!(out, "<span>{}</span>", span(axis.ms / 4 * quarter + axis.ms % 4 * quarter / 4));
    }
    out.push_str("</div>\n</div>\n<details class=\"as-table\"><summary>As tables</summary>\n");
    for record in transfer.records() {
        table(out, record, shift(transfer, record), &axis);
    }
    throughput::table(out, transfer, &axis);
    out.push_str("</details>\n</section>\n");
}

fn legend(out: &mut String, transfer: &Transfer) {
    out.push_str("<ul class=\"legend\" aria-label=\"Colours of the timeline\">");
    let is_there = |part: Part| {
        let phases = transfer.records().flat_map(|record| &record.phases);
        let waits = transfer.records().any(|record| !record.waits.is_empty());
        phases.into_iter().any(|phase| Part::of(&phase.name) == part) || (part == Part::Wait && waits)
    };
    for part in Part::ALL.into_iter().filter(|part| is_there(*part)) {
        let _ = write!(out, "<li><i class=\"{}\"></i>{}</li>", part.class(), part.name());
    }
    if transfer.records().any(|record| !record.slowed.is_empty()) {
        out.push_str("<li><i class=\"slowed\"></i>slowed for the donor's server</li>");
    }
    if transfer.records().any(|record| !record.changes.is_empty()) {
        out.push_str("<li><i class=\"set\"></i>limit changed (rejoin set)</li>");
    }
    if transfer.records().any(|record| !record.pauses.is_empty()) {
        out.push_str("<li><i class=\"pause\"></i>replication paused or writes blocked</li>");
    }
    out.push_str("</ul>\n");
}

fn lane(out: &mut String, record: &Record, shift: i128, axis: &Axis) {
    let who = format!("{} {}", record.role, record.node);
    let _ = write!(
        out,
        "<div class=\"lane\"><span class=\"who\">{0}</span><div class=\"plot\">\n<svg viewBox=\"0 0 100 30\" \
         preserveAspectRatio=\"none\" role=\"img\" aria-label=\"Phases of the {0}; the same as a table below\">\n",
        Text(&who)
    );
    let place = |phase: &Phase| {
        let (from, to) = (axis.at(phase.began_ms, shift), axis.at(phase.ended_ms, shift));
        (percent(from, axis.ms), percent(to.saturating_sub(from), axis.ms))
    };
    let mut labels = String::new();
    for phase in &record.phases {
        let (x, width) = place(phase);
        rect(
            out,
            Part::of(&phase.name).class(),
            (x, width),
            (0, 30),
            &format!("{}: {}", phase.name, span(phase.ms())),
        );
        if width >= LABELLED {
            let _ = write!(labels, "<span style=\"left:{x}%;width:{width}%\">{}</span>", Text(&phase.name));
        }
    }
    for wait in &record.waits {
        let (x, width) = place(wait);
        rect(out, "wait", (x, width.max(SEEN)), (18, 12), &format!("{}: {}", wait.name, span(wait.ms())));
    }
    for slowed in &record.slowed {
        let (x, width) = place(slowed);
        let words = format!("slowed: {}: {}", slowed.name, span(slowed.ms()));
        rect(out, "slowed", (x, width.max(SEEN)), (24, 6), &words);
    }
    for change in &record.changes {
        let x = percent(axis.at(change.at_ms, shift), axis.ms);
        rect(out, "set", (x, SEEN), (0, 12), &format!("rejoin set: {}", changed(&change.set)));
    }
    for pause in &record.pauses {
        let took_ms = pause.took_us / 1000;
        let began_ms = pause.ended_ms.saturating_sub(took_ms);
        let (x, width) = place(&Phase { began_ms, ended_ms: pause.ended_ms, ..Phase::default() });
        let words = format!("{}: {:.1} ms", pause.what, pause.took_us as f64 / 1000.0);
        rect(out, "pause", (x, width.max(SEEN)), (0, 30), &words);
    }
    let _ = writeln!(out, "</svg><div class=\"labels\" aria-hidden=\"true\">{labels}</div></div></div>");
}

fn rect(out: &mut String, class: &str, (x, width): (f64, f64), (y, height): (u32, u32), title: &str) {
    let _ = writeln!(
        out,
        "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"><title>{}</title></rect>",
        Text(title)
    );
}

fn table(out: &mut String, record: &Record, shift: i128, axis: &Axis) {
    let _ = write!(
        out,
        "<div class=\"scroll\"><table class=\"phases\">\n<caption>Phases of the {} {}</caption>\n<thead><tr><th scope=\"col\">phase</th>\
         <th scope=\"col\">began after</th><th scope=\"col\">took</th></tr></thead>\n<tbody>\n",
        Text(&record.role),
        Text(&record.node)
    );
    let mut row = |name: &str, began_ms: u64, took: &str| {
        let _ = writeln!(
            out,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{took}</td></tr>",
            Text(name),
            span(axis.at(began_ms, shift))
        );
    };
    for phase in &record.phases {
        row(&phase.name, phase.began_ms, &span(phase.ms()));
    }
    for wait in &record.waits {
        row(&format!("wait: {}", wait.name), wait.began_ms, &span(wait.ms()));
    }
    for slowed in &record.slowed {
        row(&format!("slowed: {}", slowed.name), slowed.began_ms, &span(slowed.ms()));
    }
    for change in &record.changes {
        row(&format!("rejoin set: {}", changed(&change.set)), change.at_ms, "–");
    }
    for pause in &record.pauses {
        let name = format!("pause: {}", pause.what);
        let took = format!("{:.1} ms", pause.took_us as f64 / 1000.0);
        row(&name, pause.ended_ms.saturating_sub(pause.took_us / 1000), &took);
    }
    out.push_str("</tbody>\n</table></div>\n");
}
