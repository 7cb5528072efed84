//! Verbs that change a datadir: one at a time, never under a server, and as nobody but the datadir's owner.
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rejoin_lab::{Cluster, Node, compare};
use rustix::process::Signal;

use super::fake_transfer::{Fakes, SOON};
use super::pair::{self, Pair, set_sst, until};

pub const VERBS: [&str; 3] = ["finish", "release", "rollback"];
/// `EBUSY`.
const BUSY: i32 = 16;

/// A verb on a node's datadir, run by the user who runs the tests.
pub fn command(cluster: &Cluster, node: &Node, verb: &str) -> Command {
    let mut command = Command::new(cluster.program_dir().join("rejoin"));
    command.arg(verb).arg("--datadir").arg(node.datadir()).arg("--defaults-file").arg(node.option_file());
    command
}

/// Runs it: its exit code, and what it said.
pub fn run(cluster: &Cluster, node: &Node, verb: &str) -> Result<(Option<i32>, String)> {
    let output = command(cluster, node, verb).output().context("rejoin")?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
}

/// Each verb is refused, and says who is in the way.
fn all_are_refused(pair: &Pair, node: &Node, words: &[String]) -> Result<()> {
    are_refused(pair, node, &VERBS, words)
}

fn are_refused(pair: &Pair, node: &Node, verbs: &[&str], words: &[String]) -> Result<()> {
    for verb in verbs {
        let (code, said) = run(&pair.cluster, node, verb)?;
        ensure!(code == Some(BUSY), "{verb} on {} ended with {code:?}: {said}", node.name());
        for word in words {
            ensure!(said.contains(word.as_str()), "{verb} on {} does not say {word:?}: {said}", node.name());
        }
    }
    Ok(())
}

fn staged_files(node: &Node) -> Result<usize> {
    Ok(fs::read_dir(node.datadir().join(".rejoin/stage")).context("nothing is staged")?.count())
}

/// One test, because each case leaves what the next one starts from.
#[test]
fn no_verb_works_beside_a_server_or_a_transfer() -> Result<()> {
    let mut pair = Pair::new(Cluster::builder().nodes(2))?;
    let server = |node: &Node| -> Result<String> {
        Ok(format!("a server (process {}) runs on ", node.pid().context("no server")?))
    };
    // A Synced node needs nothing of what was kept, and says so.
    let of_served = [server(pair.donor())?];
    are_refused(&pair, pair.donor(), &["finish", "rollback"], &of_served).context("a server that serves")?;
    let (code, said) = run(&pair.cluster, pair.donor(), "release")?;
    ensure!(code == Some(0), "release on a Synced node ended with {code:?}: {said}");

    pair.begin_slowly()?;
    let (program, staged) = (pair::program_pid(pair.joiner())?, staged_files(pair.joiner())?);
    ensure!(staged > 0, "nothing is staged");
    let holder = ["joiner".to_owned(), format!("process {program}"), "since 20".to_owned()];
    all_are_refused(&pair, pair.joiner(), &holder).context("a running transfer")?;
    all_are_refused(&pair, pair.donor(), &[server(pair.donor())?]).context("the donor meanwhile")?;
    ensure!(staged_files(pair.joiner())? >= staged, "files of the running transfer are gone");

    // Its program is gone, the server has not noticed: no engine is open, and no lock of an engine is held.
    pair.joiner().signal(Signal::STOP);
    pair::signal(pair.joiner(), Signal::KILL)?;
    until("the program is dead", SOON, || Ok(pair::program(pair.joiner()).is_empty()))?;
    all_are_refused(&pair, pair.joiner(), &[server(pair.joiner())?]).context("a server that waits")?;
    ensure!(staged_files(pair.joiner())? >= staged, "files of the transfer are gone");
    pair.old_data_is_untouched()?;
    pair.joiner().kill();

    let (code, said) = run(&pair.cluster, pair.joiner(), "release")?;
    ensure!(code == Some(0), "nobody is in the way: {code:?}, {said}");
    // Nothing is left but the word that this node was about to receive more: it must not be bootstrapped from unawares.
    let datadir = pair.joiner().datadir();
    let left: Vec<_> =
        fs::read_dir(datadir.join("#sql-rejoin"))?.flatten().map(|entry| entry.file_name()).collect();
    ensure!(left == ["receiving.json"] && !datadir.join(".rejoin").exists(), "left: {left:?}");
    let (_, said) = run(&pair.cluster, pair.joiner(), "status")?;
    ensure!(said.contains("do not bootstrap a cluster from it"), "{said}");
    until("the group gave the joiner up", SOON, || Ok(pair.donor().status("wsrep_cluster_size")? == "1"))?;
    pair.joins_now()?;
    compare::assert_equal(pair.donor(), pair.joiner())
}

/// A process whose command line looks like a transfer's to who does not look closely, as a server's does.
struct LooksLikeOne(std::process::Child);

impl LooksLikeOne {
    fn on(node: &Node) -> Result<LooksLikeOne> {
        let mut command = Command::new("sh");
        // Without a child of its own, which would outlive it.
        command.args(["-c", "read line", "mariadbd", "--wsrep_sst_donor=n1", "--wsrep_sst_method=rejoin"]);
        command.current_dir(node.datadir()).stdin(Stdio::piped());
        Ok(LooksLikeOne(command.spawn()?))
    }
}

impl Drop for LooksLikeOne {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_stale_pid_file_keeps_nobody_out() -> Result<()> {
    let fakes = Fakes::new()?;
    set_sst(fakes.joiner(), &["sst-initial-timeout=60"])?;
    let other = LooksLikeOne::on(fakes.joiner())?;
    let pid_file = fakes.joiner().datadir().join("wsrep_sst.pid");
    fs::write(&pid_file, format!("{}\n", other.0.id()))?;
    // Nor is it taken for the transfer that the status file tells of.
    let status = format!(
        r#"{{"role":"joiner","phase":"receiving","done_bytes":0,"total_bytes":9,"wire_bytes":0,"elapsed_ms":1,"pid":{}}}"#,
        other.0.id()
    );
    fs::write(fakes.joiner().datadir().join("rejoin-status.json"), status)?;
    let mut command = Command::new(fakes.cluster.program_dir().join("rejoin"));
    let output = command.arg("status").arg("--datadir").arg(fakes.joiner().datadir()).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(said.contains("ended unexpectedly") && said.contains("in phase \"receiving\""), "{said}");
    let (joiner, ..) = fakes.joiner_ready()?;
    ensure!(joiner.began.elapsed() < Duration::from_secs(8), "it waited for a stranger");
    ensure!(fs::read_to_string(&pid_file)?.trim() != other.0.id().to_string());
    joiner.signal(Signal::TERM)?;
    let ended = joiner.end(SOON)?;
    ensure!(!ended.stderr.contains("kill"), "{}", ended.stderr);
    Ok(())
}
