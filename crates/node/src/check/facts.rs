//! Everything that is judged, as a value: whoever wants to know what a finding depends on reads this file.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use formats::galera::grastate::GraState;

use super::provider_options::{self, ProviderOptions};
use crate::failure::Failure;
use crate::server::options::ServerOptions;
use crate::settings::Settings;
use crate::sink::kept;

/// What is known of a node.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Name of the user this check runs as, and of the one the server runs as where they differ.
    pub user: (String, Option<String>),
    /// The option files.
    pub options: ServerOptions,
    /// `[sst]`, or what is wrong with it.
    pub settings: Result<Settings, String>,
    /// What is wrong with the server's own options: no layout can be told from them.
    pub bad_layout: Option<String>,
    /// The server.
    pub server: Server,
    /// Version text of the server program; of the running one where it tells.
    pub version: Option<String>,
    /// `wsrep_provider`, and why it cannot be loaded.
    pub provider: Option<(PathBuf, Option<String>)>,
    /// What the server would run as its method.
    pub program: Program,
    /// Directories that a transfer writes to.
    pub directories: Vec<Directory>,
    /// Of the datadir's files: one that does not belong to the server's user, and how many do not.
    pub foreign_files: Option<(PathBuf, usize)>,
    /// What earlier transfers left.
    pub left: Left,
    /// Filesystems that a transfer writes to, or why they could not be looked at.
    pub rooms: Result<Vec<Room>, String>,
    /// Of a running node: what of its data cannot be sent, as the donor would refuse it.
    pub cannot_travel: Vec<Failure>,
    /// Of a running node: what a transfer would warn of.
    pub travels_badly: Vec<String>,
    /// What the node announces as its own.
    pub announced: Vec<Announced>,
    /// Ports that must be free.
    pub ports: Vec<Port>,
    /// Members that the configuration names, asked only while the server is down.
    pub neighbours: Vec<Neighbour>,
    /// `grastate.dat`.
    pub grastate: Option<Result<GraState, String>>,
    /// How far in the future the newest of the server's files is, by this host's clock.
    pub from_the_future: Option<Duration>,
}

impl Facts {
    /// Name of the user that the server runs as.
    pub(super) fn server_user(&self) -> &str {
        self.user.1.as_deref().unwrap_or(&self.user.0)
    }
}

impl Facts {
    /// A variable of the running server, else the option in the files. Both by the variable's name.
    pub fn setting(&self, name: &str) -> Option<&str> {
        match &self.server {
            Server::Running(live) => live.variables.get(name).map(String::as_str),
            _ => self.in_files(name),
        }
    }

    /// The option in the files, whatever the running server says: what the next start takes.
    pub fn in_files(&self, name: &str) -> Option<&str> {
        self.options.server(&name.replace('_', "-"))
    }

    /// The running server.
    pub fn live(&self) -> Option<&Live> {
        match &self.server {
            Server::Running(live) => Some(live),
            _ => None,
        }
    }

    /// The provider's options: all of them when it runs, else those that the files set.
    pub fn provider_options(&self) -> ProviderOptions {
        provider_options::parse(self.setting("wsrep_provider_options").unwrap_or_default())
    }
}

/// The node's server.
#[derive(Clone, Debug)]
pub enum Server {
    /// No process has the datadir open.
    Stopped,
    /// A process has it open, and no login worked: why not.
    Silent {
        /// Its process, where it is seen.
        pid: Option<u32>,
        /// What each login was answered.
        why: String,
    },
    /// It answers.
    Running(Box<Live>),
}

/// What a running server says.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Global variables.
    pub variables: BTreeMap<String, String>,
    /// Global status.
    pub status: BTreeMap<String, String>,
    /// The account that a transfer from this node would use, as `user@host`.
    pub account: String,
    /// Rights that it has not.
    pub missing: Vec<&'static str>,
    /// The statement that gives them.
    pub grant: Option<String>,
    /// It may see the statements of others (`PROCESS`).
    pub sees_others: bool,
    /// Bytes a second of redo.
    pub redo_rate: f64,
    /// Bytes a second of write-sets.
    pub write_set_rate: f64,
    /// The other members, as far as they can be asked.
    pub members: Vec<Member>,
}

impl Live {
    /// A status number.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.status.get(name)?.parse().ok()
    }
}

/// Another member of a running node's cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Its name; empty where the account may not read it.
    pub name: String,
    /// Where it serves clients; `AUTO` when it does not say.
    pub address: String,
    /// What it says, or why it was not asked.
    pub says: Result<MemberSays, String>,
}

/// What another member says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemberSays {
    /// Its server.
    pub version: String,
    /// Its `wsrep_sst_method`.
    pub method: String,
    /// Its clock less ours, in seconds, and how exactly that is known.
    pub clock: (f64, f64),
}

/// What stands where the server looks for its method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// Nothing.
    Missing {
        /// Directories it looks in, in order.
        searched: Vec<PathBuf>,
    },
    /// A file.
    Found {
        /// The first one of that name.
        path: PathBuf,
        /// The user this check runs as may run it.
        executable: bool,
        /// It is the program that checks.
        same: bool,
        /// What it says its version is; `None` when it is no rejoin.
        version: Option<String>,
    },
}

/// A directory that a transfer writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Its path.
    pub path: PathBuf,
    /// What is there.
    pub there: DirectoryState,
}

/// What stands at a directory's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryState {
    /// Nothing.
    Missing,
    /// Something else, or it cannot be looked at.
    Unusable(String),
    /// A directory.
    There {
        /// The server's user may write to it; `None` when this check runs as another user.
        writable: Option<bool>,
        /// It belongs to the server's user.
        owned: bool,
    },
}

/// What earlier transfers left.
#[derive(Clone, Debug)]
pub struct Left {
    /// What `.rejoin/` and `#sql-rejoin/` say.
    pub kept: Result<kept::Status, String>,
    /// A transfer that runs now.
    pub running: Option<u32>,
    /// Files that only a running transfer should have.
    pub stale: Vec<PathBuf>,
}

/// A filesystem that a transfer writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// A directory on it.
    pub at: PathBuf,
    /// Bytes of the data that is there.
    pub data: u64,
    /// Bytes that may still be written.
    pub available: u64,
}

/// An address that other hosts are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// `SST` or `IST`.
    pub what: &'static str,
    /// The option it comes from; `None` when the server guesses it.
    pub option: Option<&'static str>,
    /// Name or address.
    pub host: String,
    /// What it resolves to, or why it does not.
    pub resolved: Result<Vec<IpAddr>, String>,
}

/// A port that must be free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// What for: `SST`, `IST`, `group`, `client`.
    pub what: &'static str,
    /// Host and port.
    pub address: String,
    /// Whether it is.
    pub state: PortState,
    /// The option that names another.
    pub option: &'static str,
}

/// Whether a port can be listened on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortState {
    /// It can.
    Free,
    /// Somebody else does.
    Taken,
    /// The address is not this host's.
    NotHere,
    /// It cannot, for this reason.
    Refused(String),
}

/// A member that `wsrep_cluster_address` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Host and port.
    pub address: String,
    /// It took a connection, or why not.
    pub answers: Result<(), String>,
}
