//! Throughput over time: bytes a second on the network, and how much of the files was complete.
use std::fmt::Write as _;

use super::html::{Text, percent, span};
use super::timeline::{Axis, shift};
use crate::human::size;
use crate::limits::limits;
use crate::pairs::Transfer;
use crate::record::{Record, Sample};

/// Most columns of the chart.
const COLUMNS_MAX: u64 = 120;
/// Fewest milliseconds of a column: samples are not closer.
const COLUMN_MS: u64 = 100;
/// Rows of the table.
const ROWS: u64 = 12;

/// The record whose samples are shown: of a pair, both hosts saw the same bytes.
fn shown(transfer: &Transfer) -> Option<&Record> {
    let records = transfer.joiner.iter().chain(&transfer.donor);
    records.max_by_key(|record| record.samples.len()).filter(|record| record.samples.len() > 1)
}

/// Bytes on the network in each of `columns` equal parts of the axis.
fn columns(record: &Record, shift: i128, axis: &Axis, columns: u64) -> Vec<f64> {
    let mut bytes = vec![0.0; columns as usize];
    let width = axis.ms as f64 / columns as f64;
    let at = |sample: &Sample| axis.at(record.began_ms.saturating_add(sample.ms), shift) as f64;
    for two in record.samples.windows(2) {
        let [from, to] = two else { continue };
        let moved = to.network.saturating_sub(from.network) as f64;
        let (begin, end) = (at(from), at(to));
        if end <= begin || moved <= 0.0 {
            continue;
        }
        let (first, last) = ((begin / width) as usize, (end / width) as usize);
        for (column, sum) in bytes.iter_mut().enumerate().take(last + 1).skip(first) {
            let (left, right) = (column as f64 * width, (column + 1) as f64 * width);
            let overlap = (right.min(end) - left.max(begin)).max(0.0);
            *sum += moved * overlap / (end - begin);
        }
    }
    bytes
}

/// Bytes a second in each column.
fn rates(record: &Record, shift: i128, axis: &Axis, count: u64) -> Vec<f64> {
    let seconds = axis.ms as f64 / count as f64 / 1000.0;
    columns(record, shift, axis, count).into_iter().map(|bytes| bytes / seconds).collect()
}

/// Writes the chart, on the axis of the timeline.
pub(super) fn write(out: &mut String, transfer: &Transfer, axis: &Axis, number: usize) {
    let Some(record) = shown(transfer) else { return };
    let shift = shift(transfer, record);
    let count = (axis.ms / COLUMN_MS).clamp(1, COLUMNS_MAX);
    let rates = rates(record, shift, axis, count);
    let most = rates.iter().copied().fold(1.0, f64::max);
    let _ = write!(
        out,
        "<div class=\"lane rate\"><span class=\"who\">network<small>, at most {0}/s; line: files complete</small></span>\
         <div class=\"plot\">\n<svg viewBox=\"0 0 100 100\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"Throughput of #{number}: \
         at most {0}/s; the same as a table below\">\n",
        size(most as u64)
    );
    let width = 100.0 / count as f64;
    let mut area = String::from("M0 100");
    for (column, rate) in rates.iter().enumerate() {
        let (left, right, top) =
            (column as f64 * width, (column + 1) as f64 * width, 100.0 - rate / most * 84.0);
        let _ = write!(area, " L{left:.3} {top:.2} L{right:.3} {top:.2}");
    }
    let _ = writeln!(
        out,
        "<path class=\"area\" d=\"{area} L100 100 Z\"><title>Bytes a second on the network</title></path>"
    );
    limit(out, transfer, axis, most);
    complete(out, record, shift, axis);
    for (column, rate) in rates.iter().enumerate() {
        let at = span((axis.ms as f64 / count as f64 * column as f64) as u64);
        let _ = writeln!(
            out,
            "<rect class=\"hit\" x=\"{:.3}\" y=\"0\" width=\"{width:.3}\" height=\"100\"><title>after {at}: {}/s</title></rect>",
            column as f64 * width,
            size(*rate as u64)
        );
    }
    let _ = writeln!(
        out,
        "</svg><span class=\"most\" aria-hidden=\"true\">{}/s</span></div></div>",
        size(most as u64)
    );
}

/// Lines for the donor's limits, as long as each was in force, where they are in the picture.
fn limit(out: &mut String, transfer: &Transfer, axis: &Axis, most: f64) {
    let Some(donor) = &transfer.donor else { return };
    let shift = shift(transfer, donor);
    let spans = limits(donor);
    for span in &spans {
        let Some(limit) = span.limit else { continue };
        let top = 100.0 - limit as f64 / most * 84.0;
        let x = |ms| percent(axis.at(ms, shift), axis.ms);
        let (from, to) = (x(span.from_ms), x(span.to_ms));
        if (0.0..=99.0).contains(&top) && from < to {
            let _ = writeln!(
                out,
                "<path class=\"limit\" d=\"M{from:.3} {top:.2} L{to:.3} {top:.2}\"><title>rlimit of the donor: {}/s</title></path>",
                size(limit)
            );
        }
    }
}

/// A line for the part of the files that is complete.
fn complete(out: &mut String, record: &Record, shift: i128, axis: &Axis) {
    let points: Vec<String> = record
        .samples
        .iter()
        .map(|sample| {
            let x = percent(axis.at(record.began_ms.saturating_add(sample.ms), shift), axis.ms);
            format!("{x:.3} {:.2}", 100.0 - share(record, sample) * 0.96)
        })
        .collect();
    let _ = writeln!(
        out,
        "<path class=\"complete\" d=\"M{}\"><title>Part of the files that is complete</title></path>",
        points.join(" L")
    );
}

fn share(record: &Record, sample: &Sample) -> f64 {
    if record.bytes.total == 0 { 0.0 } else { percent(sample.done, record.bytes.total) }
}

/// Writes the same as a table.
pub(super) fn table(out: &mut String, transfer: &Transfer, axis: &Axis) {
    let Some(record) = shown(transfer) else { return };
    let shift = shift(transfer, record);
    let count = (axis.ms / COLUMN_MS).clamp(1, ROWS);
    let _ = write!(
        out,
        "<div class=\"scroll\"><table>\n<caption>Throughput, as the {} saw it</caption>\n<thead><tr><th scope=\"col\">until</th>\
         <th scope=\"col\">network</th><th scope=\"col\">files complete</th></tr></thead>\n<tbody>\n",
        Text(&record.role)
    );
    for (row, rate) in rates(record, shift, axis, count).iter().enumerate() {
        let end = (axis.ms as f64 / count as f64 * (row + 1) as f64) as u64;
        let before = |sample: &&Sample| axis.at(record.began_ms.saturating_add(sample.ms), shift) <= end;
        let done =
            record.samples.iter().take_while(before).last().map_or(0.0, |sample| share(record, sample));
        let _ = writeln!(
            out,
            "<tr><th scope=\"row\">{}</th><td>{}/s</td><td>{done:.0} %</td></tr>",
            span(end),
            size(*rate as u64)
        );
    }
    out.push_str("</tbody>\n</table></div>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Change, Settings};

    #[test]
    fn no_byte_is_lost_between_the_columns() {
        let sample = |ms, network| Sample { ms, network, done: 0 };
        let samples = vec![sample(0, 0), sample(130, 1000), sample(900, 1000), sample(1700, 9000)];
        let record =
            Record { began_ms: 5000, written_ms: 7000, samples, role: "joiner".into(), ..Record::default() };
        let transfer = Transfer { joiner: Some(record.clone()), donor: None };
        let mut out = String::new();
        super::super::timeline::write(&mut out, &transfer, 1);
        assert!(out.contains("class=\"area\""), "{out}");
        let axis = Axis::for_tests(5000, 2000);
        for count in [1, 7, 20, 120] {
            let sum: f64 = columns(&record, 0, &axis, count).iter().sum();
            assert!((sum - 9000.0).abs() < 0.01, "{count}: {sum}");
        }
        assert_eq!(rates(&record, 0, &axis, 2), [2000.0, 7000.0]);
    }

    #[test]
    fn a_limit_is_drawn_while_it_was_in_force() {
        let sample = |ms, network| Sample { ms, network, done: 0 };
        let record = Record {
            role: "donor".into(),
            began_ms: 5000,
            ended_ms: Some(7000),
            samples: vec![sample(0, 0), sample(1000, 9000), sample(2000, 18_000)],
            settings: Settings { rlimit: Some(5000), ..Settings::default() },
            changes: vec![Change { at_ms: 6000, set: "rlimit=0".into(), user: 0 }],
            ..Record::default()
        };
        let transfer = Transfer { joiner: None, donor: Some(record) };
        let mut out = String::new();
        write(&mut out, &transfer, &Axis::for_tests(5000, 2000), 1);
        assert_eq!(out.matches("class=\"limit\"").count(), 1, "{out}");
        assert!(out.contains("d=\"M0.000 53.33 L50.000 53.33\""), "{out}");
    }
}
