//! The beginning of an attempt, before a file arrives: the sample of the joiner's files, free space, limits, and the record that
//! files are about to arrive.
use anyhow::Result;
use protocol::fingerprint::FingerprintKey;
use protocol::hello::capability;
use protocol::message::{Attempt, Message, SnapshotKind, snapshot_line};

use super::Transfer;
use super::agree::{self, Estimate, Room};
use super::beforehand::record_plan;
use super::expected::unexpected;
use super::incoming::IncomingTransfer;
use crate::datadir::sample::{self, Taken};
use crate::failure::Failure;
use crate::human::size;
use crate::install::unfinished::Unfinished;
use crate::limits::{Minute, PlannedTransfer, TransferLimits};
use crate::peer::link::Link;
use crate::server::retries;

impl Transfer<'_> {
    /// If files are compared, sends fingerprints of a few blocks. The donor answers about how many bytes it will
    /// send.
    pub(super) fn sample(
        &self,
        link: &mut Link,
        attempt: &Attempt,
        incoming: &IncomingTransfer,
    ) -> Result<Estimate> {
        tracing::info!("{}", snapshot_line(attempt.snapshot, &attempt.reason));
        self.job.progress.ledger.attempt(attempt.snapshot, &attempt.reason);
        let Some(key) = &attempt.fingerprints else {
            incoming.staging().drop_leftovers()?;
            record_plan(self.job, attempt.bytes, None);
            return Ok(Estimate { sampled: 0, about: None });
        };
        let unsampled = self.base.dir().is_some() || incoming.staging().has_leftovers();
        let more = is_compared_to_the_end(unsampled, &self.job.settings.limits, attempt.bytes);
        let sampled = self.send_sample(link, key, more)?;
        match link.recv()? {
            Message::Plan { about } => {
                let about = less_than_everything(attempt.snapshot, about);
                record_plan(self.job, attempt.bytes, about);
                self.permit(about.is_none(), about.unwrap_or(attempt.bytes))?;
                // Every file of a backup is staged whole.
                let whole = attempt.snapshot == SnapshotKind::Mariabackup;
                Ok(Estimate { sampled, about: about.filter(|_| !whole) })
            }
            other => Err(unexpected(&other, "Plan").into()),
        }
    }

    /// Sends fingerprints of a few blocks of our files, and before them, to a donor that counts with it, how long our disk took
    /// for one. Returns how many bytes they represent. `more`: [`Sample::more`](protocol::sample::Sample::more).
    pub(super) fn send_sample(&self, link: &mut Link, key: &FingerprintKey, more: bool) -> Result<u64> {
        let taken = || sample::of(&self.layout.datadir, &self.old, key, more);
        let Taken { sample, page_time } = link.keep_alive_while("sampling its files", taken)?;
        tracing::debug!("the disk takes {page_time:?} to read a page");
        if let Some(time) = page_time.filter(|_| self.capabilities & capability::PAGE_TIME != 0) {
            link.send(&Message::PageTime { nanos: time.as_nanos() as u64 })?;
        }
        let bytes = sample.bytes;
        link.send(&Message::Sample(sample))?;
        Ok(bytes)
    }

    /// Reserves space before any file arrives, so that nobody else fills the disk meanwhile. Done for each attempt,
    /// because another snapshot may send more.
    pub(super) fn make_room(
        &mut self,
        link: &mut Link,
        attempt: &Attempt,
        incoming: &mut IncomingTransfer,
        estimate: Estimate,
    ) -> Result<()> {
        let job = self.job;
        if self.room == Room::Narrow
            && agree::check_room_again(job, &self.layout, self.offer, &self.old, estimate)? == Room::InPlace
        {
            // Nothing is compared with files that are deleted.
            self.permit(true, attempt.bytes)?;
            self.room = Room::InPlace;
            link.note("the joiner has no room for old and new files: it replaces them in place")?;
            self.begins()?;
            incoming.replace_in_place()?;
        }
        if !reserves(self.room, attempt.snapshot) {
            return Ok(());
        }
        for (at, bytes) in agree::will_need(&self.layout, self.offer, estimate)? {
            if let Err(error) = incoming.staging().reserve(&at, bytes) {
                let at = at.display();
                tracing::info!("{} cannot be reserved on the filesystem of {at}: {error:#}", size(bytes));
            }
        }
        Ok(())
    }

    /// Whether this node's limits permit a transfer of files.
    pub(super) fn permit(&self, full: bool, bytes: u64) -> Result<(), Failure> {
        self.job.settings.limits.permit(PlannedTransfer { full, bytes }, Minute::now())
    }

    /// Records that files will arrive: if the transfer does not finish, the record shows that this node has less than its donor.
    /// Done once, before an old file is deleted.
    pub(super) fn begins(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.begun, true) {
            return Ok(());
        }
        retries::count(&self.job.datadir, &self.job.settings.limits)?;
        let unfinished = Unfinished::now(&self.offer.node, &self.offer.position);
        if let Err(error) = unfinished.write(&self.job.datadir) {
            tracing::warn!("cannot record that a transfer has begun: {error:#}");
        }
        Ok(())
    }
}

/// Whether the donor compares all files, whatever it finds: we have some that are not sampled, or our limit forbids to send all
/// `bytes`. Otherwise it may send the rest whole when comparing does not pay.
fn is_compared_to_the_end(unsampled: bool, limits: &TransferLimits, bytes: u64) -> bool {
    unsampled || limits.permit_bytes(bytes).is_err()
}

/// How many bytes the donor will send, `None` if everything. That is so for rows, although the donor of an earlier build names a
/// number for them.
fn less_than_everything(snapshot: SnapshotKind, about: Option<u64>) -> Option<u64> {
    about.filter(|_| snapshot != SnapshotKind::Logical)
}

/// Whether space is reserved for what will arrive.
fn reserves(room: Room, snapshot: SnapshotKind) -> bool {
    match snapshot {
        // Rows are loaded while they arrive, and the private server needs the same space.
        SnapshotKind::Logical => false,
        // In place, the old files give it back bit by bit.
        SnapshotKind::Online | SnapshotKind::Blocking | SnapshotKind::Mariabackup => room != Room::InPlace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `full-only-between` let rows pass at any hour.
    #[test]
    fn rows_are_a_full_transfer_whatever_the_donor_says() {
        use SnapshotKind::{Blocking, Logical, Mariabackup, Online};
        assert_eq!(less_than_everything(Logical, Some(7)), None);
        for kind in [Online, Blocking, Mariabackup] {
            assert_eq!(less_than_everything(kind, Some(7)), Some(7), "{kind:?}");
            assert_eq!(less_than_everything(kind, None), None, "{kind:?}");
        }
    }

    /// A donor that found next to nothing sent the rest whole, beyond what the joiner's `max-transfer` permits.
    #[test]
    fn what_may_not_be_sent_whole_is_compared_to_the_end() {
        use protocol::fingerprint::Fingerprint;
        use protocol::inventory::Place;
        use protocol::sample::{Sample, Sampled, Shared};
        let (place, fingerprint, pieces) = (Place::Datadir, Fingerprint::default(), Vec::new());
        let block = Sampled { place, path: "d/t.ibd".into(), block: 0, fingerprint, pieces };
        // Whether comparing may end, for a donor that has 5 of 256 sampled blocks.
        let may_end = |unsampled, max_transfer| {
            let limits = TransferLimits { max_transfer, ..TransferLimits::default() };
            let more = is_compared_to_the_end(unsampled, &limits, 1000);
            let sample = Sample { blocks: vec![block.clone(); 256], bytes: 1000, more };
            sample.may_share(Shared { same: 5, alike: 0.0 }, 1000).is_some()
        };
        assert!(may_end(false, None) && may_end(false, Some(1000)));
        assert!(!may_end(false, Some(999)) && !may_end(true, None));
    }

    #[test]
    fn space_is_reserved_for_files_beside_the_old_ones_and_never_for_rows() {
        use SnapshotKind::{Blocking, Logical, Mariabackup, Online};
        for room in [Room::Beside, Room::Narrow] {
            assert!([Online, Blocking, Mariabackup].iter().all(|kind| reserves(room, *kind)), "{room:?}");
            assert!(!reserves(room, Logical), "{room:?}");
        }
        assert!([Online, Blocking, Mariabackup, Logical].iter().all(|kind| !reserves(Room::InPlace, *kind)));
    }
}
