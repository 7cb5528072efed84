//! A parent that starts the program as a server does, and reads what it says: no server has a part in it.
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rejoin_lab::places::User;
use rejoin_lab::{places, process};
use rustix::process::{Pid, Signal, kill_process_group};

/// A directory with the program under the name the server looks for; a build's, since a static is never dropped.
fn program_dir() -> Result<PathBuf> {
    use std::sync::OnceLock;
    static DIR: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let make = || -> Result<PathBuf> {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("program");
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path)?;
        fs::copy(places::rejoin_binary()?, path.join("rejoin"))?;
        std::os::unix::fs::symlink("rejoin", path.join("wsrep_sst_rejoin"))?;
        Ok(path)
    };
    DIR.get_or_init(|| make().map_err(|e| format!("{e:#}"))).clone().map_err(anyhow::Error::msg)
}

/// How the program is called.
pub struct Call {
    line: String,
    datadir: PathBuf,
    env: Vec<(String, String)>,
    stdin: Option<String>,
    user: Option<User>,
    server: Option<PathBuf>,
}

impl Call {
    /// `line` is what the server gives to `sh -c`.
    pub fn new(line: String, datadir: &Path) -> Call {
        Call { line, datadir: datadir.to_owned(), env: vec![], stdin: None, user: None, server: None }
    }

    pub fn env(mut self, name: &str, value: &str) -> Call {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// As 11.x servers give credentials: a pipe that is written and closed.
    pub fn stdin(mut self, text: &str) -> Call {
        self.stdin = Some(text.to_owned());
        self
    }

    /// As this user instead of ours.
    pub fn user(self, user: Option<User>) -> Call {
        Call { user, ..self }
    }

    /// What the parent says its program is; the machine's own server by default. Without a server of a known version
    /// nothing is sent that depends on it.
    pub fn server(self, program: &Path) -> Call {
        Call { server: Some(program.to_owned()), ..self }
    }

    pub fn start(self) -> Result<Run> {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = as_server(&self.server.clone().map_or_else(places::server, Ok)?, "sh");
        // The server's umask; its descriptors leak.
        let leaky = format!("umask 0006; {}", self.line);
        let switched = self.user.map(|user| user.command("sh"));
        let words: Vec<String> = switched
            .iter()
            .flat_map(|command| {
                let words = [command.get_program()].into_iter().chain(command.get_args());
                words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>()
            })
            .collect();
        match words.is_empty() {
            // The shell stays, since it is taken for the server.
            true => command.args(["-c", &format!("{leaky}; exit $?")]),
            false => command.args(["-c", "\"$@\"; exit $?", "sh"]).args(words).args(["-c", &leaky]),
        };
        command.current_dir(&self.datadir).process_group(0);
        command.env("PATH", format!("{}:{path}", program_dir()?.display()));
        command.env_remove("WSREP_SST_OPT_AUTH").env_remove("WSREP_SST_OPT_REMOTE_AUTH");
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        command.stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let began = Instant::now();
        let mut child = process::spawn(command)?;
        if let Some(text) = self.stdin {
            std::io::Write::write_all(&mut child.stdin.take().context("stdin")?, text.as_bytes())?;
        }
        let out = child.stdout.take().context("stdout")?;
        let mut err = child.stderr.take().context("stderr")?;
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let stderr = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = err.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        Ok(Run { child, lines, said: vec![], stderr: Some(stderr), datadir: self.datadir, began })
    }
}

/// A process that is taken for a server: `program` is the first word of its command line.
pub fn as_server(server: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    command.arg0(server);
    command
}

/// A run of the program.
pub struct Run {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
    stderr: Option<JoinHandle<String>>,
    datadir: PathBuf,
    pub began: Instant,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: Vec<String>,
    pub stderr: String,
    pub took: Duration,
}

impl Run {
    /// The next line on stdout.
    pub fn line(&mut self, patience: Duration) -> Result<String> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => {
                self.said.push(line.clone());
                Ok(line)
            }
            Err(RecvTimeoutError::Timeout) => bail!("no line within {patience:?} after {:?}", self.said),
            Err(RecvTimeoutError::Disconnected) => {
                let stderr = self.stderr.take().map(|t| t.join().unwrap_or_default());
                bail!("stdout ended after {:?}\n{}", self.said, stderr.unwrap_or_default())
            }
        }
    }

    /// What follows `ready `: the invitation (the part before the last `@`) and the address.
    pub fn ready(&mut self) -> Result<(String, String)> {
        let line = self.line(Duration::from_secs(20))?;
        let text = line.strip_prefix("ready ").with_context(|| format!("not ready: {line}"))?;
        let (auth, address) = text.rsplit_once('@').context("no AUTH in the ready line")?;
        Ok((auth.to_owned(), address.to_owned()))
    }

    /// The program's own process id, as operators find it.
    pub fn pid(&self) -> Result<u32> {
        let text = fs::read_to_string(self.datadir.join("wsrep_sst.pid")).context("wsrep_sst.pid")?;
        text.trim().parse().context("wsrep_sst.pid")
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        process::signal(self.pid()?, signal);
        Ok(())
    }

    /// Waits for the end.
    pub fn end(mut self, patience: Duration) -> Result<Ended> {
        let status = process::wait(&mut self.child, patience)?;
        let took = self.began.elapsed();
        let status = status.with_context(|| format!("no end within {patience:?} after {:?}", self.said))?;
        ensure!(status.signal().is_none(), "{status}");
        let stderr = self.stderr.take().context("asked twice")?.join().unwrap_or_default();
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(5)) {
            self.said.push(line);
        }
        Ok(Ended { code: status.code(), stdout: std::mem::take(&mut self.said), stderr, took })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // The shell leads the group; a program that has ended leaves nothing to kill.
        if let (Ok(None), Some(group)) = (self.child.try_wait(), Pid::from_raw(self.child.id() as i32)) {
            let _ = kill_process_group(group, Signal::KILL);
            let _ = self.child.wait();
        }
    }
}
