//! Which server this is. The server does not tell its script, so its own program is asked.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::parent::ServerProcess;

/// The version text, for example `10.11.19-MariaDB-0+deb12u1`; `None` when the program does not tell.
pub fn server_version(server: Option<ServerProcess>) -> Option<String> {
    let pid = server?.pid;
    // The running image first: the file of that name may have been replaced by an upgrade. It is not
    // readable for us when the server changed its user after the start.
    let image = PathBuf::from(format!("/proc/{pid}/exe"));
    let command_line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<String> =
        command_line.split(|&b| b == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
    ask(Command::new(image)).or_else(|| ask_by_words(&words))
}

/// The version text of a server program that does not run.
pub fn of_program(path: &Path) -> Option<String> {
    ask(Command::new(path))
}

/// Runs the program named in a command line. A server run through its own loader
/// (`ld.so --library-path P mariadbd ...`) is the first word that has a server's name.
fn ask_by_words(words: &[String]) -> Option<String> {
    let at = words.iter().position(|w| {
        let name = w.rsplit('/').next().unwrap_or("");
        matches!(name, "mariadbd" | "mysqld")
    })?;
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
