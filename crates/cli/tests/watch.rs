//! `rejoin status --watch`: what follows a transfer on a terminal, and what goes into a pipe.
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const REJOIN: &str = env!("CARGO_BIN_EXE_rejoin");

/// A datadir with a process that has the name and the place of a transfer's program.
struct Transfer {
    dir: TempDir,
    program: Child,
}

impl Transfer {
    fn begin() -> Transfer {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("wsrep_sst_rejoin");
        fs::create_dir(dir.path().join("data")).unwrap();
        fs::write(dir.path().join("data/ibdata1"), "").unwrap();
        fs::write(dir.path().join("my.cnf"), "[mysqld]\n").unwrap();
        // A copy could be busy: another thread of this test may have it open for writing while it starts a program.
        symlink("/bin/sleep", &program).unwrap();
        let data = dir.path().join("data");
        let program = Command::new(program).arg("300").current_dir(data).spawn().unwrap();
        Transfer { dir, program }
    }

    fn says(&self, phase: &str, peer: &str, done_mib: u64, ms: u64) {
        let (done, pid) = (done_mib << 20, self.program.id());
        let status = format!(
            r#"{{"role":"joiner","phase":"{phase}","peer_phase":"{peer}","peer_percent":{},"done_bytes":{done},"total_bytes":94371840,
                "wire_bytes":10485760,"elapsed_ms":{ms},"pid":{pid}}}"#,
            if peer == "sending" { "58" } else { "null" }
        );
        let (new, path) = (self.dir.path().join("data/new"), self.dir.path().join("data/rejoin-status.json"));
        fs::write(&new, status).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// Runs `begin ARGUMENTS`, reports the states of a transfer, and returns what was printed.
    fn watched(mut self, begin: impl Fn(&[String]) -> Command) -> String {
        self.says("receiving", "sending", 45, 3000);
        let (data, options) = (self.dir.path().join("data"), self.dir.path().join("my.cnf"));
        let path = |path: &Path| path.display().to_string();
        let words =
            [REJOIN, "status", "--watch", "--datadir", &path(&data), "--defaults-file", &path(&options)];
        let mut watch =
            begin(&words.map(str::to_owned)).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = watch.stdout.take().unwrap();
        let mut seen = until(&mut stdout, "sending");
        self.says("receiving", "sending", 65, 5000);
        std::thread::sleep(Duration::from_millis(600));
        self.says("verifying the staged files", "waiting for the joiner to store everything", 90, 6000);
        seen += &until(&mut stdout, "store everything");
        self.end();
        stdout.read_to_string(&mut seen).unwrap();
        assert!(watch.wait().unwrap().success(), "{seen}");
        seen
    }

    fn end(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.end();
    }
}

/// Reads until these words have been printed.
fn until(stdout: &mut ChildStdout, words: &str) -> String {
    let (mut seen, mut some, began) = (Vec::new(), [0; 4096], Instant::now());
    loop {
        let text = String::from_utf8_lossy(&seen).into_owned();
        if text.contains(words) {
            return text;
        }
        let read = stdout.read(&mut some).unwrap();
        assert!(read > 0 && began.elapsed() < Duration::from_secs(60), "{words:?} is not in {text:?}");
        seen.extend_from_slice(&some[..read]);
    }
}

#[test]
fn a_pipe_gets_a_line_whenever_a_side_does_something_else() {
    let seen = Transfer::begin().watched(|words| {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    });
    let lines: Vec<&str> = seen.lines().collect();
    let first = "joiner: receiving; donor: sending; 45.0 MiB of 90.0 MiB (50 %); 10.0 MiB on the network; 3.0 s so far";
    assert_eq!(lines[0], first, "{seen}");
    let second = "joiner: verifying the staged files; donor: waiting for the joiner to store everything; 90.0 MiB of 90.0 MiB (100 %); ";
    assert!(lines[1].starts_with(second), "{seen}");
    assert!(lines[2].starts_with("joiner: the program ended unexpectedly"), "{seen}");
    assert!(!seen.contains('\u{1b}') && !seen.contains('\r'), "{seen:?}");
}

#[test]
fn a_terminal_gets_a_bar_of_each_side_with_rate_and_time_left() {
    let seen = Transfer::begin().watched(|words| {
        // `script` gives the program a terminal.
        let mut command = Command::new("script");
        command.args(["-qec", &words.join(" "), "/dev/null"]).env("TERM", "xterm").stdin(Stdio::null());
        command
    });
    assert!(seen.contains("joiner: receiving") && seen.contains("donor: sending"), "{seen:?}");
    let has_bar = |end: &str| seen.lines().any(|line| line.contains('█') && line.contains(end));
    assert!(has_bar("45.00 MiB/90.00 MiB") && has_bar(" 58 %"), "{seen:?}");
    assert!(seen.contains("/s, ") && seen.contains(" left; 10.0 MiB on the network"), "{seen:?}");
    assert!(seen.contains("joiner: verifying the staged files"), "{seen:?}");
    assert!(seen.contains("donor: waiting for the joiner to store everything"), "{seen:?}");
    assert!(seen.contains('\u{1b}') && seen.contains("the program ended unexpectedly"), "{seen:?}");
}
