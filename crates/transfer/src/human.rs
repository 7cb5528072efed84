//! Numbers and texts in human-readable form.
pub use report::human::{seconds, size, span};

/// A point in time, in milliseconds since 1970, as this host's clock shows it.
pub fn local_time(ms: u64) -> String {
    let time =
        i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Makes a peer's text safe for our log: no line breaks or terminal codes.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
