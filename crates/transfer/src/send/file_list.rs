//! The final list, which tells the joiner which files the state consists of.
use anyhow::Result;
use protocol::entries::Entries;
use protocol::inventory::{FileEntry, FileId, batches};
use protocol::limits::FILES_PER_MESSAGE_MAX;
use protocol::message::Message;

/// The files of the state, and which of them the joiner knows by their numbers. The messages are made when they are
/// sent, because as values they take several times the memory of the list.
#[derive(Debug)]
pub struct FileList {
    pub(super) files: Entries,
    pub(super) runs: Vec<Run>,
}

/// Files that follow each other in the list.
#[derive(Debug)]
pub(super) enum Run {
    /// The joiner was asked about them with the same entries, and their numbers are consecutive.
    Known { first: FileId, count: u32 },
    /// They are sent with their entries.
    Named { count: usize },
}

impl FileList {
    /// The files.
    pub fn files(&self) -> &Entries {
        &self.files
    }

    /// Passes the messages to `send`, in order.
    ///
    /// # Errors
    /// From `send`.
    pub fn messages(&self, mut send: impl FnMut(&Message) -> Result<()>) -> Result<()> {
        let mut files = self.files.iter();
        for run in &self.runs {
            match run {
                Run::Known { first, count } => {
                    send(&Message::FilesKnown { first: *first, count: *count })?;
                    files.by_ref().take(*count as usize).for_each(drop);
                }
                Run::Named { count } => {
                    let mut left = *count;
                    while left > 0 {
                        let some: Vec<FileEntry> =
                            files.by_ref().take(left.min(FILES_PER_MESSAGE_MAX)).collect();
                        left = left.saturating_sub(FILES_PER_MESSAGE_MAX);
                        batches(&some).try_for_each(|batch| send(&Message::Files(batch.to_vec())))?;
                    }
                }
            }
        }
        Ok(())
    }
}
