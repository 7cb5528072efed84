//! However a transfer ends, the members that are left stay Primary and take writes.
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rejoin_lab::progress::StatusReader;
use rejoin_lab::{Builder, Cluster, Installation, Node, compare, data, process, sql};
use rustix::process::Signal;

/// Generous: the machine may be busy. The order of events is what counts.
const SOON: Duration = Duration::from_secs(60);
/// What makes a donor send for tens of seconds.
const SLOW: &str = "\nrlimit=60k\ncompress=none\n";

/// The first node gives to the last one; what is between them are the other members.
struct Group {
    cluster: Cluster,
    last: usize,
}

impl Group {
    fn new(nodes: usize) -> Result<Group> {
        Group::with(nodes, |_| Ok(()))
    }

    /// With what the donor has before the others join.
    fn with(nodes: usize, prepare: impl FnOnce(&Node) -> Result<()>) -> Result<Group> {
        Group::of(Cluster::builder(), nodes, prepare)
    }

    fn of(builder: Builder, nodes: usize, prepare: impl FnOnce(&Node) -> Result<()>) -> Result<Group> {
        let cluster = builder.nodes(nodes).mysqld_of(nodes, "wsrep_sst_donor=n1");
        // All nodes weigh the same: the lab's first of two would outvote the second.
        let cluster = cluster.provider("pc.weight", "1").build()?;
        let group = Group { cluster, last: nodes };
        group.donor().bootstrap()?;
        data::sysbench_tables(group.donor(), 2, 3000)?;
        group
            .donor()
            .exec(&["CREATE TABLE sbtest.written (at INT AUTO_INCREMENT PRIMARY KEY, what TEXT)"])?;
        prepare(group.donor())?;
        group.others().iter().try_for_each(|node| node.join().map(drop))?;
        let options = fs::read_to_string(group.donor().option_file())?;
        fs::write(group.donor().option_file(), options + SLOW)?;
        Ok(group)
    }

    fn donor(&self) -> &Node {
        self.cluster.node(1)
    }

    fn joiner(&self) -> &Node {
        self.cluster.node(self.last)
    }

    fn others(&self) -> &[Node] {
        &self.cluster.nodes()[1..self.last - 1]
    }

    /// The joiner asks for the state, and data flows.
    fn begin(&self) -> Result<()> {
        self.begin_and_wait(&|status| status.phase == "receiving" && status.done_bytes > 0)
    }

    fn begin_and_wait(&self, until: &dyn Fn(&rejoin_lab::progress::Status) -> bool) -> Result<()> {
        self.start_joiner()?;
        let status = StatusReader::of(self.joiner());
        wait("the transfer has come so far", || status.read().is_some_and(|status| until(&status)))
            .with_context(|| process::tail(&self.joiner().log_since_start(), 30))
    }

    fn start_joiner(&self) -> Result<()> {
        let _ = fs::remove_file(self.joiner().datadir().join("rejoin-status.json"));
        self.joiner().remove_grastate()?;
        self.joiner().begin(&[])
    }

    /// Does this in the middle of a transfer, and waits for the end of the joiner's server: these members were Primary
    /// at every look, and then take a write.
    fn survive(&self, members: &[&Node], what: &str, disturb: impl FnOnce() -> Result<()>) -> Result<()> {
        self.survive_until(members, what, || disturb().and_then(|()| self.joiner_ended()))
    }

    fn survive_until(
        &self,
        members: &[&Node],
        what: &str,
        disturb: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watches: Vec<_> =
                members.iter().map(|node| scope.spawn(|| watch_primary(node, &over))).collect();
            let result = disturb();
            // What the last member's end does to the others shows a moment later.
            std::thread::sleep(Duration::from_secs(1));
            over.store(true, Ordering::Release);
            let looks = watches.into_iter().map(|watch| watch.join().expect("a watch")).collect::<Vec<_>>();
            looks.into_iter().collect::<Result<()>>().and(result)
        })
        .and_then(|()| members.iter().try_for_each(|node| takes_a_write(node)))
        .with_context(|| format!("{what}\n{}", process::tail(&self.joiner().log_since_start(), 25)))
    }

    fn joiner_ended(&self) -> Result<()> {
        ensure!(self.joiner().wait_exit(SOON).is_some(), "the joiner's server neither serves nor ends");
        wait("the joiner's program ended", || self.joiner().sst_processes().is_empty())
    }

    fn waits_for_the_group(&self) -> bool {
        StatusReader::of(self.joiner())
            .read()
            .is_some_and(|s| s.phase.starts_with("failed; waiting up to 25.5 s"))
    }
}

/// Looks again and again until `over`; any other state than Primary is the error.
fn watch_primary(node: &Node, over: &AtomicBool) -> Result<()> {
    let mut conn = node.connect()?;
    while !over.load(Ordering::Acquire) {
        let state = sql::status(&mut conn, "wsrep_cluster_status")?;
        ensure!(state == "Primary", "{} is {state}", node.name());
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn takes_a_write(node: &Node) -> Result<()> {
    node.exec(&["INSERT INTO sbtest.written (what) VALUES ('survived')"])
        .with_context(|| format!("{} refuses a write", node.name()))
}

fn wait(what: &str, is: impl Fn() -> bool) -> Result<()> {
    let began = Instant::now();
    while !is() {
        ensure!(began.elapsed() < SOON, "not within {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn signal_programs(node: &Node, signal: Signal) {
    node.sst_processes().iter().for_each(|seen| process::signal(seen.pid, signal));
}

/// One test, because each case leaves what the next one starts from.
#[test]
fn of_three_the_one_that_took_no_part_stays_primary() -> Result<()> {
    let group = Group::new(3)?;
    let (donor, joiner, other) = (group.donor(), group.joiner(), group.cluster.node(2));

    group.begin()?;
    group.survive(&[other], "kill -9 of the donor's server", || {
        donor.kill();
        wait("the joiner waits for the group", || group.waits_for_the_group())?;
        ensure!(
            other.status("wsrep_cluster_size")? == "3",
            "the donor was expelled before the joiner waited"
        );
        Ok(())
    })?;
    let log = joiner.log_since_start();
    ensure!(log.contains("joiner: state transfer failed: the donor gave up: the donor's server"), "{log}");
    donor.join().context("the donor comes back")?;

    group.begin()?;
    group.survive(&[other], "kill -9 of the donor's server and program", || {
        signal_programs(donor, Signal::KILL);
        donor.kill();
        Ok(())
    })?;
    donor.join().context("the donor comes back")?;

    group.begin()?;
    group.survive(&[other, donor], "kill -9 of the donor's program", || {
        signal_programs(donor, Signal::KILL);
        Ok(())
    })?;
    wait("the donor is Synced", || donor.is_synced())?;

    // As a host that lost its link: nothing of it answers, and nothing is closed.
    group.begin()?;
    let silent: Vec<u32> = donor.sst_processes().iter().map(|seen| seen.pid).chain(donor.pid()).collect();
    group.survive(&[other], "the donor's host is silent", || {
        silent.iter().for_each(|&pid| process::signal(pid, Signal::STOP));
        Ok(())
    })?;
    silent.iter().for_each(|&pid| process::signal(pid, Signal::CONT));
    wait("the donor is a Synced member again", || donor.is_synced())?;
    wait("the donor's program ended", || donor.sst_processes().is_empty())?;
    takes_a_write(donor)?;

    group.begin()?;
    group.survive(&[other], "the donor's server is told to shut down", || {
        donor.terminate();
        Ok(())
    })?;
    ensure!(donor.wait_exit(SOON).is_some(), "the donor's server does not end");
    donor.join().context("the donor comes back")?;

    // A joiner that ends of its own while its donor dies: the first failure is its own, and it waits anyway.
    group.begin()?;
    group.survive(&[other], "kill -9 of the donor's server after the joiner's disk failed", || {
        break_staging(joiner)?;
        donor.kill();
        Ok(())
    })?;
    donor.join().context("the donor comes back")?;
    compare::assert_equal(donor, other)
}

/// Takes the joiner's staging away from under its program.
fn break_staging(joiner: &Node) -> Result<()> {
    let staging = joiner.datadir().join(".rejoin");
    Ok(fs::rename(&staging, joiner.dir().join("taken-away"))?)
}

/// The joiner that has everything needs its donor no more: it installs, and mostly is a member then.
#[test]
fn a_donor_that_dies_after_its_last_byte() -> Result<()> {
    let group = Group::with(3, |donor| data::small_tables(donor, "many", 400))?;
    let (donor, joiner, other) = (group.donor(), group.joiner(), group.cluster.node(2));
    let options = fs::read_to_string(donor.option_file())?;
    fs::write(donor.option_file(), options.replace(SLOW, ""))?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| watch_primary(other, &over));
        let result = dies_after_complete(&group);
        over.store(true, Ordering::Release);
        watch.join().expect("the watch").and(result)
    })?;
    takes_a_write(other)?;
    ensure!(joiner.datadir().join("many/t399.ibd").exists(), "what had arrived was not installed");
    if !joiner.is_synced() {
        // The group expelled the donor before the joiner had its IST, which ends the joiner's server.
        wait("the joiner's server ended", || !joiner.is_alive())?;
        joiner.join()?;
    }
    compare::wait_caught_up(other, joiner, SOON)?;
    compare::assert_equal(other, joiner)
}

fn dies_after_complete(group: &Group) -> Result<()> {
    let (donor, joiner) = (group.donor(), group.joiner());
    joiner.remove_grastate()?;
    joiner.begin(&[])?;
    wait("everything arrived", || {
        transfer_log(joiner).is_some_and(|log| log.contains("\"receiving\" took"))
    })?;
    let programs: Vec<u32> = joiner.sst_processes().iter().map(|seen| seen.pid).collect();
    programs.iter().for_each(|&pid| process::signal(pid, Signal::STOP));
    ensure!(!donor.sst_processes().is_empty(), "the donor's program was done already: the case was missed");
    signal_programs(donor, Signal::KILL);
    donor.kill();
    programs.iter().for_each(|&pid| process::signal(pid, Signal::CONT));
    joiner.wait_log("everything has arrived, so the transfer is completed without it", SOON)?;
    wait("the joiner is Synced, or its server has ended", || !joiner.is_alive() || joiner.is_synced())?;
    std::thread::sleep(Duration::from_secs(1));
    Ok(())
}

/// The joiner's own log of its transfer: the node has seen no other.
fn transfer_log(node: &Node) -> Option<String> {
    let mut names = fs::read_dir(node.datadir()).ok()?.flatten().map(|entry| entry.path());
    let is_log = |path: &Path| {
        let path = path.to_string_lossy();
        path.contains("/rejoin-joiner-") && path.ends_with(".log")
    };
    let log = names.find(|path| is_log(path))?;
    fs::read_to_string(log).ok()
}

#[test]
fn of_five_three_stay_primary_when_donor_and_joiner_die_at_once() -> Result<()> {
    let group = Group::new(5)?;
    group.begin()?;
    let others: Vec<&Node> = group.others().iter().collect();
    group.survive(&others, "kill -9 of the donor's and the joiner's server", || {
        group.donor().kill();
        group.joiner().kill();
        Ok(())
    })?;
    wait("both are expelled", || others[0].status("wsrep_cluster_size").is_ok_and(|size| size == "3"))?;
    others.iter().try_for_each(|node| takes_a_write(node))
}

/// What a node's log says of its place in the group and of the transfer.
fn states(node: &Node) -> String {
    let log = node.log_since_start();
    let telling = ["Shifting", "view(", "WSREP_SST", "Rejecting", "[ERROR]", "suspecting"];
    let lines: Vec<&str> =
        log.lines().filter(|line| telling.iter().any(|word| line.contains(word))).collect();
    lines.join("\n")
}

/// A joiner that the group expelled and took back during its transfer would wait for ever for a state that nobody sends:
/// its server must end, with what arrived installed.
#[test]
fn a_joiner_that_was_expelled_and_came_back() -> Result<()> {
    let group = Group::new(2)?;
    let (donor, joiner) = (group.donor(), group.joiner());
    // The donor outvotes the joiner it loses.
    donor.exec(&["SET GLOBAL wsrep_provider_options='pc.weight=2'"])?;
    let options = fs::read_to_string(donor.option_file())?;
    fs::write(donor.option_file(), options.replace("rlimit=60k", "rlimit=80k"))?;
    group.begin()?;
    joiner.signal(Signal::STOP);
    wait("the joiner is expelled", || donor.status("wsrep_cluster_size").is_ok_and(|size| size == "1"))?;
    joiner.signal(Signal::CONT);
    group.joiner_ended().with_context(|| states(joiner))?;
    let log = joiner.log_since_start();
    ensure!(log.contains("the group expelled this node during the transfer"), "{}", states(joiner));
    ensure!(joiner.datadir().join("sbtest/sbtest2.ibd").exists(), "what had arrived was not installed");
    wait("the donor is Synced", || donor.is_synced())?;
    takes_a_write(donor)?;
    joiner.join()?;
    compare::wait_caught_up(donor, joiner, SOON)?;
    compare::assert_equal(donor, joiner)
}

#[test]
fn of_two_the_donor_stays_primary() -> Result<()> {
    let group = Group::new(2)?;
    let donor = group.donor();
    for (what, of, signal) in [
        ("kill -9 of the donor's program", group.donor(), Signal::KILL),
        ("SIGTERM to the donor's program", group.donor(), Signal::TERM),
        ("SIGTERM to the joiner's program", group.joiner(), Signal::TERM),
        ("kill -9 of the joiner's program", group.joiner(), Signal::KILL),
    ] {
        group.begin()?;
        group.survive(&[donor], what, || {
            signal_programs(of, signal);
            Ok(())
        })?;
        wait("the donor is Synced", || donor.is_synced())?;
    }
    Ok(())
}

/// The donor's server is killed in each phase that is not the sending of data.
fn every_phase(installation: Installation) -> Result<()> {
    // Expelled sooner than by default, so that four of these take no minute.
    let builder = Cluster::builder().installation(installation).provider("evs.suspect_timeout", "PT2S");
    let builder = builder.provider("evs.keepalive_period", "PT0.5S");
    let group = Group::of(builder, 3, |_| Ok(()))?;
    let (donor, joiner, other) = (group.donor(), group.joiner(), group.cluster.node(2));
    let killed = |phase: &str, reached: &dyn Fn() -> Result<()>| {
        group.start_joiner()?;
        reached().with_context(|| process::tail(&joiner.log_since_start(), 30))?;
        group.survive(&[other], &format!("kill -9 of the donor's server {phase}"), || {
            donor.kill();
            Ok(())
        })?;
        donor.join().context("the donor comes back")
    };
    killed("before it dials", &|| wait("the donor is asked", || !donor.sst_processes().is_empty()))?;
    killed("when it has connected", &|| joiner.wait_log("connected to the donor", SOON))?;
    killed("in the comparison", &|| {
        wait("it compares", || StatusReader::of(joiner).read().is_some_and(|s| s.phase == "receiving"))
    })?;

    let mut options = fs::read_to_string(donor.option_file())?;
    options = options.replace(SLOW, "");
    fs::write(donor.option_file(), options)?;
    let mut backup = donor.connect()?;
    sql::exec(&mut backup, "BACKUP STAGE START")?;
    killed("while it waits for its consistency point", &|| {
        wait("it waits", || joiner.log_since_start().contains("waiting for the consistency point"))
    })?;

    // The joiner needs nothing of its donor any more.
    group.start_joiner()?;
    let record = joiner.datadir().join("#sql-rejoin/install.json");
    wait("the install begins", || record.exists())?;
    group.survive_until(&[other], "kill -9 of the donor's server during the install", || {
        donor.kill();
        wait("the joiner is Synced, or its server has ended", || !joiner.is_alive() || joiner.is_synced())
    })
}

#[test]
fn of_three_in_every_phase() -> Result<()> {
    every_phase(Installation::system()?)
}

#[test]
fn of_three_of_11_8_in_every_phase() -> Result<()> {
    every_phase(Installation::mariadb_11_8()?)
}
