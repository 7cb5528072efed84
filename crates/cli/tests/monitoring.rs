//! The dashboard and the alert rules in `contrib/`, and docs/monitoring.md, name metrics that the program has; Prometheus' own
//! tool takes the rules and the program's output.
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
use transfer::server::metrics::{Metrics, names};

const REJOIN: &str = env!("CARGO_BIN_EXE_rejoin");

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn known() -> BTreeSet<String> {
    names::ALL.iter().map(|metric| metric.name.to_owned()).collect()
}

/// The names of metrics in a text.
fn named(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_part(c));
    words
        .filter(|word| word.len() > "rejoin_".len() && word.starts_with("rejoin_"))
        .map(str::to_owned)
        .collect()
}

/// What promtool says, with its exit code.
fn promtool(words: &[&str], input: &str) -> (bool, String) {
    let mut child = Command::new("promtool")
        .args(words)
        .current_dir(root().join("contrib/prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("promtool: {error}; scripts/install-deps.sh installs it"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[test]
fn dashboard_and_rules_use_metrics_that_there_are() {
    for path in [
        "contrib/grafana/rejoin.json",
        "contrib/prometheus/rejoin.rules.yml",
        "contrib/prometheus/rejoin.rules_test.yml",
    ] {
        let used = named(&text(path));
        assert!(used.len() > 10, "{path}: {used:?}");
        let unknown: Vec<_> = used.difference(&known()).cloned().collect();
        assert!(unknown.is_empty(), "{path} names metrics that the program does not have: {unknown:?}");
    }
}

#[test]
fn the_documentation_lists_every_metric() {
    let page = text("docs/monitoring.md");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `rejoin_")).collect();
    let listed: BTreeSet<String> =
        rows.iter().flat_map(|row| named(row.split('|').nth(1).unwrap())).collect();
    assert_eq!(listed, known());
    let alerts = alerts();
    for alert in &alerts {
        assert!(page.contains(&format!("`{alert}`")), "docs/monitoring.md does not name the alert {alert}");
    }
}

fn alerts() -> BTreeSet<String> {
    let rules = text("contrib/prometheus/rejoin.rules.yml");
    let names = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ").map(str::to_owned));
    let names: Vec<String> = names.collect();
    let set: BTreeSet<String> = names.iter().cloned().collect();
    assert_eq!(set.len(), names.len(), "an alert is there twice");
    set
}

#[test]
fn prometheus_takes_the_rules_and_their_tests_pass() {
    let (ok, said) = promtool(&["check", "rules", "rejoin.rules.yml"], "");
    assert!(ok, "{said}");
    let (ok, said) = promtool(&["test", "rules", "rejoin.rules_test.yml"], "");
    assert!(ok, "{said}");
}

#[test]
fn each_alert_is_tested_firing_and_quiet() {
    let tests = text("contrib/prometheus/rejoin.rules_test.yml");
    let (mut firing, mut quiet) = (BTreeSet::new(), BTreeSet::new());
    for case in tests.split("alertname: ").skip(1) {
        let name = case.split([' ', '\n']).next().unwrap().to_owned();
        if case.contains("exp_labels:") {
            firing.insert(name)
        } else {
            quiet.insert(name)
        };
    }
    assert_eq!(firing, alerts());
    assert_eq!(quiet, alerts());
}

#[test]
fn prometheus_takes_every_metric() {
    let mut metrics = Metrics::default();
    for metric in names::ALL {
        metrics.add(*metric, &[], 1.0);
    }
    let (ok, said) = promtool(&["check", "metrics"], &metrics.text());
    assert!(ok && said.is_empty(), "{said}");
    let (ok, _) = promtool(&["check", "metrics"], "rejoin_x_milliseconds 1\n");
    assert!(!ok, "it can fail");
}

#[test]
fn prometheus_takes_what_the_program_prints() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("data")).unwrap();
    // Another directory than the default.
    fs::create_dir_all(at("write-sets")).unwrap();
    fs::write(at("data/ibdata1"), "").unwrap();
    let my_cnf = format!("[mysqld]\n[sst]\narchive={}\n", at("write-sets").display());
    fs::write(at("my.cnf"), my_cnf).unwrap();
    fs::copy(root().join("crates/formats/tests/data/gcache_stopped.bin"), at("data/galera.cache")).unwrap();
    let range = r#"{"history":"h","first":5,"last":90,"first_ms":1700000000000,"last_ms":1700000000000}"#;
    let gap = r#"{"history":"h","first":1,"last":4,"reason":"r","at_ms":1000}"#;
    let archive = format!(
        r#"{{"pid":1,"state":"following","updated_ms":1700000000000,"datadir":"d","history":"h","provider_newest":100,
            "ranges":[{range}],"gaps":[{gap}],"bytes":4096,"action_bytes":8192,"segments":1,"actions_per_second":1.5,
            "bytes_per_second":2.5}}"#
    );
    fs::write(at("write-sets/status.json"), archive).unwrap();
    symlink("/bin/sleep", at("wsrep_sst_sleep")).unwrap();
    let mut program = Command::new(at("wsrep_sst_sleep")).arg("600").current_dir(at("data")).spawn().unwrap();
    let status = |outcome: &str| {
        format!(
            r#"{{"role":"donor","phase":"sending","done_bytes":1,"total_bytes":4,"wire_bytes":7,"attempts":1,
                "paused_us":18800,"corrupt_pages":0,"began_ms":1700000000000,"totals":{{"donor":{{"sent_bytes":3}}}},
                "elapsed_ms":1500,"idle_ms":20,"pid":{},"phases":[["sending \"x\"",9]],"outcome":{outcome},
                "last_success_ms":{{"donor":1,"joiner":2}},"failures":{{"joiner":1}}}}"#,
            program.id()
        )
    };
    let print = |outcome: &str| {
        fs::write(at("data/rejoin-status.json"), status(outcome)).unwrap();
        let mut command = Command::new(REJOIN);
        command.args(["metrics", "--datadir"]).arg(at("data")).arg("--defaults-file").arg(at("my.cnf"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let (running, ended) = (print("null"), print("\"ok\""));
    program.kill().unwrap();
    program.wait().unwrap();
    let mut printed = BTreeSet::new();
    for text in [&running, &ended] {
        let (ok, said) = promtool(&["check", "metrics"], text);
        assert!(ok && said.is_empty(), "{said}\n{text}");
        let series: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let keys: BTreeSet<&str> =
            series.iter().filter_map(|line| line.rsplit_once(' ')).map(|pair| pair.0).collect();
        assert_eq!(keys.len(), series.len(), "a series is there twice:\n{text}");
        printed.extend(series.iter().flat_map(|line| named(line.split(['{', ' ']).next().unwrap())));
    }
    // The cache in this test holds too little for a rate, and no state is kept.
    let absent: BTreeSet<String> = known().difference(&printed).cloned().collect();
    let expected = [
        "rejoin_gcache_fill_bytes_per_second",
        "rejoin_gcache_window_seconds",
        "rejoin_previous_state_created_time_seconds",
    ];
    assert_eq!(absent, expected.map(str::to_owned).into(), "{running}\n{ended}");
}

/// What is read from a pipe cannot be read again. The datadir, the archive and the cache are named in one option file.
#[test]
fn the_option_files_are_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    ["data", "write-sets", "cache"].iter().for_each(|name| fs::create_dir(at(name)).unwrap());
    fs::write(at("data/ibdata1"), "").unwrap();
    fs::copy(root().join("crates/formats/tests/data/gcache_stopped.bin"), at("cache/ring")).unwrap();
    let archive = r#"{"pid":1,"state":"following","updated_ms":1700000000000,"datadir":"d","history":"h","ranges":[],"gaps":[],
        "bytes":4096,"action_bytes":8192,"segments":1,"actions_per_second":1.5,"bytes_per_second":2.5}"#;
    fs::write(at("write-sets/status.json"), archive).unwrap();
    // A transfer that runs writes the metrics of its role.
    symlink("/bin/sleep", at("wsrep_sst_sleep")).unwrap();
    let mut program = Command::new(at("wsrep_sst_sleep")).arg("600").current_dir(at("data")).spawn().unwrap();
    let status = format!(
        r#"{{"role":"donor","phase":"sending","done_bytes":1,"total_bytes":4,"wire_bytes":7,"attempts":1,"pid":{}}}"#,
        program.id()
    );
    fs::write(at("data/rejoin-status.json"), status).unwrap();
    let my_cnf = format!(
        "[mysqld]\ndatadir={}\nwsrep_provider_options=gcache.name={}\n[sst]\narchive={}\nmetrics-dir=/x\n",
        at("data").display(),
        at("cache/ring").display(),
        at("write-sets").display()
    );
    let metrics = |words: &[&str]| {
        let mut command = Command::new(REJOIN);
        command.args(["metrics", "--defaults-file", "/dev/stdin"]).args(words).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(my_cnf.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.is_empty(), "{said}");
        String::from_utf8(output.stdout).unwrap()
    };
    let printed = metrics(&[]);
    let dir = at("write-sets");
    metrics(&["--textfile", dir.to_str().unwrap()]);
    program.kill().unwrap();
    program.wait().unwrap();
    let written = fs::read_to_string(dir.join("rejoin_node.prom")).unwrap();
    for text in [&printed, &written] {
        assert!(text.contains("\nrejoin_archive_size_bytes 4096\n"), "{text}");
        assert!(text.contains("\nrejoin_gcache_size_bytes "), "{text}");
    }
    assert!(!dir.join("rejoin_donor.prom").exists(), "the transfer writes it");
}

fn object<'a>(value: &'a Value, key: &str) -> &'a Value {
    let found = &value[key];
    assert!(found.is_object(), "{key} is no object in {value:#}");
    found
}

fn string<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().filter(|text| !text.is_empty()).unwrap_or_else(|| panic!("no {key} in {value:#}"))
}

/// As far as the schema can be known without Grafana: what its documentation of the dashboard's JSON model requires.
#[test]
fn the_dashboard_has_the_form_that_grafana_loads() {
    let dashboard: Value = serde_json::from_str(&text("contrib/grafana/rejoin.json")).unwrap();
    assert!(dashboard["id"].is_null(), "an id belongs to one installation");
    for key in ["uid", "title", "refresh"] {
        string(&dashboard, key);
    }
    for key in ["time", "timepicker", "templating", "annotations"] {
        object(&dashboard, key);
    }
    assert!(dashboard["schemaVersion"].as_u64().is_some_and(|version| version >= 30));
    assert!(
        dashboard["editable"].is_boolean() && dashboard["tags"].is_array() && dashboard["version"].is_u64()
    );
    string(&dashboard["time"], "from");
    string(&dashboard["time"], "to");

    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let source = variables.iter().find(|variable| variable["type"] == "datasource").expect("a data source");
    assert_eq!((string(source, "name"), string(source, "query")), ("datasource", "prometheus"));
    let node = variables.iter().find(|variable| variable["type"] == "query").expect("a node");
    assert_eq!(string(node, "name"), "instance");
    assert_eq!(string(&node["datasource"], "uid"), "${datasource}");

    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().expect("an id")).collect();
    assert_eq!(ids.len(), panels.len(), "an id is there twice");
    panels.iter().for_each(check_panel);
    no_panels_overlap(panels);
}

fn check_panel(panel: &Value) {
    let title = string(panel, "title");
    let kind = string(panel, "type");
    if kind == "row" {
        assert!(
            panel["panels"].as_array().is_some_and(Vec::is_empty) && panel["collapsed"] == false,
            "{title}"
        );
        return;
    }
    assert!(["stat", "timeseries", "bargauge"].contains(&kind), "{title}: {kind}");
    string(panel, "description");
    object(panel, "options");
    let config = object(panel, "fieldConfig");
    string(object(config, "defaults"), "unit");
    assert!(config["overrides"].is_array(), "{title}");
    let steps = config["defaults"]["thresholds"]["steps"].as_array().expect("steps");
    assert!(steps[0]["value"].is_null(), "{title}: the first threshold has no value");
    let targets = panel["targets"].as_array().filter(|targets| !targets.is_empty()).expect("a target");
    let names: BTreeSet<&str> = targets.iter().map(|target| string(target, "refId")).collect();
    assert_eq!(names.len(), targets.len(), "{title}");
    for target in targets {
        assert_eq!(string(&target["datasource"], "uid"), "${datasource}", "{title}");
        assert_eq!(string(&target["datasource"], "type"), "prometheus", "{title}");
        let expression = string(target, "expr");
        assert!(expression.contains("$instance") && expression.contains("rejoin_"), "{title}: {expression}");
    }
}

fn no_panels_overlap(panels: &[Value]) {
    let mut taken = BTreeSet::new();
    for panel in panels {
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap_or_else(|| panic!("no {key}: {panel:#}"));
        let (x, y, w, h) = (at("x"), at("y"), at("w"), at("h"));
        assert!(w > 0 && h > 0 && x + w <= 24, "{}", panel["title"]);
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{} overlaps at {cell:?}", panel["title"]);
        }
    }
}

/// Prometheus parses each expression of the dashboard: as rules, with the variables replaced.
#[test]
fn prometheus_parses_the_expressions_of_the_dashboard() {
    let dashboard: Value = serde_json::from_str(&text("contrib/grafana/rejoin.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let expressions: Vec<&str> = targets.map(|target| string(target, "expr")).collect();
    assert!(expressions.len() > 15);
    let rules: Vec<Value> = expressions
        .iter()
        .enumerate()
        .map(|(n, expr)| {
            let expr =
                expr.replace("$instance", ".*").replace("$__rate_interval", "1m").replace("$__range", "6h");
            serde_json::json!({"record": format!("panel:{n}"), "expr": expr})
        })
        .collect();
    // JSON is YAML.
    let file = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]});
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rules.yml");
    fs::write(&path, file.to_string()).unwrap();
    let (ok, said) = promtool(&["check", "rules", path.to_str().unwrap()], "");
    assert!(ok, "{said}");
}
