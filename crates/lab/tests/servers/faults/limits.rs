//! What an operator permits: a transfer beyond it is refused on both hosts, and nothing is touched.
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rejoin_lab::places::{self, User};
use rejoin_lab::{Cluster, Node, compare, process};
use rustix::process::Signal;
use serde_json::Value;

use super::fake_transfer::{Fakes, SOON};
use super::manifest::Manifest;
use super::pair::{Pair, last_log, program_pid, set_sst, until};
use super::verbs;

/// Both programs say this and fail, before the donor's server is asked for anything.
fn refused(fakes: &Fakes, (donor, joiner): (&[&str], &[&str]), words: &str) -> Result<()> {
    set_sst(fakes.donor(), donor)?;
    set_sst(fakes.joiner(), joiner)?;
    let before = Manifest::of(&fakes.joiner().datadir())?;
    let (run, auth, address) = fakes.joiner_ready()?;
    let given = fakes.full(&address, &auth)?.end(SOON)?;
    let received = run.end(SOON)?;
    for (who, ended) in [("donor", &given), ("joiner", &received)] {
        ensure!(ended.stderr.contains(words), "the {who} does not say {words:?}:\n{}", ended.stderr);
        ensure!(ended.code.is_some_and(|code| code != 0), "the {who} ends with {:?}", ended.code);
    }
    ensure!(given.stdout.is_empty(), "the donor's server was asked for something: {:?}", given.stdout);
    let changed = before.differences(&Manifest::of(&fakes.joiner().datadir())?);
    ensure!(changed.is_empty(), "changed: {changed:?}");
    fakes.nothing_is_left()
}

/// `rejoin serve`, until it is dropped.
struct Served {
    server: Child,
    address: String,
}

impl Served {
    fn of(datadir: &Path) -> Result<Served> {
        let mut command = Command::new(places::rejoin_binary()?);
        command.args(["serve", "--listen", "127.0.0.1:0", "--datadir"]).arg(datadir).stderr(Stdio::piped());
        let mut served = Served { server: process::spawn(command)?, address: String::new() };
        let log = served.server.stderr.take().context("its log")?;
        for line in BufReader::new(log).lines() {
            let line = line?;
            if let Some((_, rest)) = line.split_once(" at http://") {
                rest.split('/').next().unwrap_or_default().clone_into(&mut served.address);
                return Ok(served);
            }
        }
        anyhow::bail!("it ended")
    }

    fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: joiner\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// An hour that is not now.
fn other_hours() -> Result<String> {
    let mut date = Command::new("date");
    date.arg("+%H");
    let now: u32 = process::run(date, SOON)?.trim().parse()?;
    Ok(format!("{:02}:00-{:02}:00", (now + 2) % 24, (now + 3) % 24))
}

#[test]
fn what_the_operator_does_not_permit_is_refused() -> Result<()> {
    let mut fakes = Fakes::with_history()?;
    // As the servers' user: what serves the metrics reads as the owner of the datadir.
    let user = User::for_servers()?;
    user.own(&fakes.joiner().datadir())?;
    fakes.user = Some(user);
    let much = "would be sent, and max-transfer under [sst] on this node permits 1.0 MiB";
    refused(&fakes, (&["max-transfer=1M"], &[]), much)?;
    refused(&fakes, (&[], &["max-transfer=1M"]), much)?;
    refused(&fakes, (&[], &["ist-only=1"]), "ist-only=1 under [sst] on the joiner permits write-sets only")?;
    let hours = other_hours()?;
    let (night, words) =
        (format!("full-only-between={hours}"), format!("full-only-between={hours} under [sst]"));
    refused(&fakes, (&["incremental=0", &night], &[]), &words)?;
    refused(&fakes, (&[], &["incremental=0", &night]), &words)?;

    // Within the limits it goes through, and both hosts write their metrics.
    let dir = fakes.cluster.program_dir().join("metrics");
    fs::create_dir(&dir)?;
    user.own(&dir)?;
    let metrics = format!("metrics-dir={}", dir.display());
    fakes.set_sst(&["max-transfer=50G", &night, &metrics])?;
    let served = Served::of(&fakes.joiner().datadir())?;
    let (run, auth, address) = fakes.joiner_ready()?;
    // The joiner waits for its donor, and its server has no SQL.
    let lines = [
        "rejoin_transfer_running{role=\"joiner\"} 1",
        "rejoin_transfer_phase{role=\"joiner\",phase=\"waiting for the donor\"} 1",
    ];
    // Its status is written twice a second, and a scrape may be a second old.
    until("the joiner's metrics are served", SOON, || {
        let scraped = served.get("/metrics")?;
        Ok(lines.iter().all(|line| scraped.lines().any(|l| l == *line)))
    })?;
    ensure!(served.get("/healthz")?.starts_with("HTTP/1.1 200 "), "{}", served.get("/healthz")?);
    let given = fakes.serve(fakes.full(&address, &auth)?)?;
    let received = run.end(SOON)?;
    ensure!(served.get("/healthz")?.starts_with("HTTP/1.1 503 "), "{}", served.get("/healthz")?);
    drop(served);
    ensure!((given.code, received.code) == (Some(0), Some(0)), "{}\n{}", given.stderr, received.stderr);
    for role in ["donor", "joiner"] {
        let text = fs::read_to_string(dir.join(format!("rejoin_{role}.prom")))?;
        for (metric, value) in [("success", 1), ("running", 0), ("consecutive_failures", 0)] {
            let metric = format!("rejoin_transfer_{metric}");
            let line = format!("{metric}{{role=\"{role}\"}} {value}");
            ensure!(text.lines().any(|l| l == line), "{line:?} is not in\n{text}");
        }
        // Its server held its files still, as the joiner's had nothing to hold.
        let paused =
            text.lines().find_map(|l| l.strip_prefix("rejoin_transfer_pause_seconds{role=\"donor\"} "));
        let paused = paused.map(str::parse::<f64>).transpose()?;
        ensure!(paused.is_some_and(|seconds| seconds > 0.0) == (role == "donor"), "{paused:?} in\n{text}");
    }
    // Five were refused before. Both hosts count the same bytes: the joiner of this test has files of the donor's history.
    let (donor, joiner) = (counted(&dir, "donor")?, counted(&dir, "joiner")?);
    let [sent, reused, _, failed] = donor;
    ensure!(donor == joiner && sent > 0 && reused > 0 && failed == 5, "{donor:?}, {joiner:?}");
    Ok(())
}

/// What a host's metrics count of all transfers in a role: bytes sent, reused and rebuilt, and failures.
fn counted(dir: &Path, role: &str) -> Result<[u64; 4]> {
    let text = fs::read_to_string(dir.join(format!("rejoin_{role}.prom")))?;
    let count = |name: &str, label: &str| -> Result<u64> {
        let series = format!("{name}{{role=\"{role}\",{label}}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&series));
        Ok(value.with_context(|| format!("no {series:?} in\n{text}"))?.parse()?)
    };
    let bytes = |kind: &str| count("rejoin_transfer_bytes_total", &format!("kind=\"{kind}\""));
    Ok([
        bytes("sent")?,
        bytes("reused")?,
        bytes("rebuilt")?,
        count("rejoin_transfers_total", "outcome=\"failed\"")?,
    ])
}

/// `rejoin set` on a node: its exit code, and what it said.
fn set(pair: &Pair, node: &Node, words: &[&str]) -> Result<(Option<i32>, String)> {
    let output = verbs::command(&pair.cluster, node, "set").args(words).output().context("rejoin")?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
}

/// The record of the last transfer of which a node was the donor.
fn last_record(donor: &Node) -> Result<PathBuf> {
    let files = fs::read_dir(donor.datadir())?.flatten().map(|entry| entry.path());
    let is_record = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("rejoin-donor-") && name.ends_with(".json")
    };
    files.filter(is_record).max().context("no record")
}

fn status(node: &Node) -> Result<Value> {
    Ok(serde_json::from_slice(&fs::read(node.datadir().join("rejoin-status.json"))?)?)
}

/// The exit code of `rejoin status --probe` on both hosts while a slow transfer runs, and while the joiner's program is stopped.
fn a_probe_sees_whether_bytes_move(pair: &Pair) -> Result<()> {
    let answers = |node: &Node, code: i32| {
        until(&format!("a probe of {} answers {code}", node.name()), SOON, || {
            let mut probe = verbs::command(&pair.cluster, node, "status");
            let output = probe.args(["--probe", "--stalled-after", "3"]).output().context("rejoin")?;
            ensure!(output.stdout.is_empty(), "a probe prints nothing: {output:?}");
            Ok(output.status.code() == Some(code))
        })
    };
    [pair.donor(), pair.joiner()].into_iter().try_for_each(|node| answers(node, 0))?;
    let pid = program_pid(pair.joiner())?;
    process::signal(pid, Signal::STOP);
    let stalled = answers(pair.joiner(), 1);
    process::signal(pid, Signal::CONT);
    stalled?;
    answers(pair.joiner(), 0)
}

/// A transfer that would take minutes ends at once when its limit is taken away, and nothing else than a valid change of
/// its donor's limits does anything.
#[test]
fn a_limit_is_changed_while_the_transfer_runs() -> Result<()> {
    let mut pair = Pair::new(Cluster::builder().nodes(2))?;
    let (code, said) = set(&pair, pair.donor(), &["rlimit=0"])?;
    ensure!(code == Some(16) && said.contains("no state transfer runs on"), "{code:?}, {said}");
    pair.begin_slowly()?;
    a_probe_sees_whether_bytes_move(&pair)?;
    let limit = || -> Result<Option<u64>> { Ok(status(pair.donor())?["rlimit"].as_u64()) };
    until("the donor shows its limit", SOON, || Ok(limit()? == Some(60 << 10)))?;

    let (code, said) = set(&pair, pair.joiner(), &["rlimit=0"])?;
    ensure!(
        code == Some(71) && said.contains("run rejoin set on n1, the donor at 127.0.0.1"),
        "{code:?}, {said}"
    );
    for (words, why) in [
        (["rlimit=fast"], "rlimit=\"fast\" is not a size"),
        (["threads=16"], "cannot be changed while a transfer runs"),
    ] {
        let (code, said) = set(&pair, pair.donor(), &words)?;
        ensure!(code == Some(22) && said.contains(why), "{words:?}: {code:?}, {said}");
    }
    // What does not come from the verb is not believed, and does not stay.
    let file = pair.donor().datadir().join("rejoin-set.json");
    fs::write(&file, r#"{"pid":1,"uid":0,"set":["rlimit=0"],"more":1}"#)?;
    until("the file is taken away", SOON, || Ok(!file.exists()))?;
    ensure!(limit()? == Some(60 << 10), "the limit is {:?}", limit()?);
    until("the log has a warning", SOON, || {
        Ok(last_log(pair.donor(), "donor")?.contains("a change of this transfer's options is ignored"))
    })?;

    let (code, said) = set(&pair, pair.donor(), &["rlimit=61k", "adaptive-throttle=0"])?;
    ensure!(code == Some(0) && said.contains("rlimit is 61.0 KiB/s now"), "{code:?}, {said}");
    let now = status(pair.donor())?;
    ensure!(now["rlimit"] == 61 << 10 && now["adaptive_throttle"] == false, "{now}");
    let of = |name: &str| now[name].as_u64().with_context(|| format!("no {name} in {now}"));
    let left = of("total_bytes")? - of("done_bytes")?;
    ensure!(left / (61 << 10) > 60, "too little is left to tell anything: {now}");
    let (code, said) = set(&pair, pair.donor(), &["rlimit=0"])?;
    ensure!(code == Some(0) && said.contains("rlimit is none now"), "{code:?}, {said}");
    // Below the limit of before this would take longer than the test waits.
    pair.joiner().wait_synced(SOON)?;
    ensure!(limit()?.is_none(), "the limit is {:?}", limit()?);
    ensure!(!file.exists(), "the file is left");
    // With its time, in the record.
    let record: Value = serde_json::from_slice(&fs::read(last_record(pair.donor())?)?)?;
    let changes: Vec<&str> = record["changes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|change| change["set"].as_str())
        .collect();
    assert_eq!(changes, ["rlimit=62464", "adaptive-throttle=0", "rlimit=0"]);
    for (node, role) in [(pair.donor(), "donor"), (pair.joiner(), "joiner")] {
        let log = last_log(node, role)?;
        for line in ["rlimit is 61.0 KiB/s now, for this transfer (rejoin set, user ", "rlimit is none now"] {
            ensure!(log.contains(line), "the {role}'s log has no {line:?}:\n{log}");
        }
    }
    compare::assert_equal(pair.donor(), pair.joiner())
}
