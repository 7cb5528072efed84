//! The metrics of a transfer, from its status.
use super::{Metrics, in_seconds, names};
use crate::server::status::{OK, Status};

/// The role that takes the snapshot: only it pauses replication.
const DONOR: &str = "donor";

/// The current or the last transfer of a node.
pub fn of_transfer(metrics: &mut Metrics, status: &Status, runs: bool) {
    let role = ("role", status.role.as_str());
    let mut one = |metric, value| metrics.add(metric, &[role], value);
    one(names::RUNNING, yes(runs));
    one(names::START_TIME, in_seconds(status.began_ms));
    one(names::DURATION, in_seconds(status.elapsed_ms));
    if runs {
        one(names::IDLE, in_seconds(status.idle_ms));
    } else {
        // A program that was killed has left no outcome.
        one(names::SUCCESS, yes(status.outcome.as_deref() == Some(OK)));
    }
    one(names::ATTEMPTS, status.attempts as f64);
    one(names::SIZE, status.total_bytes as f64);
    one(names::COMPLETE, status.done_bytes as f64);
    one(names::READ, status.read_bytes as f64);
    one(names::REMEMBERED, status.remembered_bytes as f64);
    one(names::CORRUPT_PAGES, status.corrupt_pages as f64);
    if status.role == DONOR {
        one(names::PAUSE, status.paused_us as f64 / 1e6);
    }
    if let Some((phase, _)) = status.phases.last().filter(|_| runs) {
        metrics.add(names::PHASE, &[role, ("phase", phase)], 1.0);
    }
    for (phase, ms) in &status.phases {
        metrics.add(names::PHASE_DURATION, &[role, ("phase", phase)], in_seconds(*ms));
    }
}

/// What is known of all transfers of a role.
pub fn of_history(metrics: &mut Metrics, status: &Status, role: &str) {
    let label = ("role", role);
    if let Some(ms) = status.last_success_ms.get(role) {
        metrics.add(names::LAST_SUCCESS_TIME, &[label], in_seconds(*ms));
    }
    let failures = status.failures.get(role).copied().unwrap_or_default();
    metrics.add(names::FAILURES, &[label], failures as f64);
    let totals = status.totals.get(role).copied().unwrap_or_default();
    for (kind, bytes) in
        [("sent", totals.sent_bytes), ("reused", totals.reused_bytes), ("rebuilt", totals.rebuilt_bytes)]
    {
        metrics.add(names::BYTES, &[label, ("kind", kind)], bytes as f64);
    }
    metrics.add(names::NETWORK, &[label], totals.network_bytes as f64);
    for (outcome, count) in [(OK, totals.succeeded), ("failed", totals.failed)] {
        metrics.add(names::TRANSFERS, &[label, ("outcome", outcome)], count as f64);
    }
}

fn yes(is: bool) -> f64 {
    f64::from(u8::from(is))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::status::Totals;

    fn text(status: &Status, runs: bool) -> String {
        let mut metrics = Metrics::default();
        of_transfer(&mut metrics, status, runs);
        of_history(&mut metrics, status, &status.role);
        metrics.text()
    }

    fn totals() -> Totals {
        Totals {
            sent_bytes: 100,
            reused_bytes: 30,
            rebuilt_bytes: 20,
            network_bytes: 60,
            succeeded: 2,
            failed: 5,
        }
    }

    fn donor() -> Status {
        Status {
            role: "donor".to_owned(),
            total_bytes: 300,
            done_bytes: 200,
            attempts: 2,
            paused_us: 18_800,
            corrupt_pages: 3,
            began_ms: 1_700_000_000_500,
            elapsed_ms: 1500,
            idle_ms: 250,
            phases: vec![("a \"b\"\\".into(), 1), ("sending".into(), 1250)],
            failures: [("donor".to_owned(), 4)].into(),
            totals: [("donor".to_owned(), totals())].into(),
            ..Status::default()
        }
    }

    #[test]
    fn a_transfer_in_prometheus_words() {
        let text = text(&donor(), true);
        for line in [
            "# TYPE rejoin_transfer_running gauge",
            "rejoin_transfer_running{role=\"donor\"} 1",
            "rejoin_transfer_idle_seconds{role=\"donor\"} 0.25",
            "rejoin_transfer_start_time_seconds{role=\"donor\"} 1700000000.5",
            "rejoin_transfer_attempts{role=\"donor\"} 2",
            "rejoin_transfer_pause_seconds{role=\"donor\"} 0.0188",
            "rejoin_transfer_corrupt_pages{role=\"donor\"} 3",
            "rejoin_transfer_consecutive_failures{role=\"donor\"} 4",
            "rejoin_transfer_size_bytes{role=\"donor\"} 300",
            "rejoin_transfer_complete_bytes{role=\"donor\"} 200",
            "# TYPE rejoin_transfer_bytes_total counter",
            "rejoin_transfer_bytes_total{role=\"donor\",kind=\"sent\"} 100",
            "rejoin_transfer_bytes_total{role=\"donor\",kind=\"reused\"} 30",
            "rejoin_transfer_bytes_total{role=\"donor\",kind=\"rebuilt\"} 20",
            "rejoin_transfer_network_bytes_total{role=\"donor\"} 60",
            "rejoin_transfers_total{role=\"donor\",outcome=\"ok\"} 2",
            "rejoin_transfers_total{role=\"donor\",outcome=\"failed\"} 5",
            "rejoin_transfer_phase{role=\"donor\",phase=\"sending\"} 1",
            "rejoin_transfer_phase_duration_seconds{role=\"donor\",phase=\"sending\"} 1.25",
            "rejoin_transfer_phase_duration_seconds{role=\"donor\",phase=\"a \\\"b\\\"\\\\\"} 0.001",
        ] {
            assert!(text.lines().any(|l| l == line), "{line:?} is not in\n{text}");
        }
        assert!(!text.contains("_success"), "it has not ended: {text}");
        assert_eq!(text.matches("# HELP rejoin_transfer_bytes_total ").count(), 1, "{text}");
    }

    #[test]
    fn what_a_role_does_not_know_is_absent() {
        let mut status = Status { role: "joiner".to_owned(), outcome: Some(OK.to_owned()), ..donor() };
        status.last_success_ms.insert("joiner".into(), 7000);
        let ended = text(&status, false);
        assert!(ended.contains("rejoin_transfer_success{role=\"joiner\"} 1\n"), "{ended}");
        assert!(ended.contains("rejoin_transfer_last_success_time_seconds{role=\"joiner\"} 7\n"), "{ended}");
        assert!(ended.contains("rejoin_transfer_consecutive_failures{role=\"joiner\"} 0\n"), "{ended}");
        // Counters begin at 0, so that their growth in the first transfer is seen.
        assert!(ended.contains("rejoin_transfer_bytes_total{role=\"joiner\",kind=\"sent\"} 0\n"), "{ended}");
        // A joiner finds those of its own old files.
        assert!(ended.contains("rejoin_transfer_corrupt_pages{role=\"joiner\"} 3\n"), "{ended}");
        for absent in ["_pause_", "_idle_", "_phase{"] {
            assert!(!ended.contains(absent), "{absent}: {ended}");
        }
        status.outcome = None;
        let killed = text(&status, false);
        assert!(killed.contains("rejoin_transfer_success{role=\"joiner\"} 0\n"), "{killed}");
    }
}
