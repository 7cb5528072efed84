//! A transfer ends when a server dies, or when nobody ever comes.
use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rejoin_lab::{Cluster, compare};

use super::fake::Call;
use super::fake_transfer::{Fakes, SOON};
use super::pair::{PROMPTLY, Pair, set_sst, until, words_of};

/// What a joiner allows for the expulsion of its donor at `evs.inactive_timeout=PT6S`.
const EXPULSION: Duration = Duration::from_secs(12);

/// One test, because each case leaves what the next one starts from.
#[test]
fn servers_that_are_killed() -> Result<()> {
    let mut pair = Pair::new(Cluster::builder().nodes(2).provider("evs.inactive_timeout", "PT6S"))?;
    the_joiners_server_is_told(&mut pair).context("SIGTERM to the joiner's server")?;
    the_joiners_server(&mut pair).context("kill -9 of the joiner's server")?;
    the_donors_server(&mut pair).context("kill -9 of the donor's server")
}

/// The server itself would take no notice before the transfer is over, and may hang then.
fn the_joiners_server_is_told(pair: &mut Pair) -> Result<()> {
    pair.begin_slowly()?;
    let told = Instant::now();
    pair.joiner().terminate();
    pair.all_ends(told)?;
    ensure!(pair.joiner().wait_exit(SOON).is_some(), "the joiner's server neither serves nor ends");
    pair.donor_is_released()?;
    pair.old_data_is_untouched()?;
    pair.reason_in_both_logs(pair.joiner(), "joiner", "received a signal to stop")?;
    pair.reason_in_both_logs(pair.donor(), "donor", "the joiner gave up: the joiner's server (process ")
}

fn the_joiners_server(pair: &mut Pair) -> Result<()> {
    pair.begin_slowly()?;
    let killed = Instant::now();
    pair.joiner().kill();
    pair.all_ends(killed)?;
    until("the group gave the joiner up", SOON, || Ok(pair.donor().status("wsrep_cluster_size")? == "1"))?;
    pair.donor_is_released()?;
    pair.old_data_is_untouched()?;
    pair.reason_in_both_logs(pair.joiner(), "joiner", "the joiner's server (process ")?;
    pair.reason_in_both_logs(pair.donor(), "donor", "the joiner gave up: the joiner's server (process ")?;
    pair.joins_now()?;
    compare::assert_equal(pair.donor(), pair.joiner())
}

fn the_donors_server(pair: &mut Pair) -> Result<()> {
    pair.begin_slowly()?;
    let killed = Instant::now();
    pair.donor().kill();
    pair.ends(pair.donor(), killed, PROMPTLY)?;
    // Alone it is no Primary component, whose word would end its server: it waits as long as an expulsion may take.
    pair.ends(pair.joiner(), killed, EXPULSION + PROMPTLY)?;
    ensure!(killed.elapsed() > EXPULSION, "the joiner's program ended after {:?}", killed.elapsed());
    pair.nothing_is_left()?;
    pair.joiners_server_ended()?;
    ensure!(pair.joiner().log_since_start().contains("at the latest in 12 s"), "{}", words_of(pair.joiner()));
    pair.reason_in_both_logs(pair.donor(), "donor", "the donor's server (process ")?;
    pair.reason_in_both_logs(pair.joiner(), "joiner", "the donor gave up: the donor's server (process ")?;
    let grastate = pair.donor().datadir().join("grastate.dat");
    let text = std::fs::read_to_string(&grastate)?.replace("safe_to_bootstrap: 0", "safe_to_bootstrap: 1");
    std::fs::write(grastate, text)?;
    pair.donor().bootstrap()?;
    pair.donor_is_released()?;
    pair.joins_now()?;
    compare::assert_equal(pair.donor(), pair.joiner())
}

#[test]
fn no_donor_ever_comes() -> Result<()> {
    let fakes = Fakes::new()?;
    set_sst(fakes.joiner(), &["sst-initial-timeout=2"])?;
    let (joiner, ..) = fakes.joiner_ready()?;
    let ended = joiner.end(SOON)?;
    ensure!(ended.took > Duration::from_secs(2) && ended.took < Duration::from_secs(4), "{:?}", ended.took);
    assert_eq!(ended.code, Some(110), "ETIMEDOUT: {}", ended.stderr);
    assert_eq!(ended.stdout.len(), 1, "nothing after ready: {:?}", ended.stdout);
    let port = fakes.joiner().ports().sst();
    ensure!(
        ended.stderr.contains(&format!("no donor connected to port {port} within 2 s")),
        "{}",
        ended.stderr
    );
    fakes.nothing_is_left()
}

#[test]
fn the_port_is_taken() -> Result<()> {
    let fakes = Fakes::new()?;
    let port = fakes.joiner().ports().sst();
    let other = TcpListener::bind(("127.0.0.1", port))?;
    let line = fakes.joiner_line(&format!("127.0.0.1:{port}"), 0);
    let ended = Call::new(line.clone(), &fakes.joiner().datadir()).start()?.end(SOON)?;
    ensure!(ended.stdout.is_empty() && ended.code != Some(0), "{ended:?}");
    ensure!(ended.stderr.contains(&format!("port {port} is in use on this machine")), "{}", ended.stderr);
    drop(other);
    fakes.nothing_is_left()?;
    // Connections that were here before do not keep the next one out.
    let (joiner, auth, address) = fakes.joiner_ready()?;
    fakes.bypass(&address, &auth)?.end(SOON)?;
    joiner.end(SOON)?;
    fakes.joiner_ready().map(drop)
}

/// The joiner waits for its donor, and its server is killed: the shell in between lives on.
#[test]
fn a_server_that_dies_while_nobody_has_come() -> Result<()> {
    let mut fakes = Fakes::new()?;
    let (joiner, ..) = fakes.joiner_ready()?;
    let killed = Instant::now();
    fakes.server().kill()?;
    fakes.server().wait()?;
    let ended = joiner.end(SOON)?;
    ensure!(killed.elapsed() < PROMPTLY, "it took {:?}", killed.elapsed());
    assert_eq!(ended.code, Some(16), "{}", ended.stderr);
    ensure!(ended.stderr.contains("the joiner's server (process "), "{}", ended.stderr);
    fakes.nothing_is_left()
}

/// The shell is all that a server could signal; its end is the program's end too.
#[test]
fn an_earlier_transfer_that_still_ends_is_waited_for() -> Result<()> {
    let fakes = Fakes::new()?;
    let (first, ..) = fakes.joiner_ready()?;
    let line = fakes.joiner_line(&format!("127.0.0.1:{}", fakes.joiner().ports().sst()), 0);
    let mut second = Call::new(line, &fakes.joiner().datadir()).start()?;
    std::thread::sleep(Duration::from_millis(700));
    ensure!(second.line(Duration::from_millis(10)).is_err(), "two at once on one datadir");
    first.signal(rustix::process::Signal::TERM)?;
    first.end(PROMPTLY)?;
    second.ready()?;
    ensure!(fakes.joiner().datadir().join("sst_in_progress").exists());
    second.signal(rustix::process::Signal::TERM)?;
    let ended = second.end(PROMPTLY)?;
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
    until("all is gone", PROMPTLY, || Ok(fakes.nothing_is_left().is_ok()))
}
