//! In a container the server is process 1: it is found, its version is known, and its end is noticed.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use formats::wsrep::invocation::Role;
use rejoin_transfer::cancel::Cancel;
use rejoin_transfer::server::{parent, version};

/// Set for the process that plays the transfer's program.
const PLAYS: &str = "REJOIN_TEST_PLAYS";

/// What the server's child sees. Run by the test below, in a pid namespace of its own.
#[test]
#[expect(clippy::print_stdout, reason = "the test below reads it")]
fn says_which_server_it_has() {
    if std::env::var_os(PLAYS).is_none() {
        return;
    }
    let server = parent::find_server(None);
    let watched = parent::watch(server, Role::Donor, None, Cancel::new(), || ()).is_ok();
    println!(
        "server {:?} version {:?} watched {watched}",
        server.map(|s| s.pid),
        version::server_version(server)
    );
}

#[test]
fn a_server_that_is_process_1_is_found_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let server = dir.path().join("mariadbd");
    let program = std::env::current_exe().unwrap();
    // As the server does: through a shell, which does not replace itself here.
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 'mariadbd  Ver 11.8.2-MariaDB for Linux' && exit\n\
         sh -c '{}=1 {} --exact says_which_server_it_has --nocapture; true'\n",
        PLAYS,
        program.display()
    );
    fs::write(&server, script).unwrap();
    fs::set_permissions(&server, fs::Permissions::from_mode(0o755)).unwrap();
    let run = |alone: &[&str]| {
        let out =
            Command::new("unshare").args(alone).arg(&server).output().expect("unshare (util-linux) runs");
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
    };
    let root = rustix::process::geteuid().is_root();
    let mut alone = vec!["--pid", "--fork", "--mount-proc"];
    if !root {
        alone.insert(0, "--map-root-user");
    }
    // Where nobody may make a namespace there is none to look at.
    if !Command::new("unshare").args(&alone).arg("true").status().is_ok_and(|status| status.success()) {
        let why = "\nskipped: says_which_server_it_has needs a pid namespace: root with CAP_SYS_ADMIN, or user namespaces\n";
        std::io::Write::write_all(&mut std::io::stderr(), why.as_bytes()).expect("standard error");
        return;
    }
    let said = run(&alone);
    assert!(
        said.contains("server Some(1) version Some(\"11.8.2-MariaDB\") watched true"),
        "(this test needs a pid namespace: as root with CAP_SYS_ADMIN, or where users may make namespaces)\n{said}"
    );
}
