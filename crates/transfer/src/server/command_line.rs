//! The arguments with which a process was started, and where a server's program is among them.
use std::fs;

/// The arguments with which a process was started. Every user may read them.
pub(super) fn command_line(pid: u32) -> Vec<String> {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    words.split(|&b| b == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect()
}

/// The arguments of a server's program that runs; none if that is no server.
pub(crate) fn arguments_of_server(pid: u32) -> Option<Vec<String>> {
    let mut words = command_line(pid);
    let arguments = words.split_off(server_word(&words)? + 1);
    Some(arguments.into_iter().filter(|word| !word.is_empty()).collect())
}

/// Returns the position of the server's program in a command line: the first argument, or a later one if a
/// loader or a debugger runs it. The argument of a shell's `-c` is not a program.
pub(super) fn server_word(words: &[String]) -> Option<usize> {
    let is_server = |word: &String| {
        let name = word.rsplit('/').next().unwrap_or("");
        matches!(name, "mariadbd" | "mysqld")
    };
    words.iter().take_while(|word| *word != "-c").position(is_server)
}
