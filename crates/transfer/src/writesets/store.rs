//! Where write-sets come from: one trait over the provider's cache and an archive of it, so that the code that lists,
//! verifies or sends write-sets need not know which of them it reads.
use anyhow::Result;
use formats::galera::conf_change::ConfChange;
use formats::galera::gcache::Action;
use formats::galera::write_set::WriteSet;
use formats::{Seqno, Uuid};

/// So many actions are read to estimate the bytes of all.
const MEASURED: usize = 500;

/// One action of a history: a write-set or a configuration change, with the verdict that its node reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAction {
    /// Its place in the history.
    pub seqno: Seqno,
    /// What it is.
    pub action: Action,
    /// It failed certification or was voted out: its seqno is used, its rows were applied nowhere.
    pub skipped: bool,
    /// The verdict can no longer change. Always true in an archive; in the cache of a running server the newest actions (some
    /// hundred) are still being applied.
    pub is_final: bool,
    /// Its bytes as the provider has them, without the buffer's header; padding included.
    pub bytes: Vec<u8>,
}

/// Takes actions one after the other. Returns whether it wants more.
pub type Take<'a> = dyn FnMut(StoredAction) -> Result<bool> + 'a;

/// A store of write-sets: the provider's ring and pages, or an archive.
pub trait WriteSetStore {
    /// The history that its seqnos belong to.
    fn history(&self) -> Uuid;

    /// First and last seqno of the newest run without a gap.
    fn range(&self) -> Option<(Seqno, Seqno)>;

    /// Hands over the actions from `from` to `to` (both included) in the order of their seqnos, each verified by its own
    /// checksums, until `take` says that it wants no more.
    ///
    /// # Errors
    /// A seqno is missing, or its action is damaged: the error names the seqno, and everything before it has been handed over.
    /// Reading failed, or `take` did.
    fn read(&self, from: Seqno, to: Seqno, take: &mut Take<'_>) -> Result<()>;

    /// The highest seqno up to which a node may hold other actions under the same seqnos: the group began again from an older
    /// state, and this store holds what came then. `None` if it knows of no such thing.
    fn branched_at(&self) -> Option<Seqno> {
        None
    }

    /// About how many bytes the actions from `from` to `to` (both included) have: what the first ones of them say of all.
    ///
    /// # Errors
    /// Those of reading.
    fn bytes_of(&self, from: Seqno, to: Seqno) -> Result<u64> {
        let (mut bytes, mut seen) = (0u64, 0usize);
        if from <= to {
            self.read(from, to, &mut |action| {
                bytes += action.bytes.len() as u64;
                seen += 1;
                Ok(seen < MEASURED)
            })?;
        }
        let count = to.0.saturating_sub(from.0).saturating_add(1).max(0);
        Ok((bytes as f64 / seen.max(1) as f64 * count as f64) as u64)
    }
}

/// Verifies every checksum in an action's bytes, and that it says of itself that it has this seqno.
///
/// # Errors
/// What is wrong with it.
pub fn verify_action(seqno: Seqno, action: Action, bytes: &[u8]) -> Result<(), String> {
    let inside = match action {
        Action::WriteSet => WriteSet::parse(bytes).map_err(|error| error.to_string())?.header.seqno,
        Action::ConfChange => ConfChange::parse(bytes).map_err(|error| error.to_string())?.state.seqno,
        Action::Other(_) => return Ok(()),
    };
    if inside == seqno { Ok(()) } else { Err(format!("says that its seqno is {inside}")) }
}
