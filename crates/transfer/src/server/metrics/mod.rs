//! Metrics in Prometheus' text format: what is measured ([`names`]), the metrics of a transfer ([`of_transfer`]), and files for
//! the textfile collector of node_exporter. A series that is not known is absent.
pub mod names;
mod of_transfer;

use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use names::Metric;
pub use of_transfer::{of_history, of_transfer};

/// Metrics in the making. Each is written once, with all its series.
#[derive(Debug, Default)]
pub struct Metrics(Vec<(Metric, String)>);

impl Metrics {
    /// Adds a series: the names and values of its labels, and its value.
    pub fn add(&mut self, metric: Metric, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let line = format!("{}{labels} {value}\n", metric.name);
        match self.0.iter_mut().find(|(known, _)| *known == metric) {
            Some((_, lines)) => lines.push_str(&line),
            None => self.0.push((metric, line)),
        }
    }

    /// The text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (Metric { name, help }, lines) in &self.0 {
            let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{lines}");
        }
        text
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Milliseconds in the unit of all metrics.
pub fn in_seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// The file of a role, or of the node, in a directory of the textfile collector. All programs write the metrics of a role to
/// this one file, so that no series exists twice.
pub fn file_of(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("rejoin_{name}.prom"))
}

/// Writes the file of a role or of the node, which others may read. Readers get the old or the new file: the collector takes
/// only files whose names end with `.prom`.
///
/// # Errors
/// From the disk.
pub fn write(dir: &Path, name: &str, text: &str) -> Result<()> {
    let path = file_of(dir, name);
    let temporary = dir.join(format!(".rejoin_{name}.{}.tmp", std::process::id()));
    // Never through a link that somebody else has put there.
    let _ = fs::remove_file(&temporary);
    let written = File::create_new(&temporary)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::set_permissions(&temporary, Permissions::from_mode(0o644)))
        .and_then(|()| fs::rename(&temporary, &path));
    written.inspect_err(|_| drop(fs::remove_file(&temporary))).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_metric_is_described_once_in_plain_characters() {
        let mut known: Vec<&str> = names::ALL.iter().map(|metric| metric.name).collect();
        known.sort_unstable();
        known.dedup();
        assert_eq!(known.len(), names::ALL.len());
        for Metric { name, help } in names::ALL {
            assert!(name.starts_with("rejoin_") && !help.contains(['\n', '\\']), "{name}: {help}");
        }
    }

    #[test]
    fn series_of_a_metric_stand_together() {
        let mut metrics = Metrics::default();
        metrics.add(names::RUNNING, &[("role", "donor")], 0.0);
        metrics.add(names::GCACHE_LAST, &[], 7.0);
        metrics.add(names::RUNNING, &[("role", "joiner")], 1.0);
        let help = names::GCACHE_LAST.help;
        assert_eq!(
            metrics.text(),
            format!(
                "# HELP rejoin_transfer_running Whether a state transfer is running.\n# TYPE rejoin_transfer_running gauge\n\
                 rejoin_transfer_running{{role=\"donor\"}} 0\nrejoin_transfer_running{{role=\"joiner\"}} 1\n\
                 # HELP rejoin_gcache_last_seqno {help}\n# TYPE rejoin_gcache_last_seqno gauge\nrejoin_gcache_last_seqno 7\n"
            )
        );
    }

    #[test]
    fn a_file_is_written_as_a_whole_and_can_be_read() {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path(), "donor", "x 1\n").expect("written");
        write(dir.path(), "donor", "x 2\n").expect("written again");
        let names: Vec<_> =
            fs::read_dir(dir.path()).expect("listed").flatten().map(|e| e.file_name()).collect();
        assert_eq!(names, ["rejoin_donor.prom"]);
        let path = file_of(dir.path(), "donor");
        assert_eq!(fs::read_to_string(&path).expect("read"), "x 2\n");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o644);
        assert!(write(&dir.path().join("none"), "donor", "").is_err());
    }
}
