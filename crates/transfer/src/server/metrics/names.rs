//! Every metric of this project with what it means: docs/monitoring.md, the dashboard and the alert rules in `contrib/` use these
//! and no others.
//!
//! Names follow <https://prometheus.io/docs/practices/naming/>: base units (bytes, seconds), the unit as suffix, and `_total` at the
//! end of what only grows.

/// A metric: a counter if its name ends with `_total`, otherwise a gauge (docs/decisions/0033).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// The text of its HELP line, without line ends and backslashes.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident: $name:literal, $help:literal;)+) => {
        $(#[doc = $help] pub const $constant: Metric = Metric { name: $name, help: $help };)+
        /// All of them.
        pub const ALL: &[Metric] = &[$($constant),+];
    };
}

metrics! {
    // Of the current or last transfer, with the label `role`.
    RUNNING: "rejoin_transfer_running", "Whether a state transfer is running.";
    START_TIME: "rejoin_transfer_start_time_seconds",
        "When the current or last transfer began, in seconds since 1970.";
    DURATION: "rejoin_transfer_duration_seconds", "How long the current or last transfer has taken.";
    IDLE: "rejoin_transfer_idle_seconds",
        "How long ago the phase or a count of bytes of the running transfer changed.";
    SUCCESS: "rejoin_transfer_success", "Whether the last transfer succeeded.";
    LAST_SUCCESS_TIME: "rejoin_transfer_last_success_time_seconds",
        "When the last successful transfer ended, in seconds since 1970.";
    FAILURES: "rejoin_transfer_consecutive_failures",
        "How many transfers have failed since the last successful one.";
    ATTEMPTS: "rejoin_transfer_attempts",
        "How often the donor has begun to send files in the current or last transfer: more than 1 if a snapshot was given up.";
    SIZE: "rejoin_transfer_size_bytes",
        "Bytes of all files and the redo, or of the write-sets, of the current or last transfer.";
    COMPLETE: "rejoin_transfer_complete_bytes", "Bytes of the current or last transfer that are complete.";
    READ: "rejoin_transfer_read_bytes",
        "Bytes of this host's files that the current or last transfer has read, to send or compare them.";
    REMEMBERED: "rejoin_transfer_remembered_bytes",
        "Bytes of this host's files that the current or last transfer need not read, because their fingerprints were remembered.";
    BYTES: "rejoin_transfer_bytes_total",
        "Bytes in all transfers: sent, before compression; reused, because the joiner had them; rebuilt by the joiner from its own version of a block.";
    NETWORK: "rejoin_transfer_network_bytes_total",
        "Bytes that all transfers have sent and received, with the overhead of encryption.";
    TRANSFERS: "rejoin_transfers_total", "Transfers that have ended, by outcome: ok or failed.";
    PHASE: "rejoin_transfer_phase", "1 for the phase of the running transfer.";
    PHASE_DURATION: "rejoin_transfer_phase_duration_seconds",
        "How long each phase of the current or last transfer has taken.";
    PAUSE: "rejoin_transfer_pause_seconds",
        "How long the current or last transfer paused replication on the donor, in all tries together.";
    CORRUPT_PAGES: "rejoin_transfer_corrupt_pages",
        "Corrupt pages that the current or last transfer found in this host's files: a donor's, at least, if they made it fail; a joiner's old ones, as far as they were compared.";

    // Of the node.
    BUILD_INFO: "rejoin_build_info", "1, with the version of the program.";
    PREVIOUS_STATE_BYTES: "rejoin_previous_state_bytes",
        "Disk space of the previous state that is kept for a rollback.";
    PREVIOUS_STATE_TIME: "rejoin_previous_state_created_time_seconds",
        "When the install that the previous state is kept for was made, in seconds since 1970.";
    FAILED_JOINS: "rejoin_failed_joins",
        "Joins in a row that received files and have not brought this node to Synced, a running one included; 0 if retry-limit is not set.";
    RETRY_LIMIT_REACHED: "rejoin_retry_limit_reached",
        "Whether retry-limit has kept the last join from receiving files.";
    GCACHE_SIZE: "rejoin_gcache_size_bytes", "Size of the ring of the write-set cache (gcache.size).";
    GCACHE_FIRST: "rejoin_gcache_first_seqno", "First seqno that this node's cache can serve by IST.";
    GCACHE_LAST: "rejoin_gcache_last_seqno", "Last seqno in this node's cache.";
    GCACHE_FILL: "rejoin_gcache_fill_bytes_per_second",
        "Rate at which write-sets fill the cache, measured over those in it.";
    GCACHE_WINDOW: "rejoin_gcache_window_seconds",
        "How long a node that stops now may be away and still return by IST from this node's cache, at the rate at which write-sets filled it.";
    ARCHIVE_SIZE: "rejoin_archive_size_bytes", "Disk space of the archive of write-sets.";
    ARCHIVE_GAPS: "rejoin_archive_gaps", "Ranges of write-sets that are missing within the archive.";
    ARCHIVE_MISSING: "rejoin_archive_missing_write_sets", "Write-sets in the gaps of the archive.";
    ARCHIVE_NEWEST_GAP: "rejoin_archive_newest_gap_time_seconds",
        "When the newest gap of the archive was found, in seconds since 1970.";
    ARCHIVE_RUNNING: "rejoin_archive_running", "Whether the archiver is running.";
    ARCHIVE_FULL: "rejoin_archive_out_of_space",
        "Whether the archiver has stopped writing for lack of disk space.";
    ARCHIVE_UPDATED: "rejoin_archive_updated_time_seconds",
        "When the archiver last reported, in seconds since 1970.";
    ARCHIVE_FIRST: "rejoin_archive_first_seqno", "First seqno of the archive's newest range.";
    ARCHIVE_LAST: "rejoin_archive_last_seqno", "Last seqno of the archive's newest range.";
    ARCHIVE_FIRST_TIME: "rejoin_archive_first_time_seconds",
        "When the first write-sets of the archive's newest range were archived, in seconds since 1970.";
    ARCHIVE_LAG: "rejoin_archive_lag_write_sets", "Write-sets that the server has and the archive has not.";
}
