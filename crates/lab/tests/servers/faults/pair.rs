//! Two real nodes, and a transfer between them that is slow enough to be disturbed.
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rejoin_lab::process::Seen;
use rejoin_lab::progress::StatusReader;
use rejoin_lab::{Builder, Cluster, Node, compare, data, places, ports, process};

use super::manifest::Manifest;

/// How soon both programs must have ended, whatever happened; but for a joiner whose donor's server died or fell silent,
/// which first waits until the group has expelled the donor.
pub const PROMPTLY: Duration = Duration::from_secs(2);
/// What makes a transfer last for tens of seconds.
pub const SLOW: [&str; 3] = ["rlimit=60k", "compress=none", "incremental=0"];

/// The first node gives, the second joins.
pub struct Pair {
    pub cluster: Cluster,
    before: Option<Manifest>,
}

impl Pair {
    /// Starts the donor and gives it data. The joiner's datadir is new, and it was never a member.
    pub fn new(builder: Builder) -> Result<Pair> {
        let cluster = builder.sst("wsrep-sst-auth=root:").build()?;
        cluster.node(1).bootstrap()?;
        data::sysbench_tables(cluster.node(1), 2, 3000)?;
        cluster
            .node(1)
            .exec(&["CREATE TABLE sbtest.written (at INT AUTO_INCREMENT PRIMARY KEY, what TEXT)"])?;
        Ok(Pair { cluster, before: None })
    }

    pub fn donor(&self) -> &Node {
        self.cluster.node(1)
    }

    pub fn joiner(&self) -> &Node {
        self.cluster.node(2)
    }

    /// Starts the joiner, whose old datadir is remembered, and waits until data flows.
    pub fn begin(&mut self, donors_options: &[&str]) -> Result<()> {
        set_sst(self.donor(), donors_options)?;
        if self.joiner().is_alive() {
            self.joiner().stop()?;
        }
        self.joiner().remove_grastate()?;
        self.before = Some(Manifest::of(&self.joiner().datadir())?);
        self.start_joiner()
    }

    /// [`Pair::begin`], and waits until data flows: the donor's server blocks writes.
    pub fn begin_slowly(&mut self) -> Result<()> {
        self.begin(&SLOW)?;
        self.wait_for_data()
    }

    /// Starts the joiner's server.
    pub fn start_joiner(&self) -> Result<()> {
        // What an earlier transfer reached must not be taken for this one's.
        let _ = fs::remove_file(self.joiner().datadir().join("rejoin-status.json"));
        self.joiner().begin(&[])
    }

    /// Waits until data flows.
    pub fn wait_for_data(&self) -> Result<()> {
        let status = StatusReader::of(self.joiner());
        until("data flows", Duration::from_secs(60), || {
            Ok(status.read().is_some_and(|s| s.phase == "receiving" && s.done_bytes > 0)
                && !program(self.donor()).is_empty())
        })
        .with_context(|| words_of(self.joiner()))
    }

    /// The joiner's old data is as it was before [`Pair::begin`].
    pub fn old_data_is_untouched(&self) -> Result<()> {
        let before = self.before.as_ref().context("nothing was begun")?;
        let now = Manifest::of(&self.joiner().datadir())?;
        ensure!(now.len() > 50, "this datadir is too empty to tell anything");
        let changed = before.differences(&now);
        ensure!(changed.is_empty(), "changed in the old datadir: {changed:?}");
        Ok(())
    }

    /// Both programs end promptly and leave no process, no mark and no port behind.
    pub fn all_ends(&self, since: Instant) -> Result<()> {
        [self.donor(), self.joiner()].into_iter().try_for_each(|node| self.ends(node, since, PROMPTLY))?;
        self.nothing_is_left()
    }

    /// The program of a node ends in time.
    pub fn ends(&self, node: &Node, since: Instant, limit: Duration) -> Result<()> {
        while !program(node).is_empty() {
            ensure!(since.elapsed() < limit, "{} still runs {:?}", node.name(), node.sst_processes());
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// No process, no mark and no port of an ended transfer is left.
    pub fn nothing_is_left(&self) -> Result<()> {
        for node in [self.donor(), self.joiner()] {
            until("no process is left", Duration::from_secs(3), || Ok(node.sst_processes().is_empty()))?;
            for mark in ["sst_in_progress", "wsrep_sst.pid"] {
                ensure!(!node.datadir().join(mark).exists(), "{mark} is left on {}", node.name());
            }
            ensure!(!ports::is_busy(node.ports().sst()), "the SST port of {} is held", node.name());
        }
        Ok(())
    }

    /// The donor takes writes at once, and is Synced soon.
    pub fn donor_is_released(&self) -> Result<()> {
        let began = Instant::now();
        self.donor().exec(&["INSERT INTO sbtest.written (what) VALUES ('released')"])?;
        ensure!(began.elapsed() < Duration::from_secs(1), "a write took {:?}", began.elapsed());
        // Synced alone is not enough: a joiner whose server crashed keeps its identity, and its next server would be told that
        // the transfer of the last one failed.
        until("the donor is Synced", Duration::from_secs(10), || {
            Ok(donation_is_over(&self.donor().log_text()) && self.donor().is_synced())
        })
    }

    /// The joiner's server gives up, and its data is untouched.
    ///
    /// A 10.11 server that learns from its script and from the group at the same moment that there will be no state hangs
    /// in its own abort once in a while; its programs are gone by then, so that is not what is tested here.
    #[expect(clippy::print_stderr, reason = "shown to the user who runs the tests")]
    pub fn joiners_server_ended(&self) -> Result<()> {
        // Outside of a primary component no word of the group comes: the program ends after 25.5 s.
        if self.joiner().wait_exit(Duration::from_secs(45)).is_none() {
            let given_up = self.joiner().log_since_start().contains("Application state transfer failed");
            ensure!(given_up, "the server goes on without a state:\n{}", words_of(self.joiner()));
            eprintln!("the joiner's server hangs in its abort and is killed:\n{}", words_of(self.joiner()));
            self.joiner().kill();
        }
        self.old_data_is_untouched()
    }

    /// The next start of the joiner brings it in.
    pub fn joins_now(&self) -> Result<()> {
        set_sst(self.donor(), &[])?;
        self.joiner().join().context("the next start")?;
        compare::wait_caught_up(self.donor(), self.joiner(), Duration::from_secs(20))
    }

    /// The reason stands in a node's error log and in its transfer log.
    pub fn reason_in_both_logs(&self, node: &Node, role: &str, reason: &str) -> Result<()> {
        let log = node.log_text();
        let found = log.lines().rfind(|l| l.contains("WSREP_SST: [ERROR]")).unwrap_or_default();
        ensure!(found.contains(reason), "{}'s error log does not say {reason:?}, but {found:?}", node.name());
        let transfer = last_log(node, role)?;
        ensure!(
            transfer.contains(reason),
            "{}'s transfer log does not say {reason:?}:\n{transfer}",
            node.name()
        );
        Ok(())
    }
}

/// The newest log file of a role in a node's datadir.
pub fn last_log(node: &Node, role: &str) -> Result<String> {
    let mut logs: Vec<PathBuf> =
        fs::read_dir(node.datadir())?.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
    let of_role = |p: &PathBuf| {
        let name = p.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&format!("rejoin-{role}-")) && name.ends_with(".log")
    };
    logs.retain(of_role);
    logs.sort_by_key(|p| p.metadata().and_then(|m| m.modified()).ok());
    let last = logs.last().with_context(|| format!("no log of a {role} on {}", node.name()))?;
    Ok(fs::read_to_string(last)?)
}

/// The processes of the program itself, without the shells it is started through.
pub fn program(node: &Node) -> Vec<Seen> {
    let mut all = node.sst_processes();
    all.retain(|p| p.command.starts_with("wsrep_sst_rejoin "));
    all
}

/// The one process of the program.
pub fn program_pid(node: &Node) -> Result<u32> {
    program(node).first().map(|p| p.pid).with_context(|| format!("no program runs on {}", node.name()))
}

/// Makes these the lines of `[sst]`, the last group of a node's option file, with the account that may ask for the state
/// (the lab's servers know no socket login of their own user).
pub fn set_sst(node: &Node, lines: &[&str]) -> Result<()> {
    let text = fs::read_to_string(node.option_file())?;
    let (server, _) = text.split_once("\n[sst]\n").context("no [sst] in the option file")?;
    Ok(fs::write(
        node.option_file(),
        format!("{server}\n[sst]\nwsrep-sst-auth=root:\n{}\n", lines.join("\n")),
    )?)
}

/// Runs an operator's verb on a node as the server's user: whether it succeeded, and what it said.
pub fn verb(cluster: &Cluster, node: &Node, verb: &str) -> Result<(bool, String)> {
    let mut command: Command = places::User::for_servers()?.command(cluster.program_dir().join("rejoin"));
    command.arg(verb).arg("--datadir").arg(node.datadir());
    if ["rollback", "check", "fingerprint"].contains(&verb) {
        command.arg("--defaults-file").arg(node.option_file());
    }
    let output = command.output().context("rejoin")?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

/// Whether a transfer left anything of ours in a datadir but its log.
pub fn leavings(node: &Node) -> bool {
    [".rejoin", "#sql-rejoin"].iter().any(|name| node.datadir().join(name).exists())
}

/// The last that the program and the server said about a transfer.
pub fn words_of(node: &Node) -> String {
    let log = node.log_text();
    let words: Vec<&str> = log.lines().filter(|l| l.contains("WSREP_SST") || l.contains("[ERROR]")).collect();
    process::tail(&words.join("\n"), 15)
}

/// Waits for something to become true.
pub fn until(what: &str, patience: Duration, mut is: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !is()? {
        if began.elapsed() > patience {
            bail!("not within {patience:?}: {what}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Sends a signal to a node's program.
pub fn signal(node: &Node, signal: rustix::process::Signal) -> Result<()> {
    process::signal(program_pid(node)?, signal);
    Ok(())
}

/// Whether the provider that wrote this log has left the state of a donor since it last entered it.
fn donation_is_over(log: &str) -> bool {
    let mut shifts = log.lines().filter_map(|line| line.split_once("Shifting ")?.1.split_once(" -> "));
    shifts.next_back().is_none_or(|(_, to)| !to.starts_with("DONOR/DESYNCED"))
}
