//! The verbs as an operator types them, where no server is needed: what they refuse, what they say, which options they take.
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const REJOIN: &str = env!("CARGO_BIN_EXE_rejoin");
/// `EINVAL`.
const REFUSED: i32 = 22;
/// `EBUSY`.
const BUSY: i32 = 16;

/// A directory to work in, with an option file that says nothing and a datadir of a server that never ran.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        fs::create_dir(place.at("data")).unwrap();
        fs::create_dir(place.at("other")).unwrap();
        fs::write(place.at("other/letter.txt"), "dear").unwrap();
        fs::write(place.at("data/ibdata1"), "").unwrap();
        fs::write(place.at("my.cnf"), "[mysqld]\n").unwrap();
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn rejoin(&self, verb: &str, datadir: &Path, more: &[&str]) -> Output {
        let mut command = Command::new(REJOIN);
        command.arg(verb).arg("--datadir").arg(datadir).arg("--defaults-file").arg(self.at("my.cnf"));
        command.args(more).output().unwrap()
    }
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_no_datadir_is_refused_and_left_as_it_is() {
    let place = Place::new();
    let other = place.at("other");
    for verb in ["status", "finish", "release", "rollback"] {
        let output = place.rejoin(verb, &other, &[]);
        let text = err(&output);
        assert_eq!(output.status.code(), Some(REFUSED), "{verb}: {text}{}", out(&output));
        assert!(text.contains("other is not a MariaDB data directory (hint: "), "{verb}: {text}");
        let output = place.rejoin(verb, &place.at("nowhere"), &[]);
        assert_ne!(output.status.code(), Some(0), "{verb}: {}", out(&output));
        assert!(err(&output).contains("nowhere"), "{verb}: {}", err(&output));
    }
    assert_eq!(names(&other), ["letter.txt"]);

    let output = place.rejoin("check", &other, &[]);
    let text = out(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    let about: Vec<&str> = text.lines().filter(|line| line.contains("/other")).collect();
    assert_eq!(about.len(), 1, "{text}");
    assert!(about[0].starts_with("error    directory") && !text.contains("chown"), "{text}");
}

#[test]
fn what_cannot_be_read_is_refused() {
    let place = Place::new();
    let shut = place.at("data");
    // Root becomes the owner first: this is nobody's then.
    let root = rustix_is_root();
    if root {
        fs::set_permissions(place.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(&shut, Some(65534), Some(65534)).unwrap();
    }
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o000)).unwrap();
    for verb in ["status", "finish", "release", "rollback"] {
        let output = place.rejoin(verb, &shut, &[]);
        assert_eq!(output.status.code(), Some(REFUSED), "{verb}: {}{}", err(&output), out(&output));
        assert!(err(&output).contains("cannot be read: Permission denied"), "{verb}: {}", err(&output));
    }
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o700)).unwrap();
}

fn rustix_is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
}

#[test]
fn release_says_what_it_removed() {
    let place = Place::new();
    let data = place.at("data");
    assert!(out(&place.rejoin("release", &data, &[])).starts_with("nothing to remove in "));
    fs::create_dir(data.join("#sql-rejoin")).unwrap();
    fs::create_dir_all(data.join(".rejoin/stage")).unwrap();
    for number in 1..=2 {
        fs::write(data.join(format!(".rejoin/stage/{number}-x")), vec![7; 1 << 20]).unwrap();
    }
    let output = place.rejoin("release", &data, &[]);
    assert!(out(&output).starts_with("removed 2 files, 2.0 MiB, from "), "{}{}", out(&output), err(&output));
    assert!(!data.join(".rejoin").exists());
    let json = out(&place.rejoin("release", &data, &["--json"]));
    assert!(json.contains("\"removed_files\": 0"), "{json}");
}

#[test]
fn verbs_agree_on_their_options() {
    let place = Place::new();
    let data = place.at("data");
    let finish = place.rejoin("finish", &data, &["--json"]);
    assert!(out(&finish).contains("\"found\": \"nothing\""), "{}{}", out(&finish), err(&finish));
    let quiet = place.rejoin("finish", &data, &["-q"]);
    assert_eq!((out(&quiet).as_str(), quiet.status.code()), ("", Some(0)), "{}", err(&quiet));
    assert!(out(&place.rejoin("status", &data, &[])).contains("no transfer is recorded in "));

    // The datadir of the option file is as good as one on the command line.
    fs::write(place.at("my.cnf"), format!("[mysqld]\ndatadir={}\n", data.display())).unwrap();
    for verb in ["status", "finish", "release"] {
        let output =
            Command::new(REJOIN).arg(verb).arg("--defaults-file").arg(place.at("my.cnf")).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{verb}: {}", err(&output));
        assert!(out(&output).contains(data.to_str().unwrap()), "{verb}: {}", out(&output));
    }
    // So is gcache.dir.
    let ring = place.at("ring");
    fs::write(
        place.at("my.cnf"),
        format!("[mysqld]\nwsrep_provider_options=gcache.dir={}\n", ring.display()),
    )
    .unwrap();
    let gcache = place.rejoin("gcache", &data, &[]);
    assert!(err(&gcache).contains("ring"), "{}{}", err(&gcache), out(&gcache));
    for (verb, options) in [
        ("check", ["--datadir", "--defaults-file", "--json", "-q"].as_slice()),
        ("plan", &["--datadir", "--defaults-file", "--json", "-q"]),
        ("verify", &["--datadir", "--defaults-file", "--json", "-q"]),
        ("status", &["--datadir", "--defaults-file", "--json"]),
        ("gcache", &["--datadir", "--defaults-file", "--json"]),
        ("finish", &["--datadir", "--defaults-file", "--json", "-q"]),
        ("release", &["--datadir", "--defaults-file", "--json", "-q"]),
        ("rollback", &["--datadir", "--defaults-file", "--json", "-q"]),
        ("set", &["--datadir", "--defaults-file", "--json", "-q"]),
        ("fingerprint", &["--datadir", "--defaults-file", "--json", "-q"]),
    ] {
        let help = out(&Command::new(REJOIN).args([verb, "-h"]).output().unwrap());
        for option in options {
            assert!(help.contains(option), "rejoin {verb} has no {option}: {help}");
        }
    }
}

#[test]
fn help_says_the_exit_codes_that_the_program_has() {
    let help = |verb: &str| {
        let text = out(&Command::new(REJOIN).args([verb, "--help"]).output().unwrap());
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let verify = help("verify");
    assert!(verify.contains("2 invalid command line"), "{verify}");
    assert!(verify.contains("4 corrupt") && !verify.contains("2 corrupt"), "{verify}");
    let bad = Command::new(REJOIN).args(["verify", "--nonsense"]).output().unwrap();
    assert_eq!(bad.status.code(), Some(2));
    assert!(help("plan").contains("3 not known"), "{}", help("plan"));
}

#[test]
fn metrics_are_printed_or_written_and_a_probe_answers_by_its_exit_code() {
    let place = Place::new();
    let data = place.at("data");
    let probe = |more: &[&str]| place.rejoin("status", &data, &[&["--probe"], more].concat()).status.code();
    assert_eq!(probe(&[]), Some(3), "no transfer");
    let empty = place.rejoin("metrics", &data, &[]);
    assert_eq!(out(&empty).lines().last(), Some("rejoin_previous_state_bytes 0"), "{}", err(&empty));
    assert!(err(&empty).contains("no metrics of the write-set cache"), "{}", err(&empty));
    let status = |role: &str| {
        let status = format!(
            r#"{{"role":"{role}","phase":"sending","read_bytes":7,"elapsed_ms":9000,"outcome":"ok",
                "failures":{{"donor":2}},"totals":{{"donor":{{"sent_bytes":11}}}}}}"#
        );
        fs::write(data.join("rejoin-status.json"), status).unwrap();
    };
    status("donor");
    let dir = place.at("prom");
    let textfile = ["--textfile", dir.to_str().unwrap()];
    assert_ne!(place.rejoin("metrics", &data, &textfile).status.code(), Some(0), "no such directory");
    fs::create_dir(&dir).unwrap();
    let written = place.rejoin("metrics", &data, &textfile);
    assert_eq!((written.status.code(), out(&written).as_str()), (Some(0), ""), "{}", err(&written));
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    let text = read("rejoin_donor.prom");
    for line in [
        "rejoin_transfer_running{role=\"donor\"} 0",
        "rejoin_transfer_success{role=\"donor\"} 1",
        "rejoin_transfer_read_bytes{role=\"donor\"} 7",
        "rejoin_transfer_bytes_total{role=\"donor\",kind=\"sent\"} 11",
        "rejoin_transfer_duration_seconds{role=\"donor\"} 9",
    ] {
        assert!(text.lines().any(|l| l == line), "{line:?} is not in\n{text}");
    }
    // Each series is in one file: a role has the one that its transfers write too.
    let files = ["rejoin_donor.prom", "rejoin_joiner.prom", "rejoin_node.prom"];
    assert_eq!(names(&dir), files);
    let all = files.map(read).concat();
    let series = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
    };
    let mut keys = series(&all);
    let before = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), before, "a series is there twice:\n{all}");
    assert!(all.contains("rejoin_transfer_consecutive_failures{role=\"donor\"} 2"), "{all}");
    let printed = place.rejoin("metrics", &data, &[]);
    assert_eq!(series(&out(&printed)).len() + 1, before, "the joiner that never ran is in its file only");

    // What the other role's last transfer said stays, and what a killed program said does not.
    status("joiner");
    assert!(place.rejoin("metrics", &data, &textfile).status.success());
    assert!(
        read("rejoin_donor.prom").contains("_read_bytes{role=\"donor\"} 7"),
        "{}",
        read("rejoin_donor.prom")
    );
    assert!(read("rejoin_joiner.prom").contains("rejoin_transfer_success{role=\"joiner\"} 1"));
    fs::write(dir.join("rejoin_donor.prom"), "rejoin_transfer_running{role=\"donor\"} 1\n").unwrap();
    assert!(place.rejoin("metrics", &data, &textfile).status.success());
    assert!(read("rejoin_donor.prom").contains("rejoin_transfer_running{role=\"donor\"} 0"));
    assert_eq!(probe(&[]), Some(3), "it has ended");
}

#[test]
fn help_fits_a_terminal_of_80_columns() {
    for verb in [
        "",
        "rollback",
        "finish",
        "release",
        "status",
        "check",
        "plan",
        "verify",
        "gcache",
        "archive",
        "metrics",
        "set",
        "serve",
        "report",
        "copy-to",
        "fingerprint",
    ] {
        for form in ["-h", "--help"] {
            let words = [verb, form].into_iter().filter(|word| !word.is_empty());
            let help = out(&Command::new(REJOIN).args(words).output().unwrap());
            for line in help.lines() {
                assert!(line.chars().count() <= 80, "rejoin {verb} {form}: {line}");
            }
        }
    }
}

#[test]
fn the_servers_name_for_the_program_says_what_it_is() {
    let place = Place::new();
    let program = place.at("wsrep_sst_rejoin");
    symlink(REJOIN, &program).unwrap();
    let run =
        |words: &[&str]| Command::new(&program).args(words).current_dir(place.0.path()).output().unwrap();
    for (words, code) in [(&["--help"][..], 0), (&["-h"], 0), (&[], REFUSED)] {
        let output = run(words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", err(&output));
        assert!(out(&output).contains("wsrep_sst_method = rejoin"), "{words:?}: {}", out(&output));
    }
    let version = out(&run(&["--version"]));
    assert!(version.starts_with(&format!("rejoin {}", env!("CARGO_PKG_VERSION"))), "{version}");
}

#[test]
fn limits_are_set_of_a_running_donor_only() {
    let place = Place::new();
    let data = place.at("data");
    let refused = |words: &[&str], code: i32, why: &str| {
        let output = place.rejoin("set", &data, words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", err(&output));
        assert!(err(&output).contains(why), "{words:?}: {}", err(&output));
        assert!(!data.join("rejoin-set.json").exists());
    };
    let no_transfer = format!("no state transfer runs on {}", data.display());
    refused(&["rlimit=50M"], BUSY, &no_transfer);
    // One that has ended, and one whose process is something else by now.
    for outcome in ["\"ok\"", "null"] {
        let pid = std::process::id();
        let status = format!(r#"{{"role":"donor","phase":"sending","pid":{pid},"outcome":{outcome}}}"#);
        fs::write(data.join("rejoin-status.json"), status).unwrap();
        refused(&["rlimit=50M"], BUSY, &no_transfer);
    }
    refused(&["rlimit=fast"], REFUSED, "rlimit=\"fast\" is not a size");
    refused(&["rlimit=1M", "adaptive-throttle=maybe"], REFUSED, "is not a switch");
    refused(&["threads=2"], REFUSED, "what can be changed: rlimit and adaptive-throttle");
    refused(&["rlimit"], REFUSED, "no NAME=VALUE");
    refused(&[], 2, "NAME=VALUE");
    refused(&vec!["rlimit=1M"; 17], REFUSED, "more than 16 changes");
}
