//! Accounts the server hands over: in the environment (10.11), on standard input (11.x), or in an option file.
use std::io::Read;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use formats::wsrep::credentials::{Account, DonorStdin};
use formats::wsrep::invocation::SstArgs;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};

use super::options::ServerOptions;

/// Set by a 10.11 server, to an empty text when `wsrep_sst_auth` is not set.
const AUTH: &str = "WSREP_SST_OPT_AUTH";
/// Set by a 10.11 server on the donor: the AUTH part of the joiner's `ready` text.
const REMOTE_AUTH: &str = "WSREP_SST_OPT_REMOTE_AUTH";
/// The server writes its lines at once, so a pipe that is silent for this long is not the server's.
const STDIN_PATIENCE: Duration = Duration::from_secs(3);
/// More than the server ever writes.
const STDIN_BYTES_MAX: u64 = 64 << 10;

/// The accounts that the server passed to us.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// An account on our own server.
    pub local: Option<Account>,
    /// The AUTH part of the joiner's `ready` text (donor only).
    pub remote: Option<Account>,
}

/// Collects them. Standard input is read only where an 11.x server writes to it: in the donor's program, when
/// the environment variable of older servers is absent and standard input is a pipe.
pub fn collect(args: &SstArgs, options: &ServerOptions, donor: bool) -> Credentials {
    let from_env = |name| std::env::var(name).ok().and_then(|text| Account::from_pair(&text));
    let given = if donor && std::env::var_os(AUTH).is_none() { read_stdin() } else { DonorStdin::default() };
    let from_arguments = || {
        let user = args.user.clone()?;
        Account::from_pair(&format!("{user}:{}", args.password.clone().unwrap_or_default()))
    };
    let own = options.sst("wsrep-sst-auth").and_then(Account::from_pair);
    let local = given
        .local
        .filter(|account| own.is_none() || !is_nobody(account))
        .or_else(|| from_env(AUTH))
        .or_else(|| args.auth.as_deref().and_then(Account::from_pair))
        .or_else(from_arguments)
        .or(own);
    Credentials { local, remote: given.remote.or_else(|| from_env(REMOTE_AUTH)) }
}

/// An 11.8 server makes no account for a method called `rsync` and hands over this name with a password anyway. It is
/// an account only if an operator made one.
fn is_nobody(account: &Account) -> bool {
    account.user == "rsync"
}

fn read_stdin() -> DonorStdin {
    let stdin = std::io::stdin();
    let is_pipe = fstat(&stdin).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Fifo);
    if !is_pipe {
        return DonorStdin::default();
    }
    let began = Instant::now();
    let mut input = Vec::new();
    let mut lock = stdin.lock();
    while began.elapsed() < STDIN_PATIENCE && (input.len() as u64) < STDIN_BYTES_MAX {
        let fd = lock.as_fd();
        let timeout = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => continue,
            Ok(_) => {}
            Err(_) => break,
        }
        let mut part = [0; 4096];
        match lock.read(&mut part) {
            Ok(0) | Err(_) => break,
            Ok(n) => input.extend_from_slice(part.get(..n).unwrap_or_default()),
        }
    }
    DonorStdin::parse(&input)
}
