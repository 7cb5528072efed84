//! A transfer that fails: both hosts name the reason, the joiner has its old data, and the donor is free.
use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rejoin_lab::relay::Relay;
use rejoin_lab::{Cluster, Installation, Node, compare, data, process};
use rustix::process::Signal;
use serde_json::Value;

use super::fixture::{
    Failure, PASSWORD, SOON, builder, ended_by_the_group, fails_and_keeps_its_data, fill, has_all,
    has_the_donors_data, is_free, joined, let_in, newest_file, rows_arrive, stand_alone, starts_again,
    told_to_join,
};

const ALL: &str = "ALL PRIVILEGES";
/// The server does not take something, and says so while it can be reached.
const REFUSED: &str = "Protocol error";
/// The link is broken.
const BROKEN: &str = "Connection was closed";
const LATE: &str = "timed out";
/// What an operator has set is not enough.
const CONFIGURATION: &str = "Invalid argument";

fn unreported<'a>(donor: &'a str, joiner: &'a str) -> Failure<'a> {
    Failure { donor, joiner, is_reported: false }
}

fn reported(donor: &str) -> Failure<'_> {
    Failure { donor, joiner: REFUSED, is_reported: true }
}

/// Where the next donor of this running server is told to connect.
fn receives_at(joiner: &Node, port: u16) -> Result<()> {
    joiner.exec(&[&format!("SET GLOBAL wsrep_sst_receive_address='127.0.0.1:{port}'")])
}

/// The next donor of this running server comes by this link.
fn behind_a_link(joiner: &Node) -> Result<Relay> {
    let link = Relay::to(joiner.ports().client())?;
    receives_at(joiner, link.port())?;
    Ok(link)
}

#[test]
fn a_wrong_account_and_too_few_rights_on_the_joiner_are_named() -> Result<()> {
    let cluster = builder().build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    let_in(n1, PASSWORD, ALL)?;
    stand_alone(n2)?;
    let denied = unreported("Access denied for user 'copier'@'127.0.0.1'", REFUSED);
    fails_and_keeps_its_data(n1, n2, &denied).context("no such account")?;
    let_in(n2, "Another-1", "SELECT")?;
    fails_and_keeps_its_data(n1, n2, &denied).context("a wrong password")?;
    for host in ["localhost", "%"] {
        n2.exec(&[
            &format!("ALTER USER copier@'{host}' IDENTIFIED BY '{PASSWORD}'"),
            &format!("GRANT SUPER, FILE ON *.* TO copier@'{host}'"),
        ])?;
    }
    let grant = "GRANT INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, RELOAD ON *.* TO `copier`@`%`;";
    // With the right to write a file, the reason is on its host too.
    let lacks = Failure { donor: grant, joiner: CONFIGURATION, is_reported: true };
    fails_and_keeps_its_data(n1, n2, &lacks).context("too few rights")
}

/// The limits of an operator hold for rows too: the donor refuses before it reads any.
#[test]
fn a_limit_of_the_donor_is_kept() -> Result<()> {
    let cluster = builder().sst("max-transfer=1M").build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    let_in(n1, PASSWORD, ALL)?;
    stand_alone(n2)?;
    let_in(n2, PASSWORD, ALL)?;
    let refusal = reported("would be sent, and max-transfer under [sst] on this node permits 1.0 MiB");
    fails_and_keeps_its_data(n1, n2, &refusal)
}

/// What an operator's command says of a node, as JSON.
fn rejoin(cluster: &Cluster, verb: &str, node: &Node, more: &[&str]) -> Result<Value> {
    let mut command = Command::new(cluster.program_dir().join("rejoin"));
    command.args([verb, "--json", "--defaults-file"]).arg(node.option_file()).args(more);
    let out = command.output()?;
    let text = String::from_utf8_lossy(&out.stdout);
    serde_json::from_str(&text).with_context(|| format!("{text}\n{}", String::from_utf8_lossy(&out.stderr)))
}

/// Each statement that the donor's log names is what is missing. `rejoin check` knows of the first, and `rejoin plan` what comes.
#[test]
fn what_the_donors_account_lacks_is_named_and_enough() -> Result<()> {
    let cluster = builder().build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    n1.exec(&[
        &format!("CREATE USER copier@localhost IDENTIFIED BY '{PASSWORD}'"),
        "CREATE DATABASE IF NOT EXISTS test",
        "CREATE TABLE test.plain (a INT PRIMARY KEY) ENGINE=MyISAM",
        "INSERT INTO test.plain VALUES (7)",
    ])?;
    stand_alone(n2)?;
    let_in(n2, PASSWORD, ALL)?;
    let findings = rejoin(&cluster, "check", n1, &[])?["findings"].to_string();
    ensure!(findings.contains("GRANT SELECT ON *.* TO `copier`@`localhost`;"), "{findings}");
    ensure!(findings.contains("wsrep_sst_method = mysqldump: this node cannot donate"), "{findings}");
    for (right, is_reported) in [("SELECT", false), ("LOCK TABLES", true)] {
        let grant = format!("GRANT {right} ON *.* TO `copier`@`localhost`;");
        let lacks = Failure { donor: &grant, joiner: CONFIGURATION, is_reported };
        fails_and_keeps_its_data(n1, n2, &lacks).context(right)?;
        n1.exec(&[&grant])?;
    }
    told_to_join(n2, n1)?;
    has_the_donors_data(n1, n2)?;
    n2.stop()?;
    n2.remove_grastate()?;
    let plan = rejoin(&cluster, "plan", n2, &["--donor", &n1.socket().display().to_string()])?;
    assert_eq!(plan["kind"], "logical", "{plan}");
    let why = plan["kind_why"].as_str().unwrap_or_default();
    ensure!(why.contains("wsrep_sst_method=mysqldump"), "{plan}");
    Ok(())
}

#[test]
fn what_a_joiners_server_refuses_is_named() -> Result<()> {
    let cluster =
        builder().mysqld_of(2, "innodb_page_size=4k").mysqld_of(2, "secure_file_priv={dir}/tmp").build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    let_in(n1, PASSWORD, ALL)?;
    n1.exec(&[
        "CREATE DATABASE wide",
        "CREATE TABLE wide.early (a INT PRIMARY KEY)",
        "CREATE TABLE wide.rows (a INT PRIMARY KEY, b CHAR(255), c CHAR(255), d CHAR(255), e CHAR(255), f CHAR(255), g CHAR(255), \
         h CHAR(255), i CHAR(255), j CHAR(255), k CHAR(255), l CHAR(255)) CHARACTER SET latin1 ROW_FORMAT=REDUNDANT",
    ])?;
    stand_alone(n2)?;
    let_in(n2, PASSWORD, ALL)?;
    let elsewhere = unreported("where views and triggers are kept (secure_file_priv=", REFUSED);
    fails_and_keeps_its_data(n1, n2, &elsewhere)?;
    n2.stop()?;
    n2.add_options("mysqld", &["secure_file_priv="])?;
    starts_again(n2)?;
    fails_and_keeps_its_data(n1, n2, &reported("refused wide.rows: Row size too large"))
}

/// The joiner's server is killed while rows arrive.
#[test]
fn a_joiner_that_dies_in_the_middle_is_no_harm() -> Result<()> {
    let cluster = builder().build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    fill(n1)?;
    data::sysbench_tables(n1, 2, 40_000)?;
    stand_alone(n2)?;
    let_in(n2, PASSWORD, ALL)?;
    told_to_join(n2, n1)?;
    rows_arrive(n1)?;
    n2.kill();
    n1.wait_synced_again(Duration::from_secs(30))?;
    let log = n1.log_text();
    ensure!(log.contains("was lost while it processed"), "{}", process::tail(&log, 40));
    is_free(n1)?;
    // Its old data is there, and the next try gets through.
    starts_again(n2)?;
    let shown = n2.rows("SHOW DATABASES")?.concat();
    ensure!(shown.iter().any(|name| name == "old_shop"), "{shown:?}");
    told_to_join(n2, n1)?;
    joined(n2, n1)?;
    has_all(n1, n2)
}

/// The link breaks while rows arrive; what had come stays until the next transfer, which gets through.
#[test]
fn a_link_that_is_cut_in_the_middle_is_named() -> Result<()> {
    let cluster = builder().build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    let_in(n1, PASSWORD, ALL)?;
    data::sysbench_tables(n1, 2, 40_000)?;
    stand_alone(n2)?;
    let_in(n2, PASSWORD, ALL)?;
    let link = behind_a_link(n2)?;
    std::thread::scope(|scope| -> Result<()> {
        let cuts = scope.spawn(|| link.wait_passed(2 << 20).map(|()| link.cut()));
        // The server tries again, and then nothing listens.
        let lost = unreported("was lost while it processed rows of sbtest.", BROKEN);
        fails_and_keeps_its_data(n1, n2, &lost)?;
        cuts.join().expect("no panic")
    })?;
    ensure!(n1.log_text().contains("cannot be reached: Connection refused"), "{}", n1.log_text());
    told_to_join(n2, n1)?;
    has_the_donors_data(n1, n2)
}

/// The link breaks while the old data is replaced: no later word says that it is as it was.
#[test]
fn a_link_that_is_cut_in_the_exchange_is_reported_as_that() -> Result<()> {
    let cluster = builder().build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    let_in(n1, PASSWORD, ALL)?;
    data::small_tables(n1, "many", 300)?;
    stand_alone(n2)?;
    let_in(n2, PASSWORD, ALL)?;
    let link = behind_a_link(n2)?;
    let marks = (n1.log_mark(), n2.log_mark());
    told_to_join(n2, n1)?;
    let until = Instant::now() + Duration::from_secs(60);
    while n2.datadir().join("old_shop").exists() {
        ensure!(Instant::now() < until, "{}", process::tail(&n1.log_text(), 40));
        std::thread::sleep(Duration::from_millis(1));
    }
    link.cut();
    let lost = "has lost its old data and has not the donor's yet; it must join again, or be restored";
    ended_by_the_group(n1, n2, &unreported(lost, BROKEN), marks)?;
    starts_again(n2)?;
    let shown = n2.rows("SHOW DATABASES")?.concat();
    ensure!(!shown.iter().any(|name| name == "old_shop"), "{shown:?}");
    n2.exec(&["REVOKE RELOAD ON *.* FROM copier@'%'"])?;
    let marks = (n1.log_mark(), n2.log_mark());
    told_to_join(n2, n1)?;
    ended_by_the_group(n1, n2, &unreported("lacks RELOAD", CONFIGURATION), marks)?;
    let file = newest_file(n2)?;
    ensure!(file.contains("lacks RELOAD") && file.contains(lost), "{file}");
    starts_again(n2)?;
    n2.exec(&["GRANT RELOAD ON *.* TO copier@'%'"])?;
    told_to_join(n2, n1)?;
    joined(n2, n1)?;
    is_free(n1)?;
    let shown = n2.rows("SHOW DATABASES")?.concat();
    ensure!(!shown.iter().any(|name| name.starts_with("#rejoin")), "{shown:?}");
    compare::wait_caught_up(n1, n2, SOON)?;
    compare::assert_equal(n1, n2)
}

/// Bytes that were sent to a port of this host and that nobody has taken: they no longer fit into its buffer.
fn not_taken(port: u16) -> Result<u64> {
    let hexadecimal = |text: &str| u64::from_str_radix(text, 16).ok();
    let sent_to = |line: &str| {
        let mut words = line.split_whitespace().skip(2);
        let to = hexadecimal(words.next()?.split_once(':')?.1)?;
        let queued = hexadecimal(words.nth(1)?.split_once(':')?.0)?;
        (to == u64::from(port)).then_some(queued)
    };
    Ok(fs::read_to_string("/proc/net/tcp")?.lines().filter_map(sent_to).sum())
}

/// The link swallows while there is more on its way than fits into it. While the donor waits for the answer to a statement there is
/// nothing that could be missed: then the link passes on for a moment.
fn swallows_what_is_on_its_way(link: &Relay) -> Result<()> {
    link.wait_passed(2 << 20)?;
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        link.swallow();
        // What fits has been acknowledged by then.
        std::thread::sleep(Duration::from_millis(500));
        if not_taken(link.port())? > 0 {
            return Ok(());
        }
        ensure!(Instant::now() < until, "nothing is on its way");
        link.pass_again();
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// 11.8 runs the donor's program once: each of these fails in one attempt.
#[test]
fn a_joiner_that_does_not_answer_is_named() -> Result<()> {
    let newer = Installation::mariadb_11_8()?;
    // Two sessions that load: rows of one are swallowed, and the other may be waiting for an answer, which a link that acknowledges
    // everything never brings. A server beside much else may read nothing for some seconds.
    let builder = builder().sst_of(1, "threads=2").sst_of(1, "sst-idle-timeout=10");
    let cluster = builder.installation(newer).build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    let_in(n1, PASSWORD, ALL)?;
    data::sysbench_tables(n1, 2, 40_000)?;
    stand_alone(n2)?;
    let_in(n2, PASSWORD, ALL)?;

    let nobody = n2.ports().spare(0);
    receives_at(n2, nobody)?;
    let refused = format!("the joiner's server at 127.0.0.1:{nobody} cannot be reached: Connection refused");
    fails_and_keeps_its_data(n1, n2, &unreported(&refused, BROKEN))?;

    let silent = TcpListener::bind(("127.0.0.1", 0))?;
    receives_at(n2, silent.local_addr()?.port())?;
    let words = "accepted the connection and sent nothing within 10 s";
    fails_and_keeps_its_data(n1, n2, &unreported(words, LATE)).context("a silent port")?;

    let link = behind_a_link(n2)?;
    std::thread::scope(|scope| -> Result<()> {
        let swallows = scope.spawn(|| swallows_what_is_on_its_way(&link));
        let late = unreported("no longer answers", LATE);
        fails_and_keeps_its_data(n1, n2, &late).context("a link that swallows")?;
        swallows.join().expect("no panic")
    })
}

/// The donor's program is killed while rows are on their way, over a link that stands still then.
fn killed_in_the_middle(donor: &Node, joiner: &Node) -> Result<Relay> {
    let link = behind_a_link(joiner)?;
    told_to_join(joiner, donor)?;
    link.wait_passed(2 << 20)?;
    link.swallow();
    let ours = |pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("rejoin"));
    let pids: Vec<u32> = donor.sst_processes().iter().map(|seen| seen.pid).filter(ours).collect();
    ensure!(!pids.is_empty(), "no program runs:\n{}", process::tail(&donor.log_text(), 20));
    pids.iter().for_each(|pid| process::signal(*pid, Signal::KILL));
    Ok(link)
}

/// 10.11 runs the program again, which begins from the start and knows how the joiner's settings were.
#[test]
fn a_donors_program_that_is_killed_is_run_again() -> Result<()> {
    let cluster = builder().mysqld_of(2, "event_scheduler=ON").mysqld_of(2, "local_infile=OFF").build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    let_in(n1, PASSWORD, ALL)?;
    data::sysbench_tables(n1, 2, 40_000)?;
    stand_alone(n2)?;
    let_in(n2, PASSWORD, ALL)?;
    let link = killed_in_the_middle(n1, n2)?;
    link.pass_again();
    has_the_donors_data(n1, n2)?;
    assert_eq!(n2.value("SELECT @@event_scheduler")?, "ON");
    assert_eq!(n2.value("SELECT @@local_infile")?, "0");
    Ok(())
}

/// 11.8 does not: the joiner ends, and its data is the old one.
#[test]
fn a_donors_program_that_is_killed_costs_nothing() -> Result<()> {
    let newer = Installation::mariadb_11_8()?;
    let cluster = builder().installation(newer).build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    let_in(n1, PASSWORD, "SELECT")?;
    data::sysbench_tables(n1, 2, 40_000)?;
    stand_alone(n2)?;
    let_in(n2, PASSWORD, ALL)?;
    let grant = "GRANT RELOAD ON *.* TO `copier`@`localhost`;";
    let lacks = Failure { donor: grant, joiner: CONFIGURATION, is_reported: true };
    fails_and_keeps_its_data(n1, n2, &lacks)?;
    n1.exec(&[grant])?;
    let marks = (n1.log_mark(), n2.log_mark());
    let _link = killed_in_the_middle(n1, n2)?;
    // Nobody is left who could say why: the server does.
    ended_by_the_group(n1, n2, &unreported("wsrep_sst_mysqldump", "failed"), marks)?;
    starts_again(n2)?;
    told_to_join(n2, n1)?;
    has_the_donors_data(n1, n2)
}
