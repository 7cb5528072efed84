//! The part of Markdown that our documents use, as roff with the macros of `man`.

/// A document without its first heading, which the page's name stands for.
pub fn to_roff(text: &str) -> String {
    let mut out = String::new();
    let mut lines = text.lines().skip_while(|line| line.is_empty() || line.starts_with("# ")).peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("```") {
            out.push_str(".PP\n.RS 4\n.nf\n");
            for code in lines.by_ref().take_while(|line| !line.starts_with("```")) {
                out.push_str(&format!("{}\n", escaped(code)));
            }
            out.push_str(".fi\n.RE\n");
        } else if let Some(heading) = line.strip_prefix("## ") {
            out.push_str(&format!(".SH \"{}\"\n", self::line(heading).to_uppercase()));
        } else if let Some(heading) = line.strip_prefix("### ") {
            out.push_str(&format!(".SS \"{}\"\n", self::line(heading)));
        } else if line.starts_with('|') {
            let separator = lines.next_if(|next| next.starts_with("|-"));
            if separator.is_none() {
                row(&mut out, line);
            }
        } else if let Some(item) = line.strip_prefix("- ") {
            out.push_str(&format!(".IP \\(bu 2\n{}\n", self::line(item)));
        } else if line.is_empty() {
            // A paragraph begins where text follows; macros make their own space, headings too.
            let text = lines.peek().is_some_and(|next| {
                !next.is_empty() && !next.starts_with(['|', '#', '-']) && !next.starts_with("```")
            });
            let after_heading = out.lines().last().is_some_and(|last| last.starts_with(".S"));
            if text && !after_heading {
                out.push_str(".PP\n");
            }
        } else {
            out.push_str(&format!("{}\n", self::line(line.trim_start())));
        }
    }
    out
}

/// The first cell is the tag. The others follow; the options' own table names them.
fn row(out: &mut String, row: &str) {
    let cells: Vec<&str> = cells(row);
    let (first, rest) = cells.split_first().unwrap_or((&"", &[]));
    out.push_str(&format!(".TP\n{}\n", line(first)));
    let text = match rest {
        [values, default, meaning] => {
            let values = if values.is_empty() { String::new() } else { format!("{}. ", line(values)) };
            let default =
                if default.is_empty() { String::new() } else { format!("Default: {}. ", line(default)) };
            format!("{values}{default}\n.br\n{}", line(meaning))
        }
        others => others
            .iter()
            .filter(|cell| !cell.is_empty())
            .map(|cell| line(cell))
            .collect::<Vec<_>>()
            .join(". "),
    };
    out.push_str(&format!("{}\n", text.trim_start_matches("\n.br\n")));
}

/// A bar may stand in a cell, escaped.
fn cells(row: &str) -> Vec<&str> {
    let row = row.trim().trim_start_matches('|').trim_end_matches('|');
    let mut cells = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in row.char_indices() {
        if c == '|' && !escaped {
            cells.push(row[start..at].trim());
            start = at + 1;
        }
        escaped = c == '\\';
    }
    cells.push(row[start..].trim());
    cells
}

/// One line of text: code and strong words bold, links by their words.
pub fn line(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['`', '[', '*']) {
        out.push_str(&escaped(&rest[..at]));
        let (mark, after) = rest[at..].split_at(1);
        let taken = match mark {
            "`" => after.split_once('`').map(|(code, after)| (bold(&code.replace("\\|", "|")), after)),
            "*" => after
                .strip_prefix('*')
                .and_then(|text| text.split_once("**"))
                .map(|(strong, after)| (bold(strong), after)),
            _ => after.split_once("](").and_then(|(words, target)| {
                let (_, after) = target.split_once(')')?;
                (!words.contains(']')).then(|| (line(words), after))
            }),
        };
        match taken {
            Some((text, after)) => {
                out.push_str(&text);
                rest = after;
            }
            None => {
                out.push_str(mark);
                rest = after;
            }
        }
    }
    out.push_str(&escaped(rest));
    // A line that begins with one of these would be a macro.
    if out.starts_with(['.', '\'']) { format!("\\&{out}") } else { out }
}

fn bold(text: &str) -> String {
    format!("\\fB{}\\fR", escaped(text))
}

/// Text that roff takes as it is.
pub fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inline_marks_become_fonts_and_roff_is_quoted() {
        assert_eq!(
            line("set `keep-previous` (see [there](x.md))"),
            "set \\fBkeep\\-previous\\fR (see there)"
        );
        assert_eq!(line("**now** or 2*3, a[1]"), "\\fBnow\\fR or 2*3, a[1]");
        assert_eq!(line(".TH evil"), "\\&.TH evil");
        assert_eq!(line("under [sst] and [sst](a)"), "under [sst] and sst");
    }

    #[test]
    fn a_table_is_a_list_of_tags() {
        let text = to_roff(
            "# Title\n\n| option | values | default | meaning |\n|---|---|---|---|\n| `a` | 0, 1 | 1 | what \\| it is |\n",
        );
        assert_eq!(text, ".TP\n\\fBa\\fR\n0, 1. Default: 1. \n.br\nwhat \\e| it is\n");
    }
}
