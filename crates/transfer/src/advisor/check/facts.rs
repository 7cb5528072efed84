//! Everything that the findings depend on, as a value.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use formats::galera::grastate::GraState;
use formats::wsrep::state_id::StateId;

use crate::datadir::recognise::Looks;
use crate::failure::Failure;
use crate::install::kept;
use crate::install::unfinished::Unfinished;
use crate::running_joiner::METHOD;
use crate::server::options::ServerOptions;
use crate::server::provider_options::{self, ProviderOptions};
use crate::settings::Settings;

/// The facts about a node.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Name of the user that runs this check, and of the server's user if that is another one.
    pub user: (String, Option<String>),
    /// The option files.
    pub options: ServerOptions,
    /// The options of `[sst]`, or what is wrong with them.
    pub settings: Result<Settings, String>,
    /// What is wrong with the server's own options, so that no layout can be determined.
    pub bad_layout: Option<String>,
    /// The datadir.
    pub datadir: Datadir,
    /// The server.
    pub server: Server,
    /// Version text of the server program; of the running one if it reports it.
    pub version: Option<String>,
    /// `wsrep_provider`, and why it cannot be loaded.
    pub provider: Option<(PathBuf, Option<String>)>,
    /// The program that the server would run as its method.
    pub program: Program,
    /// mariadb-backup and its version, or why it cannot be used.
    pub backup_tool: Result<String, String>,
    /// Why the program of `base-command` cannot be run, if there is such an option.
    pub no_base_command: Option<String>,
    /// Directories that a transfer writes to.
    pub directories: Vec<Directory>,
    /// One of the datadir's files that does not belong to the server's user, and the number of such files.
    pub foreign_files: Option<(PathBuf, usize)>,
    /// Directories that could not take a donor's files, and why.
    pub cannot_take: Vec<Failure>,
    /// Dangling links in the datadir whose name a database may have.
    pub dangling_links: Vec<PathBuf>,
    /// The leftovers of earlier transfers.
    pub left: Left,
    /// Filesystems that a transfer writes to, or why they could not be examined.
    pub rooms: Result<Vec<Room>, String>,
    /// For a running node: data that cannot be sent, with the donor's refusal.
    pub cannot_travel: Vec<Failure>,
    /// For a running node: the warnings of a transfer.
    pub travels_badly: Vec<String>,
    /// The addresses that the node announces.
    pub announced: Vec<AnnouncedAddress>,
    /// Ports that must be free.
    pub ports: Vec<Port>,
    /// Whether a process listens where donors connect for IST, if it is to pass through us.
    pub relay: Option<PortState>,
    /// Members that the configuration names. They are contacted only while the server is down.
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
    /// A variable of the running server, otherwise the option in the files. Both have the variable's name.
    pub fn setting(&self, name: &str) -> Option<&str> {
        match &self.server {
            Server::Running(live) => live.variables.get(name).map(String::as_str),
            _ => self.in_files(name),
        }
    }

    /// The value of `wsrep_sst_method` with which the server runs rejoin: a link may give the program another name.
    pub fn method(&self) -> &str {
        let path = match &self.program {
            Program::Found { path, .. } if self.program.is_rejoin() => path.file_name(),
            _ => None,
        };
        path.and_then(|name| name.to_str()?.strip_prefix("wsrep_sst_")).unwrap_or("rejoin")
    }

    /// Whether this node gives rows to joiners whose servers run, and gets them: `wsrep_sst_method=mysqldump` is rejoin.
    pub fn gives_rows(&self) -> bool {
        self.method() == METHOD && self.in_files("wsrep_sst_method") == Some(METHOD)
    }

    /// The option in the files, which the next start uses, regardless of the running server.
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

    /// The provider's options: all of them if it runs, otherwise those that the files set.
    pub fn provider_options(&self) -> ProviderOptions {
        provider_options::parse(self.setting("wsrep_provider_options").unwrap_or_default())
    }
}

/// The node's server.
#[derive(Clone, Debug)]
pub enum Server {
    /// No process has the datadir open.
    Stopped,
    /// It has started but opened no engine yet: it waits for its group, or for a state transfer.
    Waits {
        /// Its process.
        pid: Option<u32>,
    },
    /// A process has the datadir open, but no login worked.
    Silent {
        /// Its process, if it is visible.
        pid: Option<u32>,
        /// The result of each login.
        why: String,
        /// A remedy.
        advice: Option<String>,
    },
    /// It responds.
    Running(Box<Live>),
}

/// The state of a running server.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Global variables.
    pub variables: BTreeMap<String, String>,
    /// Global status.
    pub status: BTreeMap<String, String>,
    /// The account that a transfer from this node would use, as `user@host`.
    pub account: String,
    /// Privileges that the account lacks.
    pub missing: Vec<&'static str>,
    /// The statement that grants them.
    pub grant: Option<String>,
    /// It may see the statements of others (`PROCESS`).
    pub sees_others: bool,
    /// The account may read every table.
    pub reads_everything: bool,
    /// It may request a checkpoint (`SUPER`).
    pub makes_checkpoints: bool,
    /// Bytes of redo per second.
    pub redo_rate: f64,
    /// Bytes of write-sets per second.
    pub write_set_rate: f64,
    /// The other members, as far as they can be queried.
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
    /// Its client address; `AUTO` if it does not announce one.
    pub address: String,
    /// Its answers, or why it was not queried.
    pub says: Result<MemberSays, String>,
}

/// What another member reports about itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemberSays {
    /// Its server.
    pub version: String,
    /// Its `wsrep_sst_method`.
    pub method: String,
    /// The difference of its clock to ours in seconds, and the precision.
    pub clock: (f64, f64),
}

/// The program that the server finds as its method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// Nothing.
    Missing {
        /// The directories that the server searches, in order.
        searched: Vec<PathBuf>,
    },
    /// A file.
    Found {
        /// The first one of that name.
        path: PathBuf,
        /// The user that runs this check may execute it.
        executable: bool,
        /// It is the same program as this one.
        same: bool,
        /// The version that it reports; `None` if it is not rejoin.
        version: Option<String>,
    },
}

impl Program {
    /// Whether it is rejoin, of any version.
    pub fn is_rejoin(&self) -> bool {
        matches!(self, Program::Found { version: Some(_), .. })
    }
}

/// The datadir that is checked.
#[derive(Clone, Debug)]
pub struct Datadir {
    /// Its path.
    pub path: PathBuf,
    /// Neither the command line nor an option file names it: it is compiled into the server's program.
    pub compiled_in: bool,
    /// What it looks like, or why that is unknown.
    pub looks: Result<Looks, String>,
}

/// A directory that a transfer writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Its path.
    pub path: PathBuf,
    /// It is empty, or holds a server's files: changing its owner harms nobody else.
    pub is_data: bool,
    /// What exists there.
    pub there: DirectoryState,
}

/// What exists at a directory's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryState {
    /// Nothing.
    Missing,
    /// Something else, or it cannot be examined.
    Unusable(String),
    /// A directory.
    There {
        /// The server's user may write to it; `None` when this check runs as another user.
        writable: Option<bool>,
        /// It belongs to the server's user.
        owned: bool,
    },
}

/// The leftovers of earlier transfers.
#[derive(Clone, Debug)]
pub struct Left {
    /// The content of `.rejoin/` and `#sql-rejoin/`.
    pub kept: Result<kept::Status, String>,
    /// A transfer that is running now.
    pub running: Option<u32>,
    /// Joins in a row that received files and failed, if they are counted.
    pub failed_joins: u32,
    /// A transfer that began to receive files and did not finish.
    pub unfinished: Option<Unfinished>,
    /// With an unfinished transfer: the position to which the node's own files recover, if it can be computed.
    pub own_position: Option<StateId>,
    /// Files that should exist only during a transfer.
    pub stale: Vec<PathBuf>,
}

/// A filesystem that a transfer writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// A directory on it.
    pub at: PathBuf,
    /// Bytes of the data on it.
    pub data: u64,
    /// Free bytes.
    pub available: u64,
}

/// An address that is announced to other hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnouncedAddress {
    /// `SST` or `IST`.
    pub what: &'static str,
    /// The option that sets it; `None` if the server guesses it.
    pub option: Option<&'static str>,
    /// Name or address.
    pub host: String,
    /// The addresses that it resolves to, or why it does not resolve.
    pub resolved: Result<Vec<IpAddr>, String>,
}

/// A port that must be free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its purpose: `SST`, `IST`, `group`, `client`.
    pub what: &'static str,
    /// Host and port.
    pub address: String,
    /// Whether it is free.
    pub state: PortState,
    /// The option that changes it.
    pub option: &'static str,
}

/// Whether it is possible to listen on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortState {
    /// It is.
    Free,
    /// Another program listens on it.
    Taken,
    /// Something listens on it, and systemd is set up to listen there for this unit.
    TakenFor(&'static str),
    /// The address is not this host's.
    NotHere,
    /// It is not, for this reason.
    Refused(String),
}

/// A member that `wsrep_cluster_address` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Host and port.
    pub address: String,
    /// It accepted a connection, or why not.
    pub answers: Result<(), String>,
}
