//! All transfers on one scale, each with a sentence that says what is to be said of it.
use std::fmt::Write as _;

use super::html::{Text, percent, span, time};
use super::{outcome, title};
use crate::human::size;
use crate::pairs::Transfer;
use crate::record::{Method, Record};
use crate::why::{Part, ms_in, sent, verdict};

/// Writes the list.
pub(super) fn write(out: &mut String, transfers: &[Transfer]) {
    let longest = transfers.iter().map(|transfer| transfer.main().ms()).max().unwrap_or(1);
    out.push_str("<section class=\"overview\" aria-labelledby=\"overview\">\n<h2 id=\"overview\">How long they took</h2>\n");
    legend(out, transfers);
    out.push_str("<ol>\n");
    for (index, transfer) in transfers.iter().enumerate() {
        row(out, index, transfer, transfers, longest);
    }
    out.push_str("</ol>\n</section>\n");
}

fn legend(out: &mut String, transfers: &[Transfer]) {
    out.push_str("<ul class=\"legend\" aria-label=\"Colours of the phases\">");
    let any = |part: Part| transfers.iter().any(|transfer| ms_in(transfer.main(), part) > 0);
    for part in Part::ALL.into_iter().filter(|part| any(*part)) {
        let _ = write!(out, "<li><i class=\"{}\"></i>{}</li>", part.class(), part.name());
    }
    out.push_str("</ul>\n");
}

fn row(out: &mut String, index: usize, transfer: &Transfer, all: &[Transfer], longest: u64) {
    let number = index + 1;
    let main = transfer.main();
    let (word, class) = outcome(transfer);
    let _ = write!(
        out,
        "<li class=\"{class}\">\n<div class=\"head\"><a href=\"#t{number}\">#{number} {}</a> <span class=\"badge {class}\">{word}\
         </span> <span class=\"when\">{} · {}</span> <strong class=\"took\">{}</strong></div>\n",
        Text(&title(transfer)),
        Text(&time(main.began_ms)),
        Text(&kind(transfer)),
        span(main.ms())
    );
    bar(out, main, longest, number);
    let before = last_good(all, index);
    let (head, rest) = verdict(transfer, before);
    let _ = writeln!(out, "<p class=\"why\"><strong>{}</strong>{}</p>\n</li>", Text(&head), Text(&rest));
}

/// The last transfer of files before this one that succeeded, with its number: one of the same node, if there is one. If there was
/// none, the last one by which this node came back in another way.
fn last_good(all: &[Transfer], index: usize) -> Option<(usize, &Transfer)> {
    let this = all.get(index)?.main();
    let good = || {
        all.iter()
            .take(index)
            .enumerate()
            .rev()
            .filter(|(_, transfer)| transfer.is_ok() && transfer.method() == Some(Method::Files))
    };
    let same = |other: &&Record| other.node == this.node && other.role == this.role;
    let other_way = || {
        let mut earlier = all.iter().take(index).enumerate().rev();
        earlier.find(|(_, transfer)| transfer.is_ok() && same(&transfer.main()))
    };
    let found = good().find(|(_, transfer)| same(&transfer.main())).or_else(|| good().next());
    let found = found.or_else(other_way);
    found.map(|(index, transfer)| (index + 1, transfer))
}

/// What was sent, in a few words.
fn kind(transfer: &Transfer) -> String {
    let main = transfer.main();
    let snapshot =
        main.attempts.last().map(|attempt| format!(", {} snapshot", attempt.snapshot)).unwrap_or_default();
    match transfer.method() {
        Some(Method::Ist) => "IST".to_owned(),
        Some(Method::WriteSets) => "deep IST".to_owned(),
        Some(Method::Files) => {
            let full = match transfer.plan().map(|plan| plan.full) {
                Some(true) => "full",
                Some(false) => "incremental",
                None => "files",
            };
            format!("{full}{snapshot}, {} sent", size(sent(main)))
        }
        None => "nothing was sent".to_owned(),
    }
}

fn bar(out: &mut String, main: &Record, longest: u64, number: usize) {
    let words: Vec<String> = Part::ALL
        .into_iter()
        .map(|part| (part, ms_in(main, part)))
        .filter(|(_, ms)| *ms > 0)
        .map(|(part, ms)| format!("{} {}", part.name(), span(ms)))
        .collect();
    let _ = write!(
        out,
        "<svg class=\"bar\" viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"#{number} took {}: {}\">",
        span(main.ms()),
        words.join(", ")
    );
    let mut at = 0.0;
    for part in Part::ALL {
        let ms = ms_in(main, part);
        let width = percent(ms, longest).min(100.0 - at);
        if ms > 0 && width > 0.0 {
            let (class, name) = (part.class(), part.name());
            let _ = write!(
                out,
                "<rect class=\"{class}\" x=\"{at:.3}\" y=\"0\" width=\"{width:.3}\" height=\"10\"><title>{name}: {}</title></rect>",
                span(ms)
            );
            at += width;
        }
    }
    out.push_str("</svg>\n");
}
