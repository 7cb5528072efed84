//! Text and times in HTML.
use std::fmt;

use jiff::Timestamp;

/// Text from a record, for an element or for an attribute in double quotes. Nothing in it is markup, and nothing in it changes
/// the direction of what follows.
pub(super) struct Text<'a>(pub &'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\n' | '\t' => f.write_str(" ")?,
                c if c.is_control() => f.write_str("\u{fffd}")?,
                '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                    f.write_str("\u{fffd}")?;
                }
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

/// A time of day, in UTC.
pub(super) fn time(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    time.map_or("(no time)".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// A number of milliseconds in words.
pub(super) fn span(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        _ => crate::human::seconds(ms as f64 / 1000.0),
    }
}

/// A share in percent, for a style: always a number from 0 to 100.
pub(super) fn percent(part: u64, whole: u64) -> f64 {
    let share = part as f64 * 100.0 / whole.max(1) as f64;
    (share.clamp(0.0, 100.0) * 1000.0).round() / 1000.0
}
