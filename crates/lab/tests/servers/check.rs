//! `rejoin check` on real servers: nothing is wrong with a sound node, running or stopped, and each thing that a test
//! breaks is reported. What cannot be broken here is in the unit tests of `transfer::advisor::check`.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rejoin_lab::{Cluster, Node, data};
use serde_json::Value;

/// What one check said.
struct Checked {
    code: i32,
    findings: Vec<Value>,
}

impl Checked {
    /// The cluster's own copy of the program, as the node's operator would call it.
    fn of(cluster: &Cluster, node: &Node) -> Result<Self> {
        let mut command = Command::new(cluster.program_dir().join("rejoin"));
        command.arg("check").arg("--json").arg("--defaults-file").arg(node.option_file());
        let out = command.output().context("rejoin check")?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let errors = String::from_utf8_lossy(&out.stderr).into_owned();
        let json: Value = serde_json::from_str(&text).with_context(|| format!("{text}\n{errors}"))?;
        let findings = json["findings"].as_array().cloned().context("no findings")?;
        Ok(Self { code: out.status.code().context("killed")?, findings })
    }

    /// Text and fix of the finding of this subject and level that holds `text`.
    fn has(&self, level: &str, subject: &str, text: &str) -> Result<String> {
        let fits = |f: &&Value| {
            f["level"] == level
                && f["subject"] == subject
                && f["text"].as_str().is_some_and(|t| t.contains(text))
        };
        let found = self.findings.iter().find(fits);
        let found = found
            .with_context(|| format!("no {level} of {subject} with {text:?} in {:#?}", self.findings))?;
        Ok(found["fix"].as_str().unwrap_or_default().to_owned())
    }

    /// Nothing wrong.
    fn is_sound(&self) -> Result<()> {
        let wrong = |f: &&Value| f["level"] == "warning" || f["level"] == "error";
        let wrong: Vec<&Value> = self.findings.iter().filter(wrong).collect();
        ensure!(wrong.is_empty() && self.code == 0, "exit code {}: {wrong:#?}", self.code);
        Ok(())
    }
}

fn append(node: &Node, text: &str) -> Result<()> {
    let mut file = fs::File::options().append(true).open(node.option_file())?;
    Ok(file.write_all(text.as_bytes())?)
}

#[test]
fn a_running_node() -> Result<()> {
    let cluster =
        Cluster::builder().mysqld_of(1, "log_bin=bin").mysqld_of(2, "innodb_log_buffer_size=2M").build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    for node in [n1, n2] {
        // Where clients find it, as a cluster has it that listens on all addresses.
        let options = fs::read_to_string(node.option_file())?;
        let address = format!("wsrep_node_incoming_address=127.0.0.1:{}\n[sst]\n", node.ports().client());
        fs::write(node.option_file(), options.replace("[sst]\n", &address))?;
    }
    cluster.start_all()?;

    for node in [n1, n2] {
        let checked = Checked::of(&cluster, node)?;
        checked.is_sound()?;
        checked.has("ok", "server", "Synced")?;
        checked.has("ok", "program", "is this one")?;
        checked.has("ok", "account", "root@localhost has the privileges")?;
        checked.has("ok", "provider", "Galera")?;
        checked.has("ok", "version", "MariaDB")?;
        let other = if node.name() == "n1" { n2 } else { n1 };
        let address = format!("{} (127.0.0.1:{})", other.name(), other.ports().client());
        checked.has("ok", "members", &format!("{address}: 10.11"))?;
        checked.has("note", "group", "not encrypted")?;
    }

    // The statement in the finding is the one that mends it.
    n1.exec(&["CREATE USER poor@localhost IDENTIFIED BY 'secret'"])?;
    append(n1, "wsrep-sst-auth=poor:secret\n")?;
    let checked = Checked::of(&cluster, n1)?;
    let grant = checked.has("warning", "account", "poor@localhost lacks RELOAD, BINLOG MONITOR")?;
    assert_eq!(
        (checked.code, grant.as_str()),
        (1, "GRANT RELOAD, BINLOG MONITOR ON *.* TO `poor`@`localhost`;")
    );
    let process = checked.has("note", "account", "lacks PROCESS")?;
    let select = checked.has("note", "account", "lacks SELECT")?;
    n1.exec(&[&grant, &process, &select])?;
    let checked = Checked::of(&cluster, n1)?;
    checked.has("ok", "account", "poor@localhost has the privileges")?;
    checked.is_sound()?;

    // The README's statement grants everything that the check asks for.
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md"))?;
    let grant = readme.lines().find(|line| line.starts_with("GRANT ")).context("no GRANT in the README")?;
    let grant = grant.replace("'mysql'@'localhost'", "enough@localhost");
    n1.exec(&["CREATE USER enough@localhost IDENTIFIED BY 'secret'", &grant])?;
    append(n1, "wsrep-sst-auth=enough:secret\n")?;
    let checked = Checked::of(&cluster, n1)?;
    checked.has("ok", "account", "enough@localhost has the privileges")?;
    checked.has("ok", "checkpoint", "(SUPER)")?;
    append(n1, "wsrep-sst-auth=poor:secret\n")?;

    // Settings of the running server.
    n1.exec(&[
        "SET GLOBAL wsrep_provider_options='gcs.fc_limit=1'",
        "SET GLOBAL wsrep_sst_donor_rejects_queries=ON",
        "SET GLOBAL wsrep_sst_method='mariabackup'",
    ])?;
    let checked = Checked::of(&cluster, n1)?;
    checked.has("warning", "group", "gcs.fc_limit = 1")?;
    checked.has("warning", "donor", "rejects its clients")?;
    checked.has("warning", "method", "mariabackup")?;
    checked.has("warning", "pause", "mariabackup")?;
    assert_eq!(checked.code, 1);
    // The other node sees that too.
    Checked::of(&cluster, n2)?.has("warning", "members", "wsrep_sst_method = mariabackup")?;

    // What the first of these does, by the way, is to hold up the load below until hardly anything is written.
    n1.exec(&["SET GLOBAL wsrep_provider_options='gcs.fc_limit=16'"])?;

    // A log that comes round in seconds.
    n2.exec(&["SET GLOBAL innodb_log_file_size=4194304"])?;
    let load = rejoin_lab::load::Intensity { threads: 4, tables: 2, rows: 2000, pause: Duration::ZERO };
    data::sysbench_tables(n2, load.tables, load.rows)?;
    let running = rejoin_lab::load::Load::start(n2, load)?;
    // On a busy machine the load takes a while to be one.
    let deadline = Instant::now() + Duration::from_secs(60);
    let warned = loop {
        let warned = Checked::of(&cluster, n2)?.has("warning", "redo", "the log wraps every");
        if warned.is_ok() || Instant::now() > deadline {
            break warned;
        }
    };
    running.stop()?;
    warned?;

    // Nobody is let in.
    append(n2, "wsrep-sst-auth=nobody:x\n")?;
    let checked = Checked::of(&cluster, n2)?;
    ensure!(checked.has("warning", "server", "refuses every login")?.contains("unix_socket"));
    Ok(())
}

#[test]
fn a_stopped_node() -> Result<()> {
    let cluster = Cluster::builder().sst_of(2, "keep-previous=always").build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    cluster.start_all()?;
    let mark = n1.log_mark();
    n2.stop()?;
    let checked = Checked::of(&cluster, n2)?;
    checked.is_sound()?;
    checked.has("ok", "server", "stopped")?;
    checked.has("ok", "members", "1 answer")?;
    checked.has("ok", "position", &n2.grastate()?.seqno.to_string())?;
    checked.has("ok", "port", &format!("SST 127.0.0.1:{}", n2.ports().sst()))?;
    checked.has("ok", "version", "MariaDB")?;
    ensure!(checked.has("note", "leftovers", "the previous state (")?.contains("rejoin rollback"));
    // Its members only saw a connection come and go.
    assert_eq!(n1.unexpected_errors_since(mark, &[]), Vec::<String>::new());

    // Everything at once that can be broken without a start.
    let data = n2.datadir();
    let grastate = fs::read(data.join("grastate.dat"))?;
    let held = TcpListener::bind(("127.0.0.1", n2.ports().sst()))?;
    let link = cluster.program_dir().join("wsrep_sst_rejoin");
    let elsewhere = cluster.program_dir().join("elsewhere");
    fs::rename(&link, &elsewhere)?;
    fs::write(data.join("sst_in_progress"), "")?;
    fs::write(data.join("grastate.dat"), "uuid: 00000000-0000-0000-0000-000000000000\nseqno: -1\n")?;
    let options = fs::read_to_string(n2.option_file())?;
    let broken =
        options.replace("wsrep_sst_method=rejoin", "wsrep_sst_method=rsync\nwsrep_sst_donor=10.0.0.1");
    let broken = broken.replace("wsrep_provider=/", "wsrep_provider=/nowhere/");
    let broken = broken.replace(
        "[sst]\n",
        "innodb_undo_directory=/nowhere/undo\nwsrep_sst_receive_address=0.0.0.0\n[sst]\nthreads=many\n",
    );
    fs::write(n2.option_file(), broken)?;
    let checked = Checked::of(&cluster, n2)?;
    for (level, subject, text) in [
        ("error", "method", "rsync"),
        ("error", "sst", "threads=many"),
        ("error", "program", "none of the directories"),
        ("error", "provider", "/nowhere/"),
        ("error", "directory", "/nowhere/undo does not exist"),
        ("error", "address", "0.0.0.0"),
        ("warning", "donor", "does not start"),
        ("warning", "leftovers", "sst_in_progress"),
        ("note", "position", "full transfer"),
    ] {
        checked.has(level, subject, text)?;
    }
    assert_eq!(checked.code, 2);
    fs::write(n2.option_file(), &options)?;
    // A database that cannot be written, and a link that leads nowhere.
    let shut = data.join("sys");
    let mode = fs::metadata(&shut)?.permissions();
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o500))?;
    std::os::unix::fs::symlink("/nowhere/shop", data.join("shop"))?;
    let checked = Checked::of(&cluster, n2)?;
    ensure!(checked.has("error", "directory", "/sys is not writable for")?.contains("chmod u+rwx"));
    ensure!(checked.has("warning", "directory", "/shop is a dangling link")?.contains("mount"));
    fs::set_permissions(&shut, mode)?;
    fs::remove_file(data.join("shop"))?;
    checked.has("error", "port", "in use")?;
    if rejoin_lab::places::User::for_servers()?.switch {
        checked.has("warning", "files", "do not belong")?;
    }

    // Mended, the node is sound again and joins.
    drop(held);
    fs::rename(&elsewhere, &link)?;
    fs::remove_file(data.join("sst_in_progress"))?;
    fs::write(data.join("grastate.dat"), grastate)?;
    Checked::of(&cluster, n2)?.is_sound()?;
    n2.join()?;

    // All members are down.
    n2.stop()?;
    n1.stop()?;
    Checked::of(&cluster, n2)?.has("warning", "members", "there is no member to join")?;
    // No option file: the check itself fails.
    fs::remove_file(n2.option_file())?;
    let mut command = Command::new(cluster.program_dir().join("rejoin"));
    let out = command.arg("check").arg("--defaults-file").arg(n2.option_file()).output()?;
    assert_eq!(out.status.code(), Some(3), "{}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}
