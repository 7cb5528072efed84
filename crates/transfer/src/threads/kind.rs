//! Every kind of thread of this program.

macro_rules! kinds {
    ($($(#[$doc:meta])+ $kind:ident = $name:literal,)+) => {
        /// What a thread is for. Its name stands in the reason when it panics, and in the kernel's list of threads.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Thread {
            $($(#[$doc])+ $kind,)+
        }

        impl Thread {
            /// All kinds of threads.
            pub const ALL: &[Thread] = &[$(Thread::$kind),+];

            /// Its name: at most 15 bytes, which is what the kernel keeps.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Thread::$kind => $name,)+
                }
            }
        }
    };
}

kinds! {
    /// The program's first thread, which carries out a role.
    Main = "main",
    /// Waits for signals.
    Signals = "signals",
    /// Ends the program if it has not ended after a signal or the server's end.
    Grace = "grace",
    /// Waits for the server's end.
    ServerWatch = "server watch",
    /// Waits until the server closes its socket.
    SocketWatch = "socket watch",
    /// Writes the status file and the progress lines.
    Progress = "progress",
    /// Donor: steers the speed of the transfer.
    Governor = "governor",
    /// Ends the transfer when it takes longer than the operator allows.
    TimeLimit = "time limit",
    /// Does long work while the control connection is kept alive.
    Work = "work",
    /// Ends the program if it has not ended after a panic.
    LastResort = "last resort",
    /// Donor: resolves the joiner's name.
    Resolver = "resolver",
    /// Donor: sends on one connection.
    Sender = "sender",
    /// Donor: asks what the joiner has.
    Questions = "questions",
    /// Donor: receives the answers.
    Answers = "answers",
    /// Donor: follows the redo log.
    RedoReader = "redo reader",
    /// Donor: passes on the redo that was read.
    RedoWriter = "redo writer",
    /// Donor: reads data files.
    PageReader = "page reader",
    /// Donor: reads pages again under the backup lock.
    PageRereader = "page rereader",
    /// Donor: reads small files.
    FileReader = "file reader",
    /// Donor: watches the server's checkpoints.
    CheckpointWatch = "check watch",
    /// Donor: has the server make a checkpoint.
    Checkpoint = "checkpoint",
    /// Donor: owns the session that takes the backup locks.
    BackupLocks = "backup locks",
    /// Donor: ends a blocking snapshot when its time is over.
    BlockingLimit = "blocking limit",
    /// Joiner: accepts connections.
    Listener = "listener",
    /// Joiner: does the handshake of one connection.
    Handshake = "handshake",
    /// Joiner: starts a receiving thread for each connection.
    Admission = "admission",
    /// Joiner: receives on one connection.
    Receiver = "receiver",
    /// Joiner: reads a few blocks of its old files.
    Sampler = "sampler",
    /// Joiner: computes fingerprints of its old files.
    Fingerprints = "fingerprints",
    /// Joiner: prepares received files for the install.
    Settling = "settling",
    /// Joiner: reads back what was staged.
    ReadBack = "read back",
    /// Joiner: reads back a part of it.
    BlockReader = "block reader",
    /// Joiner: makes files of a logical snapshot, and runs the private server for that.
    Loading = "loading",
    /// Joiner: loads tables of a logical snapshot.
    Loader = "loader",
    /// Joiner: hands the rows of one table to the private server.
    RowFeeder = "row feeder",
    /// Joiner: ends the private server if the transfer is cancelled.
    LoadWatch = "load watch",
    /// Donor: reads rows of a logical snapshot.
    RowReader = "row reader",
    /// Donor: accepts our own client's connections to a running joiner.
    SqlListener = "sql listener",
    /// Donor: passes on one connection to a running joiner.
    SqlConnection = "sql connection",
    /// Donor: ends the sessions of a logical snapshot early.
    RowWatch = "row watch",
    /// Relay of IST: receives the orders of the joiner's program.
    RelayOrders = "relay orders",
    /// Relay of IST: passes one connection on.
    RelaySession = "relay session",
    /// Relay of IST: greets one connection that may be the donor's.
    RelayCaller = "relay caller",
    /// The archiver: stands in for a relay of IST while there is none.
    RelayStandIn = "relay stand-in",
    /// The archiver: accepts connections meanwhile.
    RelayListener = "relay listener",
    /// An operator's command: asks one member.
    Member = "member",
    /// An operator's command: compares two datadirs.
    Comparer = "comparer",
    /// The archiver: writes what was taken from the provider's cache.
    ArchiveWriter = "archive writer",
    /// The archiver: reads the provider's cache, while it keeps up.
    ArchiveReader = "archive reader",
    /// An operator's server of metrics: answers one request.
    HttpConnection = "http connection",
    /// An operator's server of metrics: reads the provider's cache.
    CacheMetrics = "cache metrics",
    /// Reads what another program says.
    ProgramOutput = "program output",
    /// Donor: sends what mariadb-backup writes.
    BackupReader = "backup reader",
    /// Donor: ends a backup that waits for its locks too long.
    BackupWatch = "backup watch",
}
