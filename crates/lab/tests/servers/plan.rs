//! `rejoin plan` before each start, against what the servers log when the node is started: the donor, and IST or SST.
//!
//! Three members whose histories reach back differently far, one of them in another segment; the fourth node is put back
//! to the same early state before each case, so that it is further behind each time.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rejoin_lab::load::{Intensity, Load};
use rejoin_lab::{Builder, Cluster, Node, compare, copy_tree, data, process, sst};
use serde_json::Value;

/// Small write-sets, many of them.
const INTENSITY: Intensity = Intensity { threads: 4, tables: 2, rows: 500, pause: Duration::ZERO };

struct Ground {
    cluster: Cluster,
}

/// What was predicted, or what happened.
#[derive(Debug, PartialEq, Eq)]
struct Way {
    kind: String,
    donor: Option<String>,
}

impl Ground {
    /// Nodes with caches of these sizes; the first that is named starts the group, the last node is the joiner.
    fn new(first: usize, builder: Builder, sizes: &[&str]) -> Result<Ground> {
        let mut builder = builder.nodes(sizes.len());
        for (at, size) in sizes.iter().enumerate() {
            builder = builder.provider_of(at + 1, "gcache.size", size);
        }
        let ground = Ground { cluster: builder.build()? };
        let writer = ground.cluster.node(first);
        writer.bootstrap()?;
        data::sysbench_tables(writer, INTENSITY.tables, INTENSITY.rows)?;
        let mut others = (1..=sizes.len()).filter(|n| *n != first);
        others.try_for_each(|n| ground.cluster.node(n).join().map(drop))?;
        // Not in the safety gap from the start.
        writer.exec(&["CREATE TABLE sbtest.some (a INT PRIMARY KEY)"])?;
        (0..30).try_for_each(|n| writer.exec(&[&format!("INSERT INTO sbtest.some VALUES ({n})")]))?;
        ground.joiner().stop()?;
        ground.keep()?;
        // A write-set is missing, no matter which member is asked first.
        writer.exec(&["INSERT INTO sbtest.some VALUES (30)"])?;
        let others = ground.members().iter().filter(|node| node.name() != writer.name());
        others
            .into_iter()
            .try_for_each(|node| compare::wait_caught_up(writer, node, Duration::from_secs(30)))?;
        Ok(ground)
    }

    fn joiner(&self) -> &Node {
        self.cluster.node(self.cluster.nodes().len())
    }

    fn members(&self) -> &[Node] {
        &self.cluster.nodes()[..self.cluster.nodes().len() - 1]
    }

    /// The joiner's datadir as it was when it was stopped.
    fn keep(&self) -> Result<()> {
        copy_tree(&self.joiner().datadir(), &self.cluster.dir().join("kept"))
    }

    /// And members are as they were: who has just given is Donor a little longer.
    fn put_back(&self) -> Result<()> {
        ensure!(!self.joiner().is_alive());
        for node in self.members() {
            if node.value("SELECT @@GLOBAL.wsrep_desync")? == "0" {
                node.wait_synced_again(Duration::from_secs(60))?;
            }
        }
        std::fs::remove_dir_all(self.joiner().datadir())?;
        copy_tree(&self.cluster.dir().join("kept"), &self.joiner().datadir())
    }

    /// The program's answer, with its exit code.
    fn plan(&self, ask: &[Node]) -> Result<(Value, i32)> {
        let mut command = Command::new(self.cluster.program_dir().join("rejoin"));
        command.args(["plan", "--json", "--defaults-file"]).arg(self.joiner().option_file());
        for node in ask {
            command.arg("--donor").arg(node.socket());
        }
        let out = command.output()?;
        let text = String::from_utf8_lossy(&out.stdout);
        let errors = String::from_utf8_lossy(&out.stderr);
        let json = serde_json::from_str(&text).with_context(|| format!("{text}\n{errors}"))?;
        Ok((json, out.status.code().context("killed")?))
    }

    fn predicted(&self) -> Result<(Way, Value)> {
        let (json, code) = self.plan(self.members())?;
        let kind = json["way"].as_str().context("no way")?.to_owned();
        let codes = [("ist", 0), ("sst", 1), ("waits", 2), ("refused", 2)];
        ensure!(codes.contains(&(kind.as_str(), code)), "{kind} with exit code {code}");
        Ok((Way { kind, donor: json["donor"].as_str().map(str::to_owned) }, json))
    }

    /// Starts the joiner and reads from the logs what came of it.
    fn started(&self, args: &[&str]) -> Result<Way> {
        let marks: Vec<_> = self.members().iter().map(Node::log_mark).collect();
        self.joiner().begin(args)?;
        let deadline = Instant::now() + Duration::from_secs(60);
        let donor = loop {
            let log = self.joiner().log_since_start();
            if log.contains("Requested donor is not available") {
                self.joiner().wait_exit(Duration::from_secs(30)).context("it did not end")?;
                return Ok(Way { kind: "refused".to_owned(), donor: None });
            }
            if let Some((_, rest)) = log.split_once("Selected ") {
                let name = rest.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
                break name.context("no name")?.0.to_owned();
            }
            ensure!(Instant::now() < deadline, "nobody was selected:\n{}", process::tail(&log, 20));
            std::thread::sleep(Duration::from_millis(50));
        };
        self.joiner().wait_synced(Duration::from_secs(120))?;
        let at = self.members().iter().position(|node| node.name() == donor).context("an unknown donor")?;
        let log = self.members()[at].log_since(marks[at]);
        let ran = log.lines().find(|line| line.contains("--role 'donor'")).context("it ran nothing")?;
        let kind = if ran.contains("--bypass") { "ist" } else { "sst" };
        Ok(Way { kind: kind.to_owned(), donor: Some(donor) })
    }

    /// One case: what is predicted is what happens. Answers the rule.
    fn case(&self, title: &str, wanted: &str, want: (&str, Option<&str>)) -> Result<String> {
        self.joiner().add_options("mysqld", &[&format!("wsrep_sst_donor={wanted}")])?;
        let (predicted, json) = self.predicted()?;
        let happened = self.started(&[]).with_context(|| title.to_owned())?;
        ensure!(predicted == happened, "{title}: {predicted:?} predicted, {happened:?} happened\n{json:#}");
        let (kind, donor) = want;
        if kind == "sst" {
            self.as_much_as_estimated(&json).with_context(|| title.to_owned())?;
            let snapshot = json["snapshot"].as_str().with_context(|| format!("no snapshot: {json:#}"))?;
            sst::assert_snapshot(self.joiner(), snapshot).with_context(|| title.to_owned())?;
        }
        let as_meant =
            happened.kind == kind && donor.is_none_or(|name| happened.donor.as_deref() == Some(name));
        ensure!(as_meant, "{title}: {happened:?} is not the case that was meant\n{json:#}");
        if self.joiner().is_alive() {
            self.joiner().stop()?;
        }
        self.put_back()?;
        Ok(json["rule"].as_str().unwrap_or_default().to_owned())
    }

    /// What the plan estimates is what the donor does when the transfer begins.
    fn as_much_as_estimated(&self, json: &Value) -> Result<()> {
        let estimate = json["sends"]["bytes"].as_u64().with_context(|| format!("no estimate: {json:#}"))?;
        let log = self.joiner().log_since_start();
        let line = log.lines().find(|line| line.contains("plan: ")).context("the donor told no plan")?;
        let (about, all) = sizes(line).with_context(|| line.to_owned())?;
        // Pages that the donor had not written when it was asked.
        ensure!(
            estimate.abs_diff(about) < all / 8,
            "{estimate} bytes estimated, the donor said: {line}\n{json:#}"
        );
        Ok(())
    }

    fn case_without_position(&self, title: &str, wanted: &str, want: (&str, Option<&str>)) -> Result<()> {
        self.joiner().remove_grastate()?;
        self.case(title, wanted, want).map(drop)
    }

    /// Writes until a member has lost what follows the joiner's position.
    fn write_until_lost(&self, n: usize, position: i64) -> Result<()> {
        let load = Load::start(self.cluster.node(n), INTENSITY)?;
        let deadline = Instant::now() + Duration::from_secs(90);
        while self.cluster.node(n).cached_downto()? <= position + 1 {
            ensure!(Instant::now() < deadline, "n{n} still has it after {} commits", load.commits());
            std::thread::sleep(Duration::from_millis(100));
        }
        load.stop().map(drop)
    }
}

/// Bytes of the sizes around "of" in a line that says a plan: "at most 1.5 MiB of 12.0 MiB to send".
fn sizes(line: &str) -> Option<(u64, u64)> {
    let words: Vec<&str> = line.split_once("plan: ")?.1.split(' ').collect();
    let of = words.iter().position(|word| *word == "of")?;
    let size = |number: &str, unit: &str| -> Option<u64> {
        let shift = ["B", "KiB", "MiB", "GiB"].iter().position(|known| *known == unit)? * 10;
        Some((number.parse::<f64>().ok()? * f64::from(1u32 << shift)) as u64)
    };
    Some((size(words.get(of - 2)?, words.get(of - 1)?)?, size(words.get(of + 1)?, words.get(of + 2)?)?))
}

#[test]
fn what_is_predicted_happens() -> Result<()> {
    // Only n3 keeps everything, and it is elsewhere.
    let builder = Cluster::builder().provider_of(3, "gmcast.segment", "1");
    let ground = Ground::new(3, builder, &["1M", "3M", "128M", "32M"])?;
    let position = ground.joiner().grastate()?.seqno;

    // Everybody has it.
    let rule = ground.case("a short gap", "", ("ist", None))?;
    ensure!(rule == "has-it-in-segment", "{rule}: n3 is elsewhere");
    ground.case("named, elsewhere", "n3", ("ist", Some("n3")))?;
    ground.case("a list", "n2,n3", ("ist", None))?;
    ground.case("an unknown name", "zzz", ("ist", None))?;
    ground.case("a beginning of names", "n", ("ist", None))?;

    ground.write_until_lost(1, position)?;
    ground.case("n1 has lost it", "", ("ist", Some("n2")))?;
    ground.case("n1 has lost it and is named", "n1", ("ist", Some("n2")))?;

    ground.write_until_lost(2, position)?;
    let rule = ground.case("only who is elsewhere has it", "", ("ist", Some("n3")))?;
    ensure!(rule == "has-it-elsewhere", "{rule}");
    busy(&ground)?;

    write_until_in_gap(&ground, position)?;
    let (_, json) = ground.predicted()?;
    let advice = json["advice"][0].as_str().unwrap_or_default().to_owned();
    ensure!(advice.starts_with("set wsrep_sst_donor=n3"), "{json:#}");
    ground.case("in the safety gap", "", ("sst", None))?;
    ground.case("in the safety gap, named", "n3", ("ist", Some("n3")))?;

    killed(&ground)?;

    ground.case_without_position("nowhere", "zzz", ("refused", None))?;
    ground.case_without_position("nowhere, or anybody", "zzz,", ("sst", None))?;
    seen_last(&ground)
}

/// Who alone has it is busy: passed over, or waited for where it is named.
fn busy(ground: &Ground) -> Result<()> {
    let n3 = ground.cluster.node(3);
    // Refused as long as the group does not take it for Synced, which may be a little after it says so itself.
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = n3.exec(&["SET GLOBAL wsrep_desync = ON"]) {
        ensure!(Instant::now() < deadline, "{error:#}\n{}", process::tail(&n3.log_text(), 60));
        std::thread::sleep(Duration::from_millis(100));
    }
    ground.case("only who is busy has it", "", ("sst", None))?;

    ground.joiner().add_options("mysqld", &["wsrep_sst_donor=n3"])?;
    let (predicted, json) = ground.predicted()?;
    ensure!(predicted == Way { kind: "waits".to_owned(), donor: None }, "{json:#}");
    ground.joiner().begin(&[])?;
    ground.joiner().wait_log("Will keep retrying", Duration::from_secs(30))?;
    n3.exec(&["SET GLOBAL wsrep_desync = OFF"])?;
    ground.joiner().wait_synced(Duration::from_secs(60))?;
    ground.joiner().stop()?;
    ground.joiner().add_options("mysqld", &["wsrep_sst_donor="])?;
    ground.put_back()
}

#[test]
fn who_is_stateless_gives_write_sets_only() -> Result<()> {
    let builder = Cluster::builder().provider_of(2, "gcs.stateless", "yes");
    let ground = Ground::new(1, builder, &["1M", "128M", "32M"])?;
    let position = ground.joiner().grastate()?.seqno;
    ground.write_until_lost(1, position)?;
    let (_, json) = ground.predicted()?;
    let advice = json["advice"][0].as_str().unwrap_or_default();
    ensure!(advice.starts_with("set wsrep_sst_donor=n2"), "{json:#}");
    ground.case("only who is stateless has it", "", ("sst", Some("n1")))?;
    ground.case("who is stateless has it and is named", "n2", ("ist", Some("n2")))?;
    ground.case_without_position("everything, of who is stateless", "n2", ("refused", None))?;
    ground.case_without_position("or of anybody", "n2,", ("sst", Some("n1")))
}

/// The gap grows with the history: 1/128 of it.
fn write_until_in_gap(ground: &Ground, position: i64) -> Result<()> {
    let load = Load::start(ground.cluster.node(3), INTENSITY)?;
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let (json, _) = ground.plan(ground.members())?;
        if json["safe"].as_i64().context("no safe position")? > position {
            break load.stop().map(drop);
        }
        if Instant::now() > deadline {
            bail!("{position} is not in the gap after {} commits: {json:#}", load.commits());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Of a node that was killed the position is in its data files, and counts when the start passes it on.
fn killed(ground: &Ground) -> Result<()> {
    let joiner = ground.joiner();
    joiner.add_options("mysqld", &["wsrep_sst_donor="])?;
    joiner.begin(&[])?;
    joiner.wait_synced(Duration::from_secs(120))?;
    joiner.kill();
    let deadline = Instant::now() + Duration::from_secs(60);
    while ground.cluster.node(1).status("wsrep_cluster_size")? != "3" {
        ensure!(Instant::now() < deadline, "the killed node is still a member");
        std::thread::sleep(Duration::from_millis(100));
    }
    let (predicted, json) = ground.predicted()?;
    ensure!(json["position_from"] == "innodb" && predicted.kind == "ist", "{json:#}");
    let start = format!("--wsrep_start_position={}", json["position"].as_str().context("no position")?);
    let happened = ground.started(&[&start])?;
    ensure!(predicted == happened, "{predicted:?} predicted, {happened:?} happened\n{json:#}");
    joiner.stop()?;
    ground.put_back()
}

fn named(json: &Value) -> Vec<String> {
    let members = json["members"].as_array().into_iter().flatten();
    members.filter_map(|m| Some(m["name"].as_str()?.to_owned())).collect()
}

/// If no member can be asked, the last view change describes the group, and the plan says how old it is.
fn seen_last(ground: &Ground) -> Result<()> {
    let (json, code) = ground.plan(&[])?;
    ensure!(json["age_s"].is_number() && named(&json).len() >= 2, "{json:#}");
    // It was written to since: nobody who is not asked can say whether something is missing.
    ensure!(code == 3 && json["known"] == false, "exit code {code}: {json:#}");
    ensure!(named(&json).iter().all(|name| name != "n4"), "it is its own donor: {json:#}");
    // One member tells of the others by its own last view change.
    let (json, code) = ground.plan(&ground.members()[..1])?;
    let asked: Vec<bool> =
        json["members"].as_array().into_iter().flatten().filter_map(|m| m["asked"].as_bool()).collect();
    ensure!(asked.iter().filter(|asked| **asked).count() == 1 && asked.len() == 3 && code == 0, "{json:#}");
    // A member that runs has no plan.
    ground.joiner().add_options("mysqld", &["wsrep_sst_donor="])?;
    ground.started(&[])?;
    ensure!(ground.plan(ground.members()).is_err(), "a plan for a node that runs");
    Ok(())
}
