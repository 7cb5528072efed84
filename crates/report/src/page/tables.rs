//! What was reused, rebuilt and sent, by table.
use std::fmt::Write as _;

use super::html::{Text, percent};
use crate::human::size;
use crate::pairs::Transfer;
use crate::record::Table;

/// Tables that are shown at first.
const SHOWN: usize = 12;
const KINDS: [(&str, &str); 4] =
    [("sent", "sent"), ("rebuilt", "rebuilt"), ("reused", "reused"), ("zero", "zeros")];

/// Writes the table of tables, the largest first.
pub(super) fn write(out: &mut String, transfer: &Transfer) {
    let Some(record) =
        [Some(transfer.main()), transfer.donor.as_ref()].into_iter().flatten().find(|r| !r.tables.is_empty())
    else {
        return;
    };
    let mut tables: Vec<&Table> = record.tables.iter().chain(&record.other_tables).collect();
    tables.sort_by_key(|table| std::cmp::Reverse(table.all()));
    let largest = tables.first().map_or(1, |table| table.all());
    out.push_str("<section class=\"tables\">\n<h3>By table, the largest first</h3>\n<ul class=\"legend\" aria-label=\"Colours of the bars\">");
    for (class, name) in KINDS {
        let _ = write!(out, "<li><i class=\"{class}\"></i>{name}</li>");
    }
    out.push_str("</ul>\n");
    let (first, rest) = tables.split_at(SHOWN.min(tables.len()));
    rows(out, first, largest, "Bytes by table, the largest first");
    if !rest.is_empty() {
        let _ = writeln!(out, "<details><summary>{} more</summary>", rest.len());
        rows(out, rest, largest, "Bytes by table, the smaller ones");
        out.push_str("</details>\n");
    }
    out.push_str("</section>\n");
}

fn rows(out: &mut String, tables: &[&Table], largest: u64, caption: &str) {
    let _ = write!(
        out,
        "<div class=\"scroll\"><table>\n<caption class=\"hidden\">{caption}</caption>\n<thead><tr><th scope=\"col\">table</th>\
         <th scope=\"col\">sent</th><th scope=\"col\">rebuilt</th><th scope=\"col\">reused</th></tr></thead>\n<tbody>\n"
    );
    for table in tables {
        let _ = write!(out, "<tr><th scope=\"row\"><span class=\"name\">{}</span>", Text(&table.name));
        bar(out, table, largest);
        out.push_str("</th>");
        for bytes in [table.sent, table.rebuilt, table.reused] {
            let text = if bytes == 0 { "–".to_owned() } else { size(bytes) };
            let _ = write!(out, "<td>{text}</td>");
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table></div>\n");
}

fn bar(out: &mut String, table: &Table, largest: u64) {
    out.push_str(
        "<svg class=\"share\" viewBox=\"0 0 100 6\" preserveAspectRatio=\"none\" aria-hidden=\"true\">",
    );
    let mut at = 0.0;
    for ((class, name), bytes) in KINDS.iter().zip([table.sent, table.rebuilt, table.reused, table.zero]) {
        let width = percent(bytes, largest).min(100.0 - at);
        if width > 0.0 {
            let _ = write!(
                out,
                "<rect class=\"{class}\" x=\"{at:.3}\" y=\"0\" width=\"{width:.3}\" height=\"6\"><title>{name}: {}</title></rect>",
                size(bytes)
            );
            at += width;
        }
    }
    out.push_str("</svg>");
}
