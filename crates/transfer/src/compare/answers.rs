//! The two connections on which files are compared: one for our questions, one for the joiner's answers.
use anyhow::{Context, Result};
use protocol::fingerprint;
use protocol::inventory::FileId;
use protocol::message::Message;

use crate::compare::comparison::Compare;
use crate::compare::theirs::Theirs;
use crate::failure::{Failure, Kind};
use crate::human::printable;
use crate::peer::link::Link;
use crate::peer::relay::relay;
use crate::threads::lock;

impl Compare<'_> {
    /// Serves the connection on which we ask.
    pub fn send_questions(&self, link: &mut Link) -> Result<()> {
        let asked = lock(&self.asked).take().context("the questions are asked already")?;
        link.send(&Message::Asks)?;
        relay(link, &asked, &Message::CompareEnd, "comparing files", self.cancel)
    }

    /// Serves the connection on which the joiner answers.
    pub fn receive_answers(&self, link: &mut Link) -> Result<()> {
        link.send(&Message::Answers)?;
        loop {
            match link.recv()? {
                Message::JoinersFile { file, size } => self.note(file, |theirs| theirs.size = Some(size))?,
                Message::GroupFingerprint { first, fingerprint } => {
                    if !self.together().answered(first, fingerprint) {
                        return Err(not_asked(first).into());
                    }
                }
                Message::RangeFingerprints { file, first, fingerprints }
                    if fingerprints.len() <= fingerprint::FINGERPRINTS_MAX =>
                {
                    self.note(file, |theirs| {
                        for (range, fingerprint) in (first..).zip(fingerprints) {
                            theirs.add(range, fingerprint);
                        }
                    })?;
                }
                Message::BlockFingerprints { file, range, fingerprints }
                    if fingerprints.len() <= fingerprint::FINGERPRINTS_MAX =>
                {
                    self.note(file, |theirs| {
                        if theirs.close().asked.contains(&range) {
                            theirs.close().blocks.insert(range, fingerprints);
                        }
                    })?;
                }
                Message::PieceFingerprints { file, range, fingerprints }
                    if fingerprints.len() <= fingerprint::FINGERPRINTS_MAX =>
                {
                    self.note(file, |theirs| {
                        if theirs.close().asked.contains(&range) {
                            theirs.close().pieces.insert(range, fingerprints);
                        }
                    })?;
                }
                Message::Rebuilt { file, offset, failed } => {
                    if !self.pending_rebuilds().rebuilt(file, offset, &failed) {
                        let text = format!(
                            "the joiner rebuilt blocks of file number {} that it was not sent",
                            file.0
                        );
                        return Err(Failure::new(Kind::Peer, text).into());
                    }
                }
                Message::WrongFingerprints { what } => {
                    tracing::warn!("the joiner says: {}; its answers do not count", printable(&what));
                    lock(&self.wrong).get_or_insert(what);
                }
                Message::Pace(pace) => *lock(&self.pace) = Some(pace),
                Message::AnswersEnd => return Ok(()),
                other => {
                    let text = format!("the joiner sent {}, expected an answer", other.name());
                    return Err(Failure::new(Kind::Peer, text).into());
                }
            }
        }
    }

    fn note(&self, file: FileId, change: impl FnOnce(&mut Theirs)) -> Result<(), Failure> {
        let mut files = lock(&self.files);
        if !files.is_asked(file) {
            return Err(not_asked(file));
        }
        // An answer about a file that was handed over meanwhile is no longer needed.
        if let Some(theirs) = files.get_mut(file) {
            change(theirs);
        }
        files.close_if_done(file);
        self.answered.notify_all();
        Ok(())
    }
}

fn not_asked(file: FileId) -> Failure {
    let text = format!("the joiner answers about file number {}, which it was not asked for", file.0);
    Failure::new(Kind::Peer, text)
}
