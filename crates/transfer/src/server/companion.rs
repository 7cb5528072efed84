//! A companion: a process of ours that ends with the server. It outlives the program for whose end the server waits, and is the same
//! executable under a verb that is not meant for operators.
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use formats::wsrep::credentials::Account;
use formats::wsrep::invocation::{Role, SstArgs};

use super::options::ServerOptions;
use super::parent::{self, ServerProcess};
use super::{credentials, synced};
use crate::cancel::Cancel;

/// The command that starts a companion of this server.
///
/// # Errors
/// The server or our own executable is not known.
pub fn command(server: Option<ServerProcess>, verb: &str) -> Result<Command> {
    let program = own_program(std::env::current_exe().context("cannot find our own program")?);
    let server = server.context("our server's process is not known")?;
    let mut command = Command::new(program);
    // Under the server's name for us, the program would start a transfer.
    command.arg0("rejoin").arg(verb).arg(server.pid.to_string()).args(std::env::args_os().skip(1));
    Ok(command)
}

/// A package that is upgraded during the transfer replaces the file we were started from. The kernel still has it, under
/// this name.
fn own_program(started_from: PathBuf) -> PathBuf {
    if started_from.exists() { started_from } else { PathBuf::from("/proc/self/exe") }
}

/// What a companion begins with.
pub struct Companion {
    /// The arguments that the server had given the joiner.
    pub args: SstArgs,
    /// The server's options.
    pub options: ServerOptions,
    /// Ends with the server.
    pub cancel: Cancel,
}

impl Companion {
    /// Begins: `words` are the server's process id and the arguments that the server had given the joiner.
    ///
    /// # Errors
    /// They are others, an option file cannot be read, or the server has ended.
    pub fn begin(words: &[String]) -> Result<Companion> {
        // A separate session: a signal to the server's process group is not meant for us, but we end with the server.
        let _ = rustix::process::setsid();
        let (pid, words) = words.split_first().context("the server's process id is missing")?;
        let server = ServerProcess { pid: pid.parse().context("the server's process id is no number")? };
        let args = SstArgs::parse(words);
        let (options, cancel) = (ServerOptions::load(&args)?, Cancel::new());
        parent::watch(Some(server), Role::Joiner, None, cancel.clone(), || {})?;
        Ok(Companion { args, options, cancel })
    }

    /// The server's socket for clients, and an account there.
    pub fn login(&self, datadir: &Path) -> (PathBuf, Option<Account>) {
        let socket = synced::socket_path(self.options.server("socket"), datadir);
        (socket, credentials::collect(&self.args, &self.options, false).local)
    }
}
