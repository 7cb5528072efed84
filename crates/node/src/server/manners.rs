//! What makes us a considerate guest on the server's host.
use std::fs;

/// Added to our own out-of-memory score, on the kernel's scale from -1000 to 1000: when memory runs out, a transfer is
/// a smaller loss than the server it is made for.
const EXPENDABLE: i32 = 500;

/// Makes the kernel end us rather than the server when memory runs out. Raising the score needs no right; that it fails
/// where there is no `/proc` harms nothing.
pub fn be_expendable() {
    let own = "/proc/self/oom_score_adj";
    let before: i32 = fs::read_to_string(own).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let after = (before + EXPENDABLE).min(1000);
    if let Err(error) = fs::write(own, after.to_string()) {
        tracing::debug!("the out-of-memory score stays {before}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_rises() {
        let read = || fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse::<i32>().unwrap();
        let before = read();
        be_expendable();
        assert!(read() > before || before == 1000);
    }
}
