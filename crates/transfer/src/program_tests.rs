use super::*;
use crate::failure::kind_of;

fn quiet(_: &str) {}

fn program(cancel: &Cancel) -> Program<'_> {
    Program { name: "the program", limit: None, stdin: None, cancel, line: &quiet, pause: None }
}

fn shell(text: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", text]);
    command
}

fn exists(pid: u32) -> bool {
    // A zombie has ended.
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}

#[test]
fn it_succeeds_or_fails_with_its_last_lines() {
    let (cancel, lines) = (Cancel::new(), Mutex::new(Vec::new()));
    let line = |line: &str| lock(&lines).push(line.to_owned());
    let program = Program { line: &line, ..program(&cancel) };
    program.run(&mut shell("echo one; echo two >&2")).unwrap();
    let mut said = std::mem::take(&mut *lock(&lines));
    said.sort();
    assert_eq!(said, ["one", "two"]);

    let error = program.run(&mut shell("for n in 1 2 3 4; do echo line $n >&2; done; exit 3")).unwrap_err();
    assert_eq!(error.to_string(), "the program failed (exit status 3): line 2; line 3; line 4");
    assert_eq!(kind_of(&error), Kind::Server);
    let error = program.run(&mut shell("echo 'Error: No space left on device' >&2; kill -9 $$")).unwrap_err();
    assert!(error.to_string().contains("signal 9"), "{error}");
    assert_eq!(kind_of(&error), Kind::Space);
    let error = program.run(&mut Command::new("/nowhere/at/all")).unwrap_err();
    assert!(error.to_string().contains("cannot run /nowhere/at/all"), "{error}");
}

#[test]
fn its_time_is_limited_and_what_it_started_ends_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let text = format!("trap '' TERM; sleep 600 & echo $! $$ > {}; wait; sleep 600", pids.display());
    let cancel = Cancel::new();
    let limited = Program { limit: Some(Duration::from_secs(1)), ..program(&cancel) };
    let began = Instant::now();
    let error = limited.run(&mut shell(&text)).unwrap_err();
    assert_eq!(kind_of(&error), Kind::Timeout);
    assert!(began.elapsed() < Duration::from_secs(10));
    let pids = std::fs::read_to_string(pids).unwrap();
    // Killed, but the kernel may still be at it.
    let until = Instant::now() + Duration::from_secs(5);
    while pids.split_whitespace().any(|pid| exists(pid.parse().unwrap())) {
        assert!(Instant::now() < until, "{pids}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn cancelling_ends_it_whether_it_is_read_or_not() {
    for read in [true, false] {
        let cancel = Cancel::new();
        let other = cancel.clone();
        let cancels = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            other.cancel(Kind::Stopped, "enough");
        });
        let began = Instant::now();
        let mut command = shell("sleep 600");
        let error = match read {
            false => program(&cancel).run(&mut command).unwrap_err(),
            true => {
                let take = |output: &mut dyn Read| Ok(output.read_to_end(&mut Vec::new())?);
                match program(&cancel).read(&mut command, take).unwrap_err() {
                    Unfinished::Program(error) => error,
                    Unfinished::Taking(error) => panic!("{error:#}"),
                }
            }
        };
        assert_eq!((kind_of(&error), error.to_string()), (Kind::Stopped, "enough".to_owned()));
        assert!(began.elapsed() < Duration::from_secs(10));
        cancels.join().unwrap();
    }
}

#[test]
fn its_output_is_read_and_its_failure_counts_more_than_what_follows_from_it() {
    let cancel = Cancel::new();
    let text = |output: &mut dyn Read| {
        let mut text = String::new();
        output.read_to_string(&mut text)?;
        if text == "whole" { Ok(text) } else { anyhow::bail!("it is cut off") }
    };
    assert_eq!(program(&cancel).read(&mut shell("printf whole"), text).unwrap(), "whole");
    match program(&cancel).read(&mut shell("printf who; echo broken >&2; exit 1"), text) {
        Err(Unfinished::Program(error)) => {
            assert!(error.to_string().ends_with("(exit status 1): broken"), "{error}")
        }
        other => panic!("{other:?}"),
    }
    match program(&cancel).read(&mut shell("printf who"), text) {
        Err(Unfinished::Taking(error)) => assert_eq!(error.to_string(), "it is cut off"),
        other => panic!("{other:?}"),
    }
    // A reader that gives up does not wait for it.
    let began = Instant::now();
    let give_up = |_: &mut dyn Read| -> Result<()> { anyhow::bail!("no") };
    assert!(matches!(program(&cancel).read(&mut shell("sleep 600"), give_up), Err(Unfinished::Taking(_))));
    assert!(began.elapsed() < Duration::from_secs(10));
}

/// A program that leaves a process behind does not keep us.
#[test]
fn an_heir_of_its_output_does_not_keep_us() {
    let (cancel, began) = (Cancel::new(), Instant::now());
    program(&cancel).run(&mut shell("setsid sleep 20 & echo done")).unwrap();
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn what_the_server_hands_over_is_not_passed_on() {
    let handed = ["WSREP_SST_OPT_AUTH", "WSREP_SST_OPT_REMOTE_AUTH", "MYSQL_PWD", "PATH", "HOME", "TZ"];
    assert_eq!(handed.map(is_handed_over), [true, true, true, false, false, false]);
}

/// A server's program that hangs kept `rejoin status --probe`, and with it a liveness probe, waiting for ever.
#[test]
fn a_quiet_question_has_a_limit_too() {
    let long = Duration::from_secs(20);
    assert_eq!(quiet_answer_of(&mut shell("echo a; echo b >&2; exit 3"), long).as_deref(), Some("a\n"));
    assert_eq!(quiet_answer_of(&mut Command::new("/nowhere/at/all"), long), None);
    let began = Instant::now();
    for hangs in ["sleep 600", "echo a; sleep 600", "sleep 600 & sleep 600"] {
        assert_eq!(quiet_answer_of(&mut shell(hangs), Duration::from_millis(300)), None, "{hangs}");
    }
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_question_is_answered_in_time_however_the_program_ends() {
    let cancel = Cancel::new();
    let ask = |text: &str| answer_of("the program", &mut shell(text), &cancel);
    assert_eq!(ask("echo a; echo b; echo c >&2").unwrap(), "a\nb\n\nc\n");
    assert_eq!(ask("echo a; exit 3").unwrap(), "a\n\n");
    assert!(answer_of("the program", &mut Command::new("/nowhere/at/all"), &cancel).is_err());
    // Its output stays open, and it says nothing.
    let limited = Program { limit: Some(Duration::from_secs(1)), ..program(&cancel) };
    let began = Instant::now();
    let silent = limited.read(&mut shell("sleep 600"), |output| Ok(output.read(&mut [0])?));
    assert!(matches!(silent, Err(Unfinished::Taking(error)) if kind_of(&error) == Kind::Timeout));
    assert!(began.elapsed() < Duration::from_secs(10));
    cancel.cancel(Kind::Stopped, "enough");
    let began = Instant::now();
    assert_eq!(kind_of(&ask("sleep 600").unwrap_err()), Kind::Stopped);
    assert!(began.elapsed() < Duration::from_secs(10));
}

/// While it stands still it says nothing, and what it said before was seen.
#[test]
fn it_is_stopped_for_a_while_at_a_line() {
    let (cancel, lines) = (Cancel::new(), Mutex::new(Vec::new()));
    let line = |line: &str| lock(&lines).push(line.to_owned());
    let meanwhile = || {
        let seen = lock(&lines).len();
        std::thread::sleep(Duration::from_millis(300));
        let more = lock(&lines).len() - seen;
        lock(&lines).push(format!("{more} more"));
    };
    let pause = Pause { at: &|line| line.starts_with("locked"), meanwhile: &meanwhile };
    let program = Program { line: &line, pause: Some(pause), ..program(&cancel) };
    let mut text = shell("for n in locked $(seq 1000) locked; do echo $n >&2; done; sleep 1; echo late >&2");
    program.read(&mut text, |output| Ok(output.read_to_end(&mut Vec::new())?)).unwrap();
    let said = std::mem::take(&mut *lock(&lines));
    let stopped: Vec<&String> = said.iter().filter(|line| line.ends_with(" more")).collect();
    assert_eq!(stopped, ["0 more"]);
    assert_eq!((said.len(), said.last().map(String::as_str)), (1004, Some("late")));

    // Cancelled while it stands still, it ends.
    let stops = || cancel.cancel(Kind::Stopped, "enough");
    let pause = Pause { at: &|_| true, meanwhile: &stops };
    let program = Program { pause: Some(pause), limit: Some(Duration::from_secs(60)), ..program };
    let began = Instant::now();
    // While the shell starts the next program it cannot be stopped.
    program.run(&mut shell("echo x >&2; sleep 600")).unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(50));
}
