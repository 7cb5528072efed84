//! Takes snapshots of a real server under a storm of writes and DDL, and proves each copy.
//!
//! `native_rounds [--alone] [--newer] [--slow MS] [ROUNDS] [DDL_PAUSE_MS] [LINES OF THE OPTION FILE]`. With a cluster (the
//! default) two nodes are written to and have DDL; each snapshot of the first becomes a third node: its files must tell
//! the noted position, it recovers, must show that position, joins there by IST, and is then compared with the others.
//! With `--alone` the copy is started on its own and checked in itself.
//! `--newer` takes newer checkpoints after each copy, whatever it took; `--slow` lets each range of pages take so long.
//! Needs root, MariaDB, Galera and rsync; everything is made in a temporary directory on loopback.
#![expect(clippy::print_stdout, reason = "a program for developers")]
mod compare;
mod server;
mod sink;
mod storm;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use formats::wsrep::state_id::StateId;
use mysql::prelude::Queryable;
use rejoin_node::cancel::Cancel;
use rejoin_node::datadir::recovered_position::{InnodbFiles, Recovered, recovered_position};
use rejoin_node::source::native::login::{Listens, Login};
use rejoin_node::source::native::snapshot::{Options, Taken, take};
use server::{Server, free_port};
use storm::Storm;

fn main() -> Result<()> {
    tracing_subscriber::Registry::default();
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let mut word = |name: &str| words.first().is_some_and(|w| w == name).then(|| words.remove(0)).is_some();
    let (alone, newer, slow) = (word("--alone"), word("--newer"), word("--slow"));
    let slow = Duration::from_millis(if slow { words.remove(0).parse()? } else { 0 });
    let how = How { alone, newer, slow };
    let rounds: u32 = words.first().map_or(Ok(3), |w| w.parse())?;
    let pause: u64 = words.get(1).map_or(Ok(50), |w| w.parse())?;
    let more: Vec<String> = words.get(2..).unwrap_or_default().to_vec();
    let base = tempfile::Builder::new().prefix("nat").tempdir()?;
    run(&["chmod", "755", &base.path().to_string_lossy()])?;
    rounds_in(base.path(), how, rounds, Duration::from_millis(pause), &more)
}

/// What is asked for.
#[derive(Clone, Copy)]
struct How {
    alone: bool,
    newer: bool,
    slow: Duration,
}

fn run(words: &[&str]) -> Result<()> {
    server::run(Command::new(words[0]).args(&words[1..]))
}

fn rounds_in(base: &Path, how: How, rounds: u32, pause: Duration, more: &[String]) -> Result<()> {
    let mut nodes = start_nodes(base, how.alone, more)?;
    let clients: Vec<String> =
        (1..=nodes.len()).flat_map(|n| (1..=2).map(move |k| format!("n{n}c{k}"))).collect();
    storm::prepare(&mut nodes[0].connect()?, &clients)?;
    sysbench(&nodes[0], &["--threads=2", "prepare"])?.wait()?;
    let mut wrong = Vec::new();
    for round in 1..=rounds {
        let began = Instant::now();
        let result = one_round(base, how, round, &mut nodes, pause, more);
        match &result {
            Ok(line) => println!("round {round}: right, {line}; {:.1} s", began.elapsed().as_secs_f64()),
            Err(e) => {
                println!("round {round}: WRONG: {e:#}");
                wrong.push(round);
            }
        }
        if result.is_ok() {
            std::fs::remove_dir_all(base.join(format!("copy{round}")))?;
        }
    }
    println!("{} of {rounds} right; wrong: {wrong:?}", rounds as usize - wrong.len());
    nodes.iter_mut().for_each(Server::stop);
    if wrong.is_empty() { Ok(()) } else { bail!("{} rounds were wrong", wrong.len()) }
}

fn start_nodes(base: &Path, alone: bool, more: &[String]) -> Result<Vec<Server>> {
    if alone {
        let mut server = Server::new(&base.join("n1"), &[], 0, more)?;
        server.install()?;
        server.start(&[])?;
        return Ok(vec![server]);
    }
    let ports = [free_port()?, free_port()?];
    let mut first = Server::new(&base.join("n1"), &ports, ports[0], more)?;
    first.install()?;
    first.start(&["--wsrep-new-cluster"])?;
    let mut second = Server::new(&base.join("n2"), &ports, ports[1], more)?;
    std::fs::create_dir_all(second.data())?;
    second.own()?;
    second.start(&[])?;
    Ok(vec![first, second])
}

fn sysbench(server: &Server, words: &[&str]) -> Result<std::process::Child> {
    if words.contains(&"prepare") {
        server.connect()?.query_drop("CREATE DATABASE IF NOT EXISTS sbtest")?;
    }
    let mut command = Command::new("sysbench");
    command.arg("oltp_write_only").arg(format!("--mysql-socket={}", server.socket().display()));
    command.args([
        "--mysql-user=root",
        "--tables=4",
        "--table-size=50000",
        "--time=600",
        "--mysql-ignore-errors=all",
    ]);
    command.args(words).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    Ok(command.spawn()?)
}

fn one_round(
    base: &Path,
    how: How,
    round: u32,
    nodes: &mut [Server],
    pause: Duration,
    more: &[String],
) -> Result<String> {
    let storm = Arc::new(Storm::default());
    let mut threads = Vec::new();
    for (n, node) in nodes.iter().enumerate() {
        for k in 1..=2u64 {
            let (writes, ddl) = (node.connect()?, node.connect()?);
            let name = format!("n{}c{k}", n + 1);
            let seed = u64::from(round) * 100 + n as u64 * 10 + k;
            let (s, name2) = (Arc::clone(&storm), name.clone());
            threads.push(std::thread::spawn(move || storm::write(writes, &name, seed, &s)));
            let s = Arc::clone(&storm);
            threads.push(std::thread::spawn(move || storm::ddl(ddl, &name2, seed, pause, &s)));
        }
    }
    let (probe, s) = (nodes[0].connect()?, Arc::clone(&storm));
    threads.push(std::thread::spawn(move || storm::probe(probe, &s)));
    let mut bench = sysbench(&nodes[0], &["--threads=2", "run"])?;
    std::thread::sleep(Duration::from_millis(1500 + u64::from(round % 5) * 300));
    let before = std::mem::take(&mut *storm.longest.lock().expect("lock"));

    let copy = base.join(format!("copy{round}"));
    let taken = snapshot(&nodes[0], &copy.join("data"), base, how);
    let longest = *storm.longest.lock().expect("lock");
    std::thread::sleep(Duration::from_millis(300));
    storm.stop.store(true, Ordering::Relaxed);
    bench.kill()?;
    bench.wait()?;
    threads.into_iter().for_each(|t| drop(t.join()));
    let taken = taken?;
    let proof = prove(how.alone, &copy, &taken, nodes, more)?;
    let m = &taken.moment;
    let ms = |d: Duration| d.as_secs_f64() * 1000.0;
    Ok(format!(
        "copy {:.2} s of {:.0} MB in {} rounds, {} files, redo {:.1} MB ({} newer checkpoints: {:.1} MB less, {:.1} MB read again); moment: DDL held {:.0} ms ({:.0} until granted), commits {:.1} ms, \
         {} files, listing {:.1} ms, {} tries ({:.0} ms in failed ones); longest commit {:.0} ms ({:.0} before); {} commits, {} DDL; {proof}",
        taken.total.as_secs_f64(),
        taken.bytes as f64 / 1e6,
        taken.rounds,
        taken.manifest.files.len(),
        taken.redo_bytes as f64 / 1e6,
        taken.redo_rounds.rounds,
        taken.redo_rounds.dropped as f64 / 1e6,
        taken.redo_rounds.reread as f64 / 1e6,
        ms(m.ddl_held),
        ms(m.granting),
        ms(m.commits_held),
        m.files,
        ms(m.listing),
        m.tries,
        ms(m.failed_held),
        ms(longest),
        ms(before),
        storm.commits.load(Ordering::Relaxed),
        storm.ddl.load(Ordering::Relaxed),
    ))
}

fn snapshot(donor: &Server, data: &Path, spill: &Path, how: How) -> Result<Taken> {
    let options = Options {
        login: Login { at: Listens::Socket(donor.socket()), account: None },
        roots: donor.roots()?,
        threads: 2,
        budget: Duration::from_secs(60),
        spill_dir: spill.to_owned(),
        spill_max: 1 << 30,
        checkpoint_first: false,
        round_after: if how.newer { Duration::ZERO } else { Duration::MAX },
        redo_enough: 0,
        allow_corrupt_pages: false,
        creator: "rejoin".to_owned(),
    };
    let sink = sink::DirectorySink::new(data)?;
    Ok(take(&options, &sink::Slow(&sink, how.slow), &Cancel::new())?)
}

/// What a joiner can tell from the files before any server has opened them.
fn compute(copy: &Server, noted: StateId) -> Result<()> {
    let data = copy.data();
    let undo = std::fs::read_dir(&data)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let undo = undo
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("undo")));
    let files = InnodbFiles {
        system: vec![data.join("ibdata1")],
        undo: undo.collect(),
        redo: data.join("ib_logfile0"),
        binlog: false,
    };
    let began = Instant::now();
    match recovered_position(&files)? {
        Recovered::Known(position) if position.state == noted => {
            println!("computed {noted} in {:.0} ms", began.elapsed().as_secs_f64() * 1000.0);
            Ok(())
        }
        other => bail!("computed position {other:?}, noted {noted}"),
    }
}

fn prove(alone: bool, dir: &Path, taken: &Taken, nodes: &[Server], more: &[String]) -> Result<String> {
    let ports: Vec<u16> = nodes.iter().map(|n| n.group_port).collect();
    let group = if alone { 0 } else { free_port()? };
    let mut copy = Server::new(dir, if alone { &[] } else { &ports }, group, more)?;
    copy.own()?;
    let mut proof;
    if !alone {
        let state = taken.manifest.position.context("no position noted")?.state;
        compute(&copy, state)?;
        let began = Instant::now();
        let found = copy.recover()?;
        // With wsrep_gtid_mode the domain's GTID follows after a comma.
        if found.split(',').next() != Some(&state.to_string()) {
            bail!("recovered position {found}, noted {state}");
        }
        proof = format!("position {state} in {:.1} s", began.elapsed().as_secs_f64());
        let text = format!(
            "# GALERA saved state\nversion: 2.1\nuuid: {}\nseqno: {}\nsafe_to_bootstrap: 0\n",
            state.uuid, state.seqno
        );
        std::fs::write(copy.data().join("grastate.dat"), text)?;
        copy.own()?;
        copy.start(&[&format!("--wsrep-start-position={state}")])?;
        let log = std::fs::read_to_string(dir.join("error.log"))?;
        if !log.contains("IST received") && !log.contains("Receiving IST") {
            bail!("the copy did not join by IST");
        }
    } else {
        let began = Instant::now();
        copy.start(&[])?;
        proof = format!("started in {:.1} s", began.elapsed().as_secs_f64());
    }
    let mut conn = copy.connect()?;
    let mut faults = compare::faults(&mut conn)?;
    if !alone {
        let donor = compare::state(&mut nodes[0].connect()?)?;
        let other = compare::state(&mut nodes[1].connect()?)?;
        let third = compare::state(&mut conn)?;
        let old: Vec<String> = compare::differences(&donor, &other);
        faults.extend(compare::differences(&donor, &third).into_iter().filter(|d| !old.contains(d)));
        if !old.is_empty() {
            proof += &format!(" (the old nodes differ in {})", old.len());
        }
    }
    let log = copy.log_tail();
    drop(conn);
    copy.stop();
    // A statement that failed where it was given fails in the same way where it is applied.
    let known = nodes.iter().map(Server::log_text).collect::<Vec<_>>().concat();
    let common = |line: &&str| line.split_once("Query: ").is_some_and(|(_, query)| known.contains(query));
    faults.extend(log.lines().filter(|line| !common(line)).map(str::to_owned));
    if faults.is_empty() { Ok(proof) } else { bail!("{}", faults.join("\n  ")) }
}
