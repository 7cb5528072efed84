//! The write-sets that a donor can give: those of its archive, and behind them those in its provider's cache.
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use formats::wsrep::state_id::StateId;
use formats::{Seqno, Uuid};
use protocol::message::Message;

use crate::failure::{Failure, Kind};
use crate::job::Job;
use crate::server::provider_options;
use crate::writesets::archive::{Archive, is_archive};
use crate::writesets::gcache::Gcache;
use crate::writesets::store::{StoredAction, Take, WriteSetStore};

/// How long to wait until the newest write-sets are final: about a hundred of them are still being applied.
const FINAL_WITHIN: Duration = Duration::from_secs(10);
/// How often the archive, and the state of the newest one in the cache, are looked at meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// The write-sets of the archive, followed by those in our own provider's cache.
pub(super) struct History {
    archive: Box<dyn WriteSetStore + Send>,
    cache: Option<Gcache>,
}

impl History {
    /// Opens the archive alone: our own provider's cache is large.
    pub fn open(job: &Job, dir: &Path) -> Result<History> {
        Ok(History { archive: open_store(job, dir)?, cache: None })
    }

    /// The archive's range.
    pub fn in_words(&self) -> String {
        match self.archive.range() {
            None => "is empty".to_owned(),
            Some((first, last)) => {
                format!("has the write-sets {first} to {last} of {}", self.archive.history())
            }
        }
    }

    /// Checks that the joiner's files, the archive and the group have one history, and that the joiner is not ahead
    /// of the group.
    pub fn fits(&self, position: StateId, group: StateId) -> Result<(), String> {
        let archive: Uuid = self.archive.history();
        if position.uuid != group.uuid {
            return Err(format!(
                "the joiner's files are of the history {}, the group's is {}",
                position.uuid, group.uuid
            ));
        }
        if archive != group.uuid {
            return Err(format!(
                "the donor's archive is of the history {archive}, the group's is {}",
                group.uuid
            ));
        }
        if let Some(branched) = self.archive.branched_at().filter(|branched| position.seqno <= *branched) {
            return Err(format!(
                "the joiner is at {}; the group began again from an older state when it was at {branched}, so the joiner may \
                 hold what the group no longer has",
                position.seqno
            ));
        }
        if position.seqno > group.seqno {
            let (joiner, group) = (position.seqno, group.seqno);
            return Err(format!("the joiner is at {joiner}, ahead of the group at {group}"));
        }
        Ok(())
    }

    /// What the archive holds, for the joiner to note.
    pub fn reach_in_archive(&self, job: &Job) -> Option<Message> {
        let (first, last) = self.archive.range()?;
        let (node, history) = (job.options.node_name(), self.archive.history().to_string());
        Some(Message::ArchiveReach { node, history, first: first.0, last: last.0 })
    }

    /// Whether archive and cache contain all write-sets from `from` to `to`, all of them final; otherwise the reason.
    /// Waits up to `FINAL_WITHIN` for the newest ones.
    pub fn reach(mut self, job: &Job, dir: &Path, from: Seqno, to: Seqno) -> Result<Result<History, String>> {
        self.cache = own_cache(job);
        let until = Instant::now() + FINAL_WITHIN;
        loop {
            if from > to || self.holds(from, to) {
                return Ok(Ok(self));
            }
            if self.archive.range().is_none_or(|(first, _)| first > from) || Instant::now() >= until {
                let cache = self.cache.as_ref().and_then(WriteSetStore::range);
                let cache = cache.map_or("nothing".to_owned(), |(first, last)| format!("{first} to {last}"));
                return Ok(Err(format!(
                    "the write-sets {from} to {to} are needed; the donor's archive {}, and its provider's cache {cache}",
                    self.in_words()
                )));
            }
            job.cancel.sleep(LOOK)?;
            self.archive = open_store(job, dir)?;
            // A cache is read from end to end, which takes seconds if it is large. Once it has `to`, only the state of that
            // is read again.
            if self.cache.as_ref().and_then(WriteSetStore::range).is_none_or(|(_, high)| high < to) {
                self.cache = own_cache(job);
            }
        }
    }

    fn holds(&self, from: Seqno, to: Seqno) -> bool {
        let Some((first, last)) = self.archive.range() else { return false };
        if first > from || last.0.saturating_add(1) < from.0 {
            return false;
        }
        if last >= to {
            return true;
        }
        // Only the cache's buffers show whether write-sets are final. If the last one is, all before it are.
        let Some(cache) = &self.cache else { return false };
        let reaches =
            cache.range().is_some_and(|(low, high)| low.0 <= last.0.saturating_add(1) && high >= to);
        let mut is_final = false;
        let read = reaches && {
            let look = |action: StoredAction| {
                is_final = action.is_final;
                Ok(false)
            };
            cache.read(to, to, &mut { look }).is_ok()
        };
        read && is_final
    }

    /// About how many bytes these write-sets have.
    pub fn bytes(&self, from: Seqno, to: Seqno) -> Result<u64> {
        let last = self.archive.range().map_or(Seqno(0), |(_, last)| last);
        let archived = self.archive.bytes_of(from, to.min(last))?;
        let behind = from.max(Seqno(last.0.saturating_add(1)));
        let cached = self.cache.as_ref().map_or(Ok(0), |cache| cache.bytes_of(behind, to))?;
        Ok(archived.saturating_add(cached))
    }

    /// Gives these write-sets to `take`, in order, until it returns false.
    ///
    /// # Errors
    /// Of `take`, of the disk; one of them is missing, or its verdict is not known yet.
    pub fn read(&self, from: Seqno, to: Seqno, take: &mut Take<'_>) -> Result<()> {
        let last = self.archive.range().map_or(Seqno(0), |(_, last)| last);
        let mut more = true;
        let mut next = from;
        if from <= last {
            self.archive.read(from, to.min(last), &mut |action| {
                next = Seqno(action.seqno.0.saturating_add(1));
                more = take(action)?;
                Ok(more)
            })?;
        }
        if !more || next > to {
            return Ok(());
        }
        let behind = || Failure::new(Kind::Disk, format!("write-set {next} is not in the donor's archive"));
        let cache = self.cache.as_ref().ok_or_else(behind)?;
        cache.read(next, to, &mut |action| match action.is_final {
            true => take(action),
            false => {
                let text = format!("whether write-set {} is to be applied is not known yet", action.seqno);
                Err(Failure::new(Kind::Disk, text).into())
            }
        })
    }
}

/// Opens the archive's directory, which contains segments, or a copy of a provider's cache.
fn open_store(job: &Job, dir: &Path) -> Result<Box<dyn WriteSetStore + Send>> {
    match is_archive(dir) {
        true => Ok(Box::new(Archive::open(dir)?)),
        false => Ok(Box::new(Gcache::open_unless(dir, &job.cancel)?)),
    }
}

/// Our own provider's cache, if it can be read.
fn own_cache(job: &Job) -> Option<Gcache> {
    let options = provider_options::parse(job.options.server("wsrep-provider-options").unwrap_or_default());
    let path = provider_options::cache_file(&options, &job.datadir);
    let cache = Gcache::open_unless(&path, &job.cancel);
    cache.inspect_err(|why| tracing::debug!("no cache of our own: {why:#}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HISTORY: Uuid = Uuid([7; 16]);

    /// An archive of a group that began again from an older state when it was at 100.
    struct Branched;

    impl WriteSetStore for Branched {
        fn history(&self) -> Uuid {
            HISTORY
        }

        fn range(&self) -> Option<(Seqno, Seqno)> {
            Some((Seqno(51), Seqno(200)))
        }

        fn read(&self, _: Seqno, _: Seqno, _: &mut Take<'_>) -> Result<()> {
            Ok(())
        }

        fn branched_at(&self) -> Option<Seqno> {
            Some(Seqno(100))
        }
    }

    #[test]
    fn a_joiner_that_may_be_of_the_branch_that_was_given_up_gets_files() {
        let history = History { archive: Box::new(Branched), cache: None };
        let at = |seqno| StateId { uuid: HISTORY, seqno: Seqno(seqno) };
        for lost in [60, 100] {
            let why = history.fits(at(lost), at(200)).unwrap_err();
            assert!(why.contains("began again from an older state when it was at 100"), "{why}");
        }
        assert_eq!(history.fits(at(101), at(200)), Ok(()));
    }
}
