//! The server's version. The server does not pass it to its script, so rejoin runs the server's program.
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::command_line::{command_line, server_word};
use super::parent::ServerProcess;

/// Returns the version text, for example `10.11.19-MariaDB-0+deb12u1`, or `None` if the program does not
/// print one.
pub fn server_version(server: Option<ServerProcess>) -> Option<String> {
    let pid = server?.pid;
    // The running image comes first, because an upgrade may have replaced the file of that name. We cannot
    // read it if the server changed its user after the start.
    let image = PathBuf::from(format!("/proc/{pid}/exe"));
    ask(Command::new(image)).or_else(|| ask_by_words(&command_line(pid)))
}

/// Returns the version text of a server program that is not running.
pub fn of_program(path: &Path) -> Option<String> {
    ask(Command::new(path))
}

/// The words with which our server's program can be run: itself, or the loader through which it runs and it.
pub fn words_of_program(server: Option<ServerProcess>) -> Option<Vec<String>> {
    let pid = server?.pid;
    let image = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let image = image.and_then(|image| image.to_str().map(str::to_owned));
    if let Some(path) =
        image.filter(|path| server_word(std::slice::from_ref(path)).is_some() && Path::new(path).is_file())
    {
        return Some(vec![path]);
    }
    let mut words = command_line(pid);
    let at = server_word(&words)?;
    words.truncate(at + 1);
    Some(words)
}

/// Runs the program named in a command line. If a server runs through its own loader (`ld.so --library-path P
/// mariadbd ...`), that is the first argument that has a server's name.
fn ask_by_words(words: &[String]) -> Option<String> {
    let at = server_word(words)?;
    let mut command = Command::new(words.first()?);
    command.args(words.get(1..=at).unwrap_or_default());
    ask(command)
}

fn ask(mut command: Command) -> Option<String> {
    let output = command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// Takes the word after `Ver` of a server's `--version` line.
fn parse(line: &str) -> Option<String> {
    let mut words = line.split_whitespace().skip_while(|w| *w != "Ver");
    words.next()?;
    let version = words.next()?;
    version.starts_with(|c: char| c.is_ascii_digit()).then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_servers_own_line() {
        let line = "mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64 (Debian 12)";
        assert_eq!(parse(line).as_deref(), Some("10.11.19-MariaDB-0+deb12u1"));
        assert_eq!(parse("ld.so (Debian GLIBC 2.36-9) stable release version 2.36."), None);
    }
}
