//! Decides between a full and an incremental transfer. The decision and its estimate are logged on both hosts before
//! anything is sent.
use std::time::Duration;

use anyhow::Result;
use protocol::fingerprint::FingerprintKey;
use protocol::message::Message;
use protocol::sample::{Decision, Sample};
use report::record::Plan;

use crate::compare::worth::Prospect;
use crate::datadir::layout::Layout;
use crate::datadir::sample::{in_words, shared};
use crate::failure::Failure;
use crate::human::size;
use crate::limits::{Minute, PlannedTransfer, TransferLimits};
use crate::peer::link::Link;
use crate::server::ledger::Ledger;
use crate::snapshot::logical::locked::Hold;
use crate::snapshot::online::estimate::Prices;
use crate::snapshot::online::outlook::Outlook;

/// The sample is unreliable if the redo whose pages are not yet written is more than one byte in 50 of the data.
const REDO_COUNTS: u64 = 50;

/// How the joiner's files are compared.
#[derive(Clone, Copy)]
pub(super) struct Comparing {
    pub key: FingerprintKey,
    /// What the joiner may have in all, if comparing may end before the transfer does.
    pub prospect: Option<Prospect>,
}

/// The inputs of the decision.
pub(super) struct PlanInputs<'a> {
    pub layout: &'a Layout,
    /// Bytes of our files that this snapshot sends.
    pub bytes: u64,
    /// Bytes of these whose fingerprints are remembered.
    pub remembered: u64,
    /// The joiner has files to compare.
    pub compare: bool,
    /// The donor's option `incremental`.
    pub incremental: bool,
    /// The redo whose pages are not in our files yet; `None` if no redo is sent, or if it is not known.
    pub redo: Option<Outlook>,
    /// The donor's option `rlimit`, in bytes per second.
    pub rlimit: Option<u64>,
    /// How long the joiner's disk takes to read a page, if it has told.
    pub page_time: Option<Duration>,
    /// Whether only the differing pieces of a block may be sent (the option `delta`).
    pub parts: bool,
    /// What the operator permits.
    pub limits: TransferLimits,
}

impl PlanInputs<'_> {
    /// Returns how the joiner's files are compared, if they are. Sends the plan to a joiner that gave a sample.
    pub fn decide(
        &self,
        link: &mut Link,
        ledger: &Ledger,
        key: Option<FingerprintKey>,
        sample: Option<&Sample>,
    ) -> Result<Option<Comparing>> {
        let bytes = self.bytes;
        let unwritten = self.redo.map_or(0, |redo| redo.bytes);
        let full = |why: &str| (None, None, format!("plan: full, {} to send: {why}", size(bytes)));
        let mut plan = Plan { total: bytes, ..Plan::default() };
        let mut may_share = None;
        let (key, about, line) = match (key, sample) {
            (Some(key), Some(sample)) => {
                let shared = shared(self.layout, sample, &key, self.parts);
                let decision = sample.decide(shared, bytes);
                let words = in_words(decision, shared, sample.blocks.len(), bytes);
                plan.sampled_blocks = Some(sample.blocks.len() as u64);
                plan.equal_blocks = Some(shared.same as u64);
                may_share = sample.may_share(shared, bytes);
                match decision {
                    // The files of a busy server lag behind its redo, so the sample says little about what will be
                    // sent.
                    Decision::Full if unwritten > bytes / REDO_COUNTS => {
                        let line = format!(
                            "plan: incremental, at most {} to send (no sampled block matches, but {} of redo is not in the \
                             donor's files yet)",
                            size(bytes),
                            size(unwritten)
                        );
                        (Some(key), Some(bytes), line)
                    }
                    Decision::Full => (None, None, format!("plan: full, {words}")),
                    Decision::Incremental { about, in_parts, at_least } => {
                        (plan.sent_in_parts, plan.sent_at_least) = (Some(in_parts), Some(at_least));
                        (Some(key), Some(about), format!("plan: incremental, {words}"))
                    }
                }
            }
            _ if !self.incremental => full("incremental=0 is set on the donor"),
            _ if !self.compare => {
                full("the joiner compares nothing (incremental=0, or it replaces its files in place)")
            }
            _ => full("the joiner gave no sample"),
        };
        (plan.full, plan.sent) = (key.is_none(), Some(about.unwrap_or(bytes)));
        let line = match self.redo {
            None => line,
            Some(redo) => {
                let files = about.unwrap_or(bytes);
                let expected = redo.expect(&self.prices(), files);
                plan.redo = Some(expected.bytes);
                plan.redo_rounds = Some(expected.rounds.into());
                plan.recovery_ms = Some(expected.recovery.as_millis() as u64);
                format!("{line}; {}", redo.in_words(&self.prices(), files))
            }
        };
        let line = match (key, self.remembered) {
            (None, _) | (_, 0) => line,
            (Some(_), bytes) => format!("{line}; the donor remembers the fingerprints of {}", size(bytes)),
        };
        announce(Plan { words: line, ..plan }, link, ledger)?;
        if sample.is_some() {
            self.permit(about)?;
            link.send(&Message::Plan { about })?;
        }
        // Comparing may end where sending everything would be permitted from the start.
        let may_share = may_share.filter(|_| self.permit(None).is_ok());
        let prospect = may_share.map(|shared| Prospect { all: bytes, shared });
        Ok(key.map(|key| Comparing { key, prospect }))
    }

    /// As [`PlanInputs::decide`] for a logical snapshot, whose parts are compared only with those that the joiner has received before.
    /// `hold`: what holds writes meanwhile.
    pub fn decide_by_rows(
        &self,
        link: &mut Link,
        ledger: &Ledger,
        key: Option<FingerprintKey>,
        hold: Option<&Hold>,
    ) -> Result<Option<Comparing>> {
        announce(plan_by_rows(self.bytes, hold), link, ledger)?;
        if key.is_some() {
            self.permit(None)?;
            // All rows are sent, so both hosts' limits take this for a full transfer.
            link.send(&Message::Plan { about: None })?;
        }
        Ok(key.map(|key| Comparing { key, prospect: None }))
    }

    /// Whether our limits permit to send about so many bytes of files, `None` for all of them, and the redo.
    pub fn permit(&self, about: Option<u64>) -> Result<(), Failure> {
        let files = about.unwrap_or(self.bytes);
        let redo = self.redo.map_or(0, |redo| redo.expect(&self.prices(), files).bytes);
        let planned = PlannedTransfer { full: about.is_none(), bytes: files.saturating_add(redo) };
        self.limits.permit(planned, Minute::now())
    }

    fn prices(&self) -> Prices {
        let written = self.redo.map_or(0, |redo| redo.written) as f64;
        Prices::new(None, self.rlimit, written).recovering_at(self.page_time)
    }
}

/// The plan of a transfer of rows, with the tables that hold writes while they are read.
pub(crate) fn plan_by_rows(bytes: u64, hold: Option<&Hold>) -> Plan {
    let hold = hold.map_or_else(String::new, |hold| format!("; {}", hold.in_words()));
    let words = format!("plan: full, the rows of {} of files{hold}", size(bytes));
    Plan { total: bytes, full: true, sent: Some(bytes), words, ..Plan::default() }
}

/// Records the plan, and logs it on both hosts.
fn announce(plan: Plan, link: &mut Link, ledger: &Ledger) -> Result<()> {
    let line = plan.words.clone();
    ledger.update(|record| record.plan = Some(plan));
    tracing::info!("{line}");
    link.note(&line)
}
