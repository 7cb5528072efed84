//! Whether the redo log is large enough for a copy that follows it while the server writes.
use super::super::Findings;
use super::super::facts::Facts;
use crate::human::{seconds, size};
use formats::mariadb::option_file::parse_size;

/// The default of `innodb_log_file_size` in MariaDB 10.11 and 11.8.
const DEFAULT: u64 = 96 << 20;
/// A log that wraps faster than this leaves the reader no time: the copy postpones its pages for it, and
/// declines the second time (docs/online-snapshot.md).
const LAP_LEAST_S: f64 = 30.0;
/// A rate below this counts as no load, in bytes per second.
const IDLE: f64 = 10_240.0;
/// A log of the recommended size wraps in this time.
const LAP_WANTED_S: f64 = 120.0;

/// Adds the findings.
pub(super) fn judge(facts: &Facts, findings: &mut Findings) {
    let log = facts.setting("innodb_log_file_size").and_then(parse_size).unwrap_or(DEFAULT);
    let Some(live) = facts.live() else {
        return findings.ok(
            "redo",
            format!(
                "innodb_log_file_size is {}; the write rate is known only while the server runs",
                size(log)
            ),
        );
    };
    if live.redo_rate < IDLE {
        let text = format!(
            "innodb_log_file_size is {}; there are hardly any writes now: check at a busy hour",
            size(log)
        );
        return findings.ok("redo", text);
    }
    let rate = live.redo_rate;
    let lap = log as f64 / rate;
    let text = format!(
        "innodb_log_file_size is {}, written at {}/s: the log wraps every {}",
        size(log),
        size(rate as u64),
        seconds(lap)
    );
    if lap < LAP_LEAST_S {
        let wanted = ((rate * LAP_WANTED_S) as u64).div_ceil(1 << 20);
        findings.warning(
            "redo",
            text,
            format!("innodb_log_file_size = {wanted}M (SET GLOBAL works from 10.9 on)"),
        );
    } else {
        findings.ok("redo", text);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Level::{Ok, Warning};
    use super::super::fixture::{found, live, running, stopped};

    #[test]
    fn a_log_that_comes_round_too_fast() {
        let mut facts = running();
        live(&mut facts).redo_rate = f64::from(1 << 20) * 100.0;
        assert!(found(&facts, "redo", Warning).contains("innodb_log_file_size = 12000M"));
        live(&mut facts).redo_rate = 10.0;
        assert!(found(&facts, "redo", Ok).contains("hardly any writes"));
        assert!(found(&stopped(), "redo", Ok).contains("1.0 GiB"));
    }
}
