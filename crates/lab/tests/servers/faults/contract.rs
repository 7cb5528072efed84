//! What a server and the program say to each other, with a fake parent that calls as recorded from real servers.
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regex_lite::Regex;

use super::fake::{Call, Ended};
use super::fake_transfer::{Fakes, SOON, UUID};
use super::manifest::Manifest;
use super::pair::set_sst;

#[test]
fn a_bypass_is_answered_before_anything_is_looked_at() -> Result<()> {
    let fakes = Fakes::new()?;
    for node in [fakes.donor(), fakes.joiner()] {
        let database = node.datadir().join("many");
        fs::create_dir(&database)?;
        (0..20_000).try_for_each(|n| fs::write(database.join(format!("t{n}.frm")), "x"))?;
    }
    let (joiner, auth, address) = fakes.joiner_ready()?;
    let donor = fakes.bypass(&address, &auth)?;
    let donor = donor.end(SOON)?;
    let joiner = joiner.end(SOON)?;
    ensure!(donor.took < Duration::from_secs(1), "a bypass took {:?}\n{}", donor.took, donor.stderr);
    assert_eq!(donor.stdout, [format!("done {UUID}:17 0")]);
    assert_eq!(joiner.stdout[1..], [format!("{UUID}:17 0")]);
    assert_eq!((donor.code, joiner.code), (Some(0), Some(0)));
    fakes.nothing_is_left()?;

    // One log file and one record a run, the last twenty kept.
    for _ in 0..20 {
        let (joiner, auth, address) = fakes.joiner_ready()?;
        fakes.bypass(&address, &auth)?.end(SOON)?;
        joiner.end(SOON)?;
    }
    for (node, role) in [(fakes.donor(), "rejoin-donor-"), (fakes.joiner(), "rejoin-joiner-")] {
        let names = fs::read_dir(node.datadir())?.map(|e| Ok(e?.file_name().to_string_lossy().into_owned()));
        let names: Vec<String> = names.collect::<Result<_>>()?;
        let of_role = |end: &str| names.iter().filter(|n| n.starts_with(role) && n.ends_with(end)).count();
        assert_eq!((of_role(".log"), of_role(".json"), of_role("")), (20, 20, 40), "{names:?}");
    }
    Ok(())
}

#[test]
fn the_lines_of_a_full_transfer() -> Result<()> {
    let fakes = Fakes::with_history()?;
    fs::remove_dir_all(fakes.joiner().datadir())?;
    fs::create_dir(fakes.joiner().datadir())?;
    // Slow enough for a line about progress in between.
    set_sst(fakes.donor(), &["rlimit=4M", "compress=none"])?;
    let line = fakes.joiner_line(&format!("127.0.0.1:{}", fakes.joiner().ports().sst()), 1);
    // As the server does it, with descriptors that are none of the program's business.
    let leaky = format!("exec 7</etc/passwd 8</etc/group; {line}");
    let call = Call::new(leaky, &fakes.joiner().datadir()).env("WSREP_SST_OPT_AUTH", "");
    let mut joiner = call.start()?;
    let (auth, address) = joiner.ready()?;
    the_invitation_fits_the_server(&auth, &address)?;
    let open: Vec<_> = fs::read_dir(format!("/proc/{}/fd", joiner.pid()?))?
        .filter_map(|e| fs::read_link(e.ok()?.path()).ok())
        .collect();
    ensure!(!open.iter().any(|f| f.starts_with("/etc")), "leaked descriptors are open: {open:?}");
    ensure!(fakes.joiner().datadir().join("sst_in_progress").exists());

    let donor = fakes.donor_call(fakes.donor_line(&address, 1, ""), &auth).start()?;
    let donor = fakes.serve(donor)?;
    let joiner = joiner.end(SOON)?;
    assert_eq!((donor.code, joiner.code), (Some(0), Some(0)), "{}", joiner.stderr);
    assert_eq!(shape(&donor), ["flush tables", "total", "complete", "done"]);
    lets_go_once_everything_is_read(&donor)?;
    assert_eq!(shape(&joiner), ["ready", "total", "complete", "final"]);
    assert_eq!(donor.stdout.last(), Some(&format!("done {} 0", fakes.still_at)));
    assert_eq!(joiner.stdout.last(), Some(&format!("{} 0", fakes.still_at)));
    for ended in [&donor, &joiner] {
        progress_grows(ended)?;
        every_line_is_as_operators_know_it(&ended.stderr)?;
    }
    no_secret_anywhere(&fakes, &auth, &[&donor, &joiner])?;
    let (of_donor, of_joiner) = (fakes.donor().datadir(), fakes.joiner().datadir());
    let differences = Manifest::of(&of_donor)?.differences(&Manifest::of(&of_joiner)?);
    let told = |name: &str| not_carried(name) || name == "ibdata1";
    ensure!(differences.iter().all(|name| told(name)), "not the same: {differences:?}");
    only_the_doublewrite_area_differs(&of_donor.join("ibdata1"), &of_joiner.join("ibdata1"))?;
    fakes.nothing_is_left()
}

/// Files of this host alone.
fn not_carried(name: &str) -> bool {
    [".pem", ".err", ".log", ".pid", ".info"].iter().any(|end| name.ends_with(end))
}

/// What the donor's server wrote twice is of no use to another one: two extents of zeros arrive, after the first.
fn only_the_doublewrite_area_differs(donors: &Path, joiners: &Path) -> Result<()> {
    let (donors, joiners) = (fs::read(donors)?, fs::read(joiners)?);
    assert_eq!(donors.len(), joiners.len());
    for (number, (sent, arrived)) in donors.chunks(16384).zip(joiners.chunks(16384)).enumerate() {
        let doublewrite = (64..192).contains(&number);
        ensure!(sent == arrived || doublewrite && arrived.iter().all(|b| *b == 0), "page {number}");
    }
    Ok(())
}

/// `continue` comes once, after the request that it ends and before the final line. Where it stands among lines about
/// progress depends on the time, for these come from another thread.
fn lets_go_once_everything_is_read(donor: &Ended) -> Result<()> {
    let at = |wanted: &str| -> Vec<usize> {
        let lines = donor.stdout.iter().enumerate();
        lines.filter(|(_, line)| line.starts_with(wanted)).map(|(at, _)| at).collect()
    };
    let (asked, let_go, done) = (at("flush tables"), at("continue"), at("done "));
    ensure!(asked.len() == 1 && let_go.len() == 1 && done.len() == 1, "{:?}", donor.stdout);
    ensure!(asked < let_go && let_go < done && done[0] + 1 == donor.stdout.len(), "{:?}", donor.stdout);
    Ok(())
}

/// The words that lines begin with but `continue`, repeated ones once. How often progress is told depends on the time.
fn shape(ended: &Ended) -> Vec<&str> {
    let mut words: Vec<&str> = ended
        .stdout
        .iter()
        .map(|line| match line.split(' ').next().unwrap_or_default() {
            "flush" => "flush tables",
            word if word.contains(':') => "final",
            word => word,
        })
        .filter(|word| *word != "continue")
        .collect();
    words.dedup();
    words
}

fn progress_grows(ended: &Ended) -> Result<()> {
    let numbers = |word: &str| -> Vec<u64> {
        let of_word = ended.stdout.iter().filter_map(|l| l.strip_prefix(word)?.trim().parse().ok());
        of_word.collect()
    };
    let (totals, done) = (numbers("total "), numbers("complete "));
    ensure!(totals.len() == 1, "one stage, one total: {totals:?}");
    ensure!(done.windows(2).all(|w| w[0] < w[1]), "not growing: {done:?}");
    ensure!(!done.is_empty() && done.last() <= totals.first(), "{done:?} of {totals:?}");
    Ok(())
}

fn the_invitation_fits_the_server(auth: &str, address: &str) -> Result<()> {
    let (user, password) = auth.split_once(':').context("AUTH is user:password")?;
    // What 10.11.19 accepts from a joiner; anything else cancels the SST.
    let fits = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    ensure!(fits(user) && fits(password), "{auth}");
    ensure!(address.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:[]/-".contains(&b)), "{address}");
    ensure!("ready ".len() + auth.len() + 1 + address.len() < 504);
    Ok(())
}

fn every_line_is_as_operators_know_it(stderr: &str) -> Result<()> {
    let line = Regex::new(r"^WSREP_SST: \[(INFO|WARNING|ERROR)\] .+ \(\d{8} \d\d:\d\d:\d\d\.\d{3}\)$")?;
    let odd: Vec<&str> = stderr.lines().filter(|l| !line.is_match(l)).collect();
    ensure!(odd.is_empty() && !stderr.is_empty(), "not lines of a log: {odd:?}");
    Ok(())
}

fn no_secret_anywhere(fakes: &Fakes, auth: &str, ended: &[&Ended]) -> Result<()> {
    let secret = auth.split([':', '.']).nth(1).context("AUTH")?;
    ensure!(secret.len() == 43, "{auth}");
    ensure!(ended.iter().all(|e| !e.stderr.contains(secret)), "the secret is in an error log");
    for node in [fakes.donor(), fakes.joiner()] {
        for entry in fs::read_dir(node.datadir())? {
            let path = entry?.path();
            let text = path.is_file().then(|| fs::read(&path)).transpose()?.unwrap_or_default();
            let found = text.windows(secret.len()).any(|w| w == secret.as_bytes());
            ensure!(!found, "the secret is in {}", path.display());
        }
    }
    Ok(())
}

/// Words in another order, words of other versions, words nobody knows; `--mysqld-args` always ends the line.
#[test]
fn arguments_in_any_order_and_of_any_version() -> Result<()> {
    let fakes = Fakes::new()?;
    let port = fakes.joiner().ports().sst();
    let (data, options) = (fakes.joiner().datadir(), fakes.joiner().option_file());
    let (data, options) = (data.display().to_string(), options.display().to_string());
    let parent = std::process::id();
    let joiners = [
        format!(
            "--parent {parent} --progress 0 --defaults-file '{options}' --datadir '{data}/' --address '127.0.0.1:{port}' --role 'joiner'"
        ),
        format!(
            "--binlog 'mybin' --binlog-index 'x.index' --role=joiner --from-the-future 7 --datadir='{data}/' --later --address='127.0.0.1:{port}' --parent {parent} --progress 0"
        ),
        format!(
            "--host 127.0.0.1 --port 3306 --user u --password p --auth 'u:p' --role 'joiner' --address '127.0.0.1:{port}' --datadir '{data}/' --defaults-group-suffix '.1' --parent {parent}"
        ),
    ];
    let (of_donor, socket) = (fakes.donor().datadir(), fakes.donor().socket());
    let (of_donor, socket) = (of_donor.display(), socket.display());
    let donor_tail = "--mysqld-args --wsrep-new-cluster \"--role=joiner\" --bypass";
    let donors = |address: &str, n: usize| match n {
        0 => format!(
            "--bypass --gtid-domain-id 0 --gtid '{UUID}:17' --datadir '{of_donor}/' --progress 0 --socket '{socket}' --local-port 3410 --address '{address}' --role 'donor'"
        ),
        1 => format!(
            "--unknown --role 'donor' --address '{address}' --local-port 3410 --socket '{socket}' --progress 0 --datadir '{of_donor}/' --gtid '{UUID}:17' --gtid-domain-id 0 --binlog 'mybin' --bypass {donor_tail}"
        ),
        _ => format!(
            "--auth 'u:p' --user u --password p --host localhost --port 3306 --bypass --address '{address}' --role 'donor' --datadir '{of_donor}/' --gtid '{UUID}:17' --gtid-domain-id 0"
        ),
    };
    for (n, joiner) in joiners.iter().enumerate() {
        let line =
            format!("wsrep_sst_rejoin {joiner} --mysqld-args --defaults-file={options} --wsrep-new-cluster");
        let mut run = Call::new(line, &fakes.joiner().datadir()).env("WSREP_SST_OPT_AUTH", "").start()?;
        let (auth, address) = run.ready().with_context(|| joiner.clone())?;
        let line = format!("wsrep_sst_rejoin {}", donors(&address, n));
        let donor = match n {
            // 11.x: no environment, the credentials come on a pipe.
            1 => {
                let (user, password) = auth.split_once(':').context("AUTH")?;
                let words = format!(
                    "sst_user=local\nsst_password=x\nsst_remote_user={user}\nsst_remote_password={password}\n"
                );
                Call::new(line, &fakes.donor().datadir()).stdin(&words)
            }
            _ => fakes.donor_call(line, &auth),
        };
        let donor = donor.start()?.end(SOON)?;
        let joiner = run.end(SOON)?;
        assert_eq!(donor.stdout, [format!("done {UUID}:17 0")], "{}", donor.stderr);
        assert_eq!(joiner.stdout[1..], [format!("{UUID}:17 0")], "{}", joiner.stderr);
        ensure!(donor.took < Duration::from_secs(2), "{:?}", donor.took);
    }
    Ok(())
}
