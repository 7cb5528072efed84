//! The two connections on which files are compared: our questions, and what the joiner answers.
use anyhow::{Context, Result};
use protocol::inventory::FileId;
use protocol::marks;
use protocol::message::Message;

use super::compare::{Compare, Theirs};
use crate::failure::{Failure, Kind};
use crate::peer::link::Link;
use crate::peer::relay::relay;
use crate::threads::lock;

impl Compare<'_> {
    /// The connection on which we ask.
    pub fn send_questions(&self, link: &mut Link) -> Result<()> {
        let asked = lock(&self.asked).take().context("the questions are asked already")?;
        link.send(&Message::Asks)?;
        relay(link, &asked, &Message::LooksEnd, "comparing files", self.cancel)
    }

    /// The connection on which we hear.
    pub fn hear_answers(&self, link: &mut Link) -> Result<()> {
        link.send(&Message::Answers)?;
        loop {
            match link.recv()? {
                Message::Base { file, size } => self.note(file, |theirs| theirs.size = Some(size))?,
                Message::Together { first, mark } => {
                    if !self.together().hear(first, mark) {
                        return Err(not_asked(first).into());
                    }
                }
                Message::Marks { file, first, marks } if marks.len() <= marks::MARKS_MAX => {
                    self.note(file, |theirs| {
                        for (range, mark) in (first..).zip(marks) {
                            theirs.ranges.entry(range).or_insert(Some(mark));
                        }
                    })?;
                }
                Message::Blocks { file, range, marks } if marks.len() <= marks::MARKS_MAX => {
                    self.note(file, |theirs| {
                        if theirs.asked.contains(&range) {
                            theirs.blocks.insert(range, marks);
                        }
                    })?;
                }
                Message::Pieces { file, range, marks } if marks.len() <= marks::MARKS_MAX => {
                    self.note(file, |theirs| {
                        if theirs.asked.contains(&range) {
                            theirs.pieces.insert(range, marks);
                        }
                    })?;
                }
                Message::Rebuilt { file, offset, failed } => {
                    if !self.unconfirmed().hear(file, offset, &failed) {
                        let text = format!(
                            "the joiner rebuilt blocks of file number {} that it was not sent",
                            file.0
                        );
                        return Err(Failure::new(Kind::Peer, text).into());
                    }
                }
                Message::AnswersEnd => return Ok(()),
                other => {
                    let text = format!("the joiner said {} among its answers", other.name());
                    return Err(Failure::new(Kind::Peer, text).into());
                }
            }
        }
    }

    fn note(&self, file: FileId, change: impl FnOnce(&mut Theirs)) -> Result<(), Failure> {
        let mut files = lock(&self.files);
        change(files.get_mut(&file).ok_or_else(|| not_asked(file))?);
        self.heard.notify_all();
        Ok(())
    }
}

fn not_asked(file: FileId) -> Failure {
    let text = format!("the joiner answers about file number {}, which it was not asked for", file.0);
    Failure::new(Kind::Peer, text)
}
