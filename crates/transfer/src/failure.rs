//! Why a transfer or a command failed: a kind that decides the exit code, a sentence, and a hint.
use std::fmt;

/// Decides the exit code; the donor's server passes it through the group, and the joiner's server
/// prints it with `strerror`, so each kind has the errno whose text fits best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Arguments or configuration: `EINVAL`, "Invalid argument".
    Configuration,
    /// The peer refused or was refused: `EPROTO`, "Protocol error".
    Refused,
    /// The peer broke the protocol, or the link broke: `ECONNABORTED`, "Software caused connection abort".
    Peer,
    /// The peer was silent for too long: `ETIMEDOUT`, "Connection timed out".
    Timeout,
    /// Disk or file: `EIO`, "Input/output error".
    Disk,
    /// Not enough space: `ENOSPC`, "No space left on device".
    Space,
    /// Our own server: it died, refused `flush tables`, or another transfer runs: `EBUSY`, "Device or resource busy".
    Server,
    /// A fault of this program, a panic: `ECANCELED`, "Operation canceled".
    Internal,
    /// We received a signal to stop: `EINTR`, "Interrupted system call".
    Stopped,
}

impl Kind {
    /// The process's exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Configuration => 22,
            Kind::Refused => 71,
            Kind::Peer => 103,
            Kind::Timeout => 110,
            Kind::Disk => 5,
            Kind::Space => 28,
            Kind::Server => 16,
            Kind::Internal => 125,
            Kind::Stopped => 4,
        }
    }
}

/// A named failure. Lower errors (an `io::Error`) are kept as the source through `anyhow`'s context.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What kind.
    pub kind: Kind,
    /// One sentence: what failed and on what.
    pub text: String,
    /// The remedy.
    pub hint: Option<String>,
    /// The connection ended without a reason from the peer. Before anything was agreed on, another one is made.
    pub lost: bool,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(kind: Kind, text: impl Into<String>) -> Failure {
        Failure { kind, text: text.into(), hint: None, lost: false }
    }

    /// Adds the remedy.
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// Marks the connection as ended without a reason from the peer.
    pub fn lost(mut self) -> Failure {
        self.lost = true;
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hint {
            None => f.write_str(&self.text),
            Some(hint) => write!(f, "{} (hint: {hint})", self.text),
        }
    }
}

impl std::error::Error for Failure {}

/// Whether the connection ended without a reason from the peer.
pub fn is_lost(error: &anyhow::Error) -> bool {
    error.chain().find_map(|e| e.downcast_ref::<Failure>()).is_some_and(|failure| failure.lost)
}

/// The kind of an error chain: of the first named failure in it, else of the I/O error, else [`Kind::Disk`].
pub fn kind_of(error: &anyhow::Error) -> Kind {
    if let Some(failure) = error.chain().find_map(|e| e.downcast_ref::<Failure>()) {
        return failure.kind;
    }
    match error.chain().find_map(|e| e.downcast_ref::<std::io::Error>()).map(|e| e.kind()) {
        Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) => Kind::Space,
        Some(std::io::ErrorKind::TimedOut) => Kind::Timeout,
        _ => Kind::Disk,
    }
}
