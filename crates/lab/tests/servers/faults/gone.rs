//! A joiner that is gone, a donor whose server is told to stop, and a donor that is cut off from its cluster.
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rejoin_lab::Cluster;
use rustix::process::Signal;

use super::fake_transfer::{Fakes, SOON};
use super::pair::{Pair, program, until, words_of};

/// One test, because each case leaves what the next one starts from.
#[test]
fn one_of_both_is_gone() -> Result<()> {
    // A joiner that is alone waits for its group as long as an expulsion may take.
    let mut pair = Pair::new(Cluster::builder().nodes(2).provider("evs.inactive_timeout", "PT6S"))?;
    let joiner = AbsentJoiner::put_before(&pair)?;
    a_joiner_that_refuses(&pair, &joiner).context("a joiner that refuses")?;
    a_donor_that_is_stopped_while_it_dials(&pair, &joiner).context("stopped while it dials")?;
    joiner.comes_back()?;
    a_donor_that_is_stopped_in_a_transfer(&mut pair).context("stopped in a transfer")?;
    a_donor_outside_the_primary_component(&mut pair).context("outside the primary component")
}

/// Files at no write-set are no state of a cluster, however still they are held.
#[test]
fn a_donor_without_a_position() -> Result<()> {
    let fakes = Fakes::new()?;
    let (joiner, auth, address) = fakes.joiner_ready()?;
    let mut donor = fakes.full(&address, &auth)?;
    while donor.line(SOON)? != "flush tables" {}
    fakes.stand_still_at("2f0eaefd-0000-11f0-a0a0-000000000000:-1")?;
    let ended = donor.end(SOON)?;
    let reason = "this donor cannot send its data: the donor's server has no position (2f0eaefd-0000-11f0-a0a0-000000000000:-1)";
    ensure!(ended.code == Some(71) && ended.stderr.contains(reason), "{:?}: {}", ended.code, ended.stderr);
    // It waits for the word of a group that is not there.
    joiner.signal(Signal::TERM)?;
    let ended = joiner.end(SOON)?;
    ensure!(ended.stderr.contains(reason), "{}", ended.stderr);
    fakes.nothing_is_left()
}

/// In place of the joiner's program: one that announces an address at which nobody is.
struct AbsentJoiner {
    address: PathBuf,
    program: PathBuf,
}

impl AbsentJoiner {
    fn put_before(pair: &Pair) -> Result<AbsentJoiner> {
        let bin = pair.cluster.program_dir();
        let (real, address, program) = (bin.join("real"), bin.join("address"), bin.join("wsrep_sst_rejoin"));
        fs::create_dir(&real)?;
        fs::copy(bin.join("rejoin"), real.join("rejoin"))?;
        symlink("rejoin", real.join("wsrep_sst_rejoin"))?;
        fs::remove_file(&program)?;
        let (secret, at, real) = ("A".repeat(43), address.display(), real.display());
        let script = format!(
            "#!/bin/sh\ncase \" $* \" in *' --role joiner '*)\n  echo \"ready rejoin:{secret}.{secret}@$(cat {at})/rejoin/1\"\n  \
             exec sleep 60;;\nesac\nPATH={real}:$PATH exec wsrep_sst_rejoin \"$@\"\n"
        );
        fs::write(&program, script)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        Ok(AbsentJoiner { address, program })
    }

    fn is_at(&self, address: &str) -> Result<()> {
        fs::write(&self.address, address)?;
        Ok(fs::set_permissions(&self.address, fs::Permissions::from_mode(0o644))?)
    }

    fn comes_back(&self) -> Result<()> {
        fs::remove_file(&self.program)?;
        Ok(symlink("rejoin", &self.program)?)
    }
}

/// The donor's program is dialling.
fn wait_for_the_donors_program(pair: &Pair) -> Result<()> {
    until("the donor's program runs", SOON, || Ok(!program(pair.donor()).is_empty()))
}

fn a_joiner_that_refuses(pair: &Pair, joiner: &AbsentJoiner) -> Result<()> {
    let nobody = TcpListener::bind("127.0.0.1:0")?;
    let address = nobody.local_addr()?.to_string();
    drop(nobody);
    joiner.is_at(&address)?;
    pair.joiner().begin(&[])?;
    wait_for_the_donors_program(pair)?;
    let began = Instant::now();
    until("the donor's program ends", SOON, || Ok(program(pair.donor()).is_empty()))?;
    let took = began.elapsed();
    ensure!(took < Duration::from_secs(10), "a refusal was final after {took:?}");
    pair.reason_in_both_logs(
        pair.donor(),
        "donor",
        &format!("the joiner at {address} is gone: it has refused"),
    )?;
    pair.joiner().kill();
    // The group waits some seconds for a member that was killed.
    until("the group gave the joiner up", SOON, || Ok(pair.donor().status("wsrep_cluster_size")? == "1"))?;
    pair.donor_is_released()
}

fn a_donor_that_is_stopped_while_it_dials(pair: &Pair, joiner: &AbsentJoiner) -> Result<()> {
    // It accepts connections and sends nothing.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    joiner.is_at(&silent.local_addr()?.to_string())?;
    pair.joiner().begin(&[])?;
    wait_for_the_donors_program(pair)?;
    // Through its start: it watches the server by then.
    std::thread::sleep(Duration::from_secs(1));
    stops_in_order(pair, || pair.joiner().kill())?;
    start_donor_again(pair)
}

fn start_donor_again(pair: &Pair) -> Result<()> {
    let grastate = pair.donor().datadir().join("grastate.dat");
    let text = fs::read_to_string(&grastate)?.replace("safe_to_bootstrap: 0", "safe_to_bootstrap: 1");
    fs::write(grastate, text)?;
    pair.donor().bootstrap()?;
    pair.donor_is_released()
}

fn a_donor_that_is_stopped_in_a_transfer(pair: &mut Pair) -> Result<()> {
    pair.begin_slowly()?;
    stops_in_order(pair, || ())?;
    until("the joiner's program ends", SOON, || Ok(program(pair.joiner()).is_empty()))?;
    pair.joiners_server_ended()?;
    pair.reason_in_both_logs(pair.joiner(), "joiner", "the donor gave up: the donor's server (process ")?;
    start_donor_again(pair)
}

/// The donor's program ends as soon as its server begins to, and the server ends as if there had been none. It waits for
/// the joiner's end of the IST, so `then` must end a joiner that goes on.
fn stops_in_order(pair: &Pair, then: impl FnOnce()) -> Result<()> {
    let told = Instant::now();
    pair.donor().terminate();
    until("the donor's program ends", SOON, || Ok(program(pair.donor()).is_empty()))?;
    let took = told.elapsed();
    ensure!(took < Duration::from_secs(5), "the program ended {took:?} after its server was told to");
    then();
    let status = pair.donor().wait_exit(Duration::from_secs(60)).context("the server does not end")?;
    ensure!(status.success(), "the server ended with {status}\n{}", words_of(pair.donor()));
    let log = pair.donor().log_text();
    ensure!(
        log.contains("received a signal to stop") || log.contains("is shutting down"),
        "no reason in the error log:\n{}",
        words_of(pair.donor())
    );
    Ok(())
}

/// What a node has that is cut off is no state of the cluster.
fn a_donor_outside_the_primary_component(pair: &mut Pair) -> Result<()> {
    let set = |options: &str| pair.donor().exec(&[&format!("SET GLOBAL wsrep_provider_options='{options}'")]);
    // The lab's first node has weight 2, and would be a majority alone.
    set("pc.weight=1")?;
    pair.begin(&["rlimit=60k", "compress=none", "snapshot=online"])?;
    let set = |options: &str| pair.donor().exec(&[&format!("SET GLOBAL wsrep_provider_options='{options}'")]);
    until("the donor's program runs", SOON, || Ok(!program(pair.donor()).is_empty()))?;
    set("gmcast.isolate=1")?;
    let cut = || Ok(pair.donor().status("wsrep_cluster_status")? != "Primary");
    until("the donor is outside the primary component", Duration::from_secs(60), cut)?;
    until("the donor's program ends", Duration::from_secs(90), || Ok(program(pair.donor()).is_empty()))?;
    let reason = "this donor cannot send its data: the donor's server is outside the primary component";
    pair.reason_in_both_logs(pair.donor(), "donor", reason)?;
    until("the joiner's program ends", SOON, || Ok(program(pair.joiner()).is_empty()))?;
    pair.reason_in_both_logs(pair.joiner(), "joiner", reason)?;
    pair.joiners_server_ended()
}
