//! Horizontal bars with ranges, as one SVG that needs nothing else and follows the reader's light or dark mode.

use std::fmt::Write as _;

/// Pixels.
const WIDTH: f64 = 1000.0;
/// Where bars begin and end.
const LEFT: f64 = 260.0;
const RIGHT: f64 = WIDTH - 260.0;
const BAR: f64 = 16.0;
const ROW: f64 = 26.0;
const HEAD: f64 = 96.0;
const GROUP: f64 = 40.0;
const FOOT: f64 = 56.0;
const MARGIN: f64 = 20.0;
/// Numbers on the axis, at most.
const TICKS: f64 = 8.0;

/// Colours of both modes, and no text smaller than 13 pixels.
const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#1f2328}\
.title{font-size:18px;font-weight:600}\
.group{font-size:14px;font-weight:600}\
.soft{fill:#59636e}\
.ground{fill:#ffffff}\
.grid{stroke:#d1d9e0}\
.rest{fill:#a5c8f0}\
.part{fill:#1a6fd0}\
.range{stroke:#1f2328;stroke-width:1.5}\
@media(prefers-color-scheme:dark){\
text{fill:#f0f6fc}\
.soft{fill:#9198a1}\
.ground{fill:#0d1117}\
.grid{stroke:#3d444d}\
.rest{fill:#254a75}\
.part{fill:#4493f8}\
.range{stroke:#f0f6fc}\
}";

/// What is drawn.
pub struct Plot {
    pub title: String,
    /// Lines below it, not too long.
    pub notes: Vec<String>,
    /// What the two kinds of a bar are.
    pub part: &'static str,
    pub rest: &'static str,
    pub range: &'static str,
    pub unit: &'static str,
    pub groups: Vec<Group>,
}

/// Bars with a title above them.
pub struct Group {
    pub title: String,
    pub bars: Vec<Bar>,
}

/// A bar.
pub struct Bar {
    pub label: String,
    /// How long it is, and the range of that.
    pub value: f64,
    pub least: f64,
    pub most: f64,
    /// What of it is of the stronger colour: from, to.
    pub part: (f64, f64),
    /// What is beside its value; may be empty.
    pub note: String,
}

impl Plot {
    pub fn svg(&self) -> String {
        let bars = self.groups.iter().flat_map(|group| &group.bars);
        let (step, end) = axis(bars.map(|bar| bar.most).fold(0.0, f64::max));
        let x = |value: f64| LEFT + value / end * (RIGHT - LEFT);
        let head = HEAD + self.notes.len() as f64 * 18.0;
        let rows: f64 = self.groups.iter().map(|group| GROUP + group.bars.len() as f64 * ROW).sum();
        let bottom = head + rows;
        let height = bottom + FOOT;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
             <title>{}</title>\n<style>{STYLE}</style>\n<rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n",
            escape(&self.title)
        );
        text(&mut out, "title", "start", (MARGIN, 34.0), &self.title);
        for (n, note) in self.notes.iter().enumerate() {
            text(&mut out, "soft", "start", (MARGIN, 58.0 + n as f64 * 18.0), note);
        }
        self.legend(&mut out, head - 28.0);
        let mut tick = 0.0;
        while tick <= end + step / 2.0 {
            let at = x(tick);
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{head:.1}\" x2=\"{at:.1}\" y2=\"{bottom:.1}\"/>"
            );
            text(&mut out, "soft", "middle", (at, bottom + 20.0), &short(tick, step));
            tick += step;
        }
        text(&mut out, "soft", "middle", (f64::midpoint(LEFT, RIGHT), bottom + 40.0), self.unit);
        let mut y = head;
        for group in &self.groups {
            text(&mut out, "group", "start", (MARGIN, y + GROUP - 12.0), &group.title);
            y += GROUP;
            for bar in &group.bars {
                bar.draw(&mut out, y, x);
                y += ROW;
            }
        }
        out + "</svg>\n"
    }

    fn legend(&self, out: &mut String, y: f64) {
        let mut x = MARGIN;
        for (class, words) in [("part", self.part), ("rest", self.rest)] {
            let _ = writeln!(
                out,
                "<rect class=\"{class}\" x=\"{x}\" y=\"{}\" width=\"24\" height=\"12\"/>",
                y - 11.0
            );
            text(out, "soft", "start", (x + 32.0, y), words);
            x += 62.0 + words.chars().count() as f64 * 7.0;
        }
        range(out, (x, x + 24.0), y - 5.0);
        text(out, "soft", "start", (x + 32.0, y), self.range);
    }
}

impl Bar {
    fn draw(&self, out: &mut String, y: f64, x: impl Fn(f64) -> f64) {
        let (top, middle) = (y + (ROW - BAR) / 2.0, y + ROW / 2.0);
        text(out, "label", "end", (LEFT - 10.0, middle + 4.5), &self.label);
        for (class, from, to) in [("rest", 0.0, self.value), ("part", self.part.0, self.part.1)] {
            let (from, to) = (x(from.clamp(0.0, self.value)), x(to.clamp(0.0, self.value)));
            let _ = writeln!(
                out,
                "<rect class=\"{class}\" x=\"{from:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{BAR}\"/>",
                (to - from).max(0.0)
            );
        }
        let several = self.least < self.most;
        if several {
            range(out, (x(self.least), x(self.most)), middle);
        }
        let range = if several { format!(" ({:.1} to {:.1})", self.least, self.most) } else { String::new() };
        let comma = if self.note.is_empty() { "" } else { ", " };
        let words = format!("{:.1}{range}{comma}{}", self.value, self.note);
        text(out, "label", "start", (x(self.most.max(self.value)) + 10.0, middle + 4.5), &words);
    }
}

/// A line with an end on both sides.
fn range(out: &mut String, (from, to): (f64, f64), y: f64) {
    let (up, down) = (y - 4.0, y + 4.0);
    let _ = writeln!(
        out,
        "<path class=\"range\" fill=\"none\" d=\"M{from:.1} {up:.1}V{down:.1}M{from:.1} {y:.1}H{to:.1}M{to:.1} {up:.1}V{down:.1}\"/>"
    );
}

fn text(out: &mut String, class: &str, anchor: &str, (x, y): (f64, f64), words: &str) {
    let _ = writeln!(
        out,
        "<text class=\"{class}\" text-anchor=\"{anchor}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>",
        escape(words)
    );
}

/// The step of the axis, a round number, and its end.
fn axis(most: f64) -> (f64, f64) {
    let most = if most.is_finite() && most > 0.0 { most } else { 1.0 };
    let rough = most / TICKS;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|step| *step >= rough);
    let step = step.unwrap_or(10.0 * power);
    (step, (most / step).ceil() * step)
}

/// A number on the axis, with as many digits as its step has.
fn short(value: f64, step: f64) -> String {
    let digits = if step >= 1.0 { 0 } else { (-step.log10()).ceil() as usize };
    format!("{value:.digits$}")
}

fn escape(words: &str) -> String {
    let mut out = String::with_capacity(words.len());
    for c in words.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // No XML may hold these.
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot() -> Plot {
        let bar = |label: &str, value: f64| Bar {
            label: label.to_owned(),
            value,
            least: value - 0.5,
            most: value + 1.0,
            part: (0.5, value - 0.2),
            note: if value > 10.0 { "disk 75 %".to_owned() } else { String::new() },
        };
        Plot {
            title: "2 < 3 & \"so on\"".to_owned(),
            notes: vec!["a <b>".to_owned()],
            part: "the transfer",
            rest: "before and after it",
            range: "least to most",
            unit: "seconds",
            groups: vec![
                Group { title: "A & B".to_owned(), bars: vec![bar("x<y>", 6.7), bar("z", 21.9)] },
                Group { title: "none".to_owned(), bars: Vec::new() },
            ],
        }
    }

    /// Elements are closed in order, attributes are quoted, and text holds no bare `<` or `&`.
    fn assert_well_formed(svg: &str) {
        let mut open: Vec<&str> = Vec::new();
        let mut rest = svg;
        while let Some((before, after)) = rest.split_once('<') {
            let entities = before.split('&').skip(1);
            let known = ["amp;", "lt;", "gt;", "quot;"];
            assert!(entities.into_iter().all(|e| known.iter().any(|k| e.starts_with(k))), "{before}");
            let (tag, next) = after.split_once('>').unwrap();
            rest = next;
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name));
                continue;
            }
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            assert_eq!(tag.matches("=\"").count(), tag.matches('=').count(), "{tag}");
            if !tag.ends_with('/') {
                open.push(tag.split(' ').next().unwrap());
            }
        }
        assert_eq!(open, Vec::<&str>::new());
        assert_eq!(rest, "\n");
    }

    #[test]
    fn it_is_well_formed_and_labels_are_escaped() {
        let svg = plot().svg();
        assert_well_formed(&svg);
        assert!(
            svg.contains(">6.7 (6.2 to 7.7)<") && svg.contains(">21.9 (21.4 to 22.9), disk 75 %<"),
            "{svg}"
        );
        assert!(svg.contains("x&lt;y&gt;") && svg.contains("A &amp; B") && !svg.contains("<b>"), "{svg}");
        assert_eq!(escape("a\u{1}b\"c"), "a b&quot;c");
    }

    #[test]
    fn nothing_of_it_is_elsewhere_and_no_text_is_small() {
        let svg = plot().svg().replace("http://www.w3.org/2000/svg", "");
        for outside in ["http", "url(", "href", "@import", "<script", "<image"] {
            assert!(!svg.contains(outside), "{outside}");
        }
        assert!(svg.contains("prefers-color-scheme:dark"));
        let sizes = svg.match_indices("px").map(|(at, _)| {
            let digits = svg[..at].rsplit(|c: char| !c.is_ascii_digit()).next().unwrap();
            digits.parse::<u32>().unwrap()
        });
        assert!(sizes.min().unwrap() >= 12);
    }

    #[test]
    fn axes_have_round_steps() {
        assert_eq!(axis(21.9), (5.0, 25.0));
        assert_eq!(axis(8.0), (1.0, 8.0));
        assert_eq!((short(5.0, 5.0), short(0.2, 0.1)), ("5".to_owned(), "0.2".to_owned()));
        let (step, end) = axis(0.0);
        assert!(step > 0.0 && end >= 1.0 && end.is_finite());
    }

    #[test]
    fn nothing_to_draw_is_still_a_picture() {
        assert_well_formed(&Plot { groups: Vec::new(), ..plot() }.svg());
    }
}
