//! Metrics in Prometheus' text format, for the textfile collector of node_exporter.
//!
//! Names follow <https://prometheus.io/docs/practices/naming/>: base units (bytes, seconds), the unit as suffix. A series that is
//! not known is absent.
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::status::{OK, Status};

/// Metrics in the making.
#[derive(Debug, Default)]
pub struct Metrics(String);

impl Metrics {
    /// Adds a gauge, with one series for each set of labels.
    pub fn gauge<'a>(&mut self, name: &str, help: &str, series: impl IntoIterator<Item = (Labels<'a>, f64)>) {
        let mut series = series.into_iter().peekable();
        if series.peek().is_none() {
            return;
        }
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in series {
            let labels: Vec<String> =
                labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }

    /// A gauge without labels.
    pub fn single(&mut self, name: &str, help: &str, value: f64) {
        self.gauge(name, help, [(Vec::new(), value)]);
    }

    /// The text.
    pub fn text(self) -> String {
        self.0
    }
}

/// Names and values.
pub type Labels<'a> = Vec<(&'static str, &'a str)>;

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The current or the last transfer of a node.
pub fn of_transfer(status: &Status, runs: bool) -> String {
    let role = || vec![("role", status.role.as_str())];
    let mut metrics = Metrics::default();
    let mut one = |name: &str, help: &str, value: f64| metrics.gauge(name, help, [(role(), value)]);
    one("rejoin_transfer_running", "Whether a state transfer is running.", f64::from(u8::from(runs)));
    one(
        "rejoin_transfer_start_time_seconds",
        "When the current or last transfer began, in seconds since 1970.",
        in_seconds(status.began_ms),
    );
    one(
        "rejoin_transfer_duration_seconds",
        "How long the current or last transfer has taken.",
        in_seconds(status.elapsed_ms),
    );
    if let Some(outcome) = &status.outcome {
        let ok = f64::from(u8::from(outcome == OK));
        one("rejoin_transfer_success", "Whether the last transfer succeeded.", ok);
    }
    let mut kinds =
        vec![("total", status.total_bytes), ("complete", status.done_bytes), ("network", status.wire_bytes)];
    kinds.extend((status.role == "donor").then_some(("reused", status.reused_bytes)));
    metrics.gauge(
        "rejoin_transfer_bytes",
        "Bytes of the current or last transfer: of all files (total), of them complete, on the network, and not sent because \
         the joiner had them (reused).",
        kinds.iter().map(|(kind, bytes)| ([role(), vec![("kind", *kind)]].concat(), *bytes as f64)),
    );
    metrics.gauge(
        "rejoin_transfer_phase_duration_seconds",
        "How long each phase of the current or last transfer has taken.",
        status
            .phases
            .iter()
            .map(|(phase, ms)| ([role(), vec![("phase", phase.as_str())]].concat(), in_seconds(*ms))),
    );
    metrics.text()
}

/// When the last successful transfer of a role ended; without a role, of each.
pub fn last_success(status: &Status, role: Option<&str>) -> String {
    let wanted = status.last_success_ms.iter().filter(|(of, _)| role.is_none_or(|role| role == *of));
    let mut metrics = Metrics::default();
    metrics.gauge(
        "rejoin_transfer_last_success_time_seconds",
        "When the last successful transfer ended, in seconds since 1970.",
        wanted.map(|(role, ms)| (vec![("role", role.as_str())], in_seconds(*ms))),
    );
    metrics.text()
}

/// Milliseconds in the unit of all metrics.
pub fn in_seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// Writes `DIR/rejoin_NAME.prom`, which others may read. Readers get the old or the new file: the collector takes only files
/// whose names end with `.prom`.
///
/// # Errors
/// From the disk.
pub fn write(dir: &Path, name: &str, text: &str) -> Result<()> {
    let path = dir.join(format!("rejoin_{name}.prom"));
    let temporary = dir.join(format!(".rejoin_{name}.{}.tmp", std::process::id()));
    let written = fs::write(&temporary, text)
        .and_then(|()| fs::set_permissions(&temporary, Permissions::from_mode(0o644)))
        .and_then(|()| fs::rename(&temporary, &path));
    written.inspect_err(|_| drop(fs::remove_file(&temporary))).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_in_prometheus_words() {
        let mut status = Status {
            role: "donor".to_owned(),
            total_bytes: 300,
            done_bytes: 200,
            wire_bytes: 100,
            reused_bytes: 50,
            began_ms: 1_700_000_000_500,
            elapsed_ms: 1500,
            phases: vec![("sending".into(), 1250), ("a \"b\"\\".into(), 1)],
            ..Status::default()
        };
        status.last_success_ms.insert("joiner".into(), 7000);
        let text = of_transfer(&status, true);
        for line in [
            "# TYPE rejoin_transfer_running gauge",
            "rejoin_transfer_running{role=\"donor\"} 1",
            "rejoin_transfer_start_time_seconds{role=\"donor\"} 1700000000.5",
            "rejoin_transfer_bytes{role=\"donor\",kind=\"reused\"} 50",
            "rejoin_transfer_phase_duration_seconds{role=\"donor\",phase=\"sending\"} 1.25",
            "rejoin_transfer_phase_duration_seconds{role=\"donor\",phase=\"a \\\"b\\\"\\\\\"} 0.001",
        ] {
            assert!(text.lines().any(|l| l == line), "{line:?} is not in\n{text}");
        }
        assert!(!text.contains("_success"), "it has not ended: {text}");
        assert_eq!(last_success(&status, Some("donor")), "");
        let line = "rejoin_transfer_last_success_time_seconds{role=\"joiner\"} 7\n";
        assert!(
            last_success(&status, None).ends_with(line)
                && last_success(&status, Some("joiner")).ends_with(line)
        );
        (status.outcome, status.role) = (Some(OK.to_owned()), "joiner".to_owned());
        let text = of_transfer(&status, false);
        assert!(text.contains("rejoin_transfer_success{role=\"joiner\"} 1\n"), "{text}");
        assert!(!text.contains("kind=\"reused\""), "{text}");
    }

    #[test]
    fn a_file_is_written_as_a_whole_and_can_be_read() {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path(), "donor", "x 1\n").expect("written");
        write(dir.path(), "donor", "x 2\n").expect("written again");
        let names: Vec<_> =
            fs::read_dir(dir.path()).expect("listed").flatten().map(|e| e.file_name()).collect();
        assert_eq!(names, ["rejoin_donor.prom"]);
        let path = dir.path().join("rejoin_donor.prom");
        assert_eq!(fs::read_to_string(&path).expect("read"), "x 2\n");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o644);
        assert!(write(&dir.path().join("none"), "donor", "").is_err());
    }
}
