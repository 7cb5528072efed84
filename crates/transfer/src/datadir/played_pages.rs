//! The few pages that determine the position, with redo applied to them: the transaction system page, the
//! rollback segment headers that it names, and the undo log headers that those name.
//!
//! The set of pages changes while redo is applied. A page that is named only then was usually created in the
//! same mini-transaction, so its changes can be applied from there on. If it was not, it is recorded, and the
//! log must be read again with that page in the set from the start.
use std::collections::{BTreeSet, HashMap};

use anyhow::Result;
use formats::innodb::page::{PageState, key_version, page_no, space_id, verify};
use formats::innodb::redo_change::Change;
use formats::innodb::redo_mtr::Mtr;
use formats::innodb::redo_page::{Gap, PageImage};
use formats::innodb::undo_header::{UndoState, undo_pages, undo_state};
use formats::innodb::wsrep_position::{StoredPosition, TRX_SYS_PAGE, newest, rseg_slots, stored_position};
use formats::{Lsn, PageNo, SpaceId};

use super::page_files::PageFiles;
use super::unknown_position::Unknown;

/// The most bytes of pages in memory at once.
const HELD_MAX: usize = 64 << 20;
const TRX_SYS: Id = (SpaceId(0), TRX_SYS_PAGE);

pub(super) type Id = (SpaceId, PageNo);

/// The role of a page, which determines what it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    TrxSys,
    Rseg,
    Undo,
}

#[derive(Debug)]
struct Played {
    role: Role,
    image: PageImage,
    /// No relevant change was applied before the page was in the set.
    complete: bool,
    /// Pages that it named at the last check.
    names: Vec<Id>,
}

/// The set of pages.
pub(super) struct PlayedPages<'f> {
    files: &'f PageFiles,
    pages: HashMap<Id, Played>,
    /// Pages that are followed from the start, whether they are named or not.
    wanted: BTreeSet<Id>,
}

/// The content of the header pages.
pub(super) struct Found {
    /// The position in the rollback segments.
    pub(super) stored: Option<StoredPosition>,
    /// Prepared transactions of a cluster.
    pub(super) prepared: Vec<StoredPosition>,
}

impl<'f> PlayedPages<'f> {
    /// Loads the pages from the files. `wanted` may be named later.
    pub(super) fn new(
        files: &'f PageFiles,
        wanted: BTreeSet<Id>,
    ) -> Result<Result<PlayedPages<'f>, Unknown>> {
        let mut pages = PlayedPages { files, pages: HashMap::new(), wanted };
        pages.add(TRX_SYS, Role::TrxSys, None)?;
        for id in pages.wanted.clone() {
            // Its role is known once it is named.
            pages.add(id, Role::Undo, None)?;
        }
        Ok(pages.follow_names(vec![TRX_SYS], None)?.map(|()| pages))
    }

    /// Applies a mini-transaction.
    pub(super) fn play(&mut self, mtr: &Mtr<'_>) -> Result<Result<(), Unknown>> {
        let mut naming = Vec::new();
        for change in mtr.changes() {
            let Ok(change) = change else { return Ok(Err(Unknown::BadRecord(mtr.start))) };
            if matches!(change.change, Change::Trim | Change::Encrypted { cut: true }) {
                for (id, page) in self.pages.iter_mut().filter(|(_, page)| page.image.concerns(&change)) {
                    page.image.play(mtr.start, mtr.end, &change);
                    naming.push(*id);
                }
                continue;
            }
            let id = (change.space, change.page);
            if let Some(page) = self.pages.get_mut(&id) {
                page.image.play(mtr.start, mtr.end, &change);
                page.complete |= change.change == Change::Init;
                if page.role != Role::Undo && !naming.contains(&id) {
                    naming.push(id);
                }
            }
        }
        self.follow_names(naming, Some(mtr))
    }

    /// Adds the pages that these pages name now, and removes those that they no longer name.
    fn follow_names(&mut self, mut naming: Vec<Id>, mtr: Option<&Mtr<'_>>) -> Result<Result<(), Unknown>> {
        while let Some(id) = naming.pop() {
            let Some((role, now)) = self.names_of(id) else { continue };
            let Some(page) = self.pages.get_mut(&id) else { continue };
            if page.names == now {
                continue;
            }
            let before = std::mem::replace(&mut page.names, now.clone());
            for gone in before.into_iter().filter(|id| !now.contains(id)) {
                self.forget(gone);
            }
            for new in now {
                if self.pages.contains_key(&new) {
                    if let Some(page) = self.pages.get_mut(&new) {
                        page.role = role;
                    }
                } else {
                    self.add(new, role, mtr)?;
                }
                naming.push(new);
            }
            if self.pages.len().saturating_mul(self.files.page_size()) > HELD_MAX {
                return Ok(Err(Unknown::TooManyUndoLogs(self.pages.len())));
            }
        }
        Ok(Ok(()))
    }

    /// The pages that this one names, with their roles.
    fn names_of(&self, id: Id) -> Option<(Role, Vec<Id>)> {
        let page = self.pages.get(&id)?;
        let content = page.image.content().unwrap_or_default();
        match page.role {
            Role::TrxSys => Some((Role::Rseg, rseg_slots(content))),
            Role::Rseg => {
                let size = self.files.page_size();
                Some((Role::Undo, undo_pages(content, size).map(|page| (id.0, page)).collect()))
            }
            Role::Undo => None,
        }
    }

    /// Removes a page, unless another page names it. Headers were copied at different times, so a page that
    /// moved from one segment to another in between may be in both.
    fn forget(&mut self, id: Id) {
        let named = self.pages.values().any(|page| page.names.contains(&id));
        if !self.wanted.contains(&id)
            && id != TRX_SYS
            && !named
            && let Some(page) = self.pages.remove(&id)
        {
            page.names.into_iter().for_each(|id| self.forget(id));
        }
    }

    /// Adds a page from its file, and applies the changes of `mtr` to it.
    fn add(&mut self, id: Id, role: Role, mtr: Option<&Mtr<'_>>) -> Result<()> {
        let image = PageImage::new(id.0, id.1, self.files.page_size(), self.load(id)?);
        let mut page = Played { role, image, complete: mtr.is_none(), names: Vec::new() };
        if let Some(mtr) = mtr {
            for change in mtr.changes().filter_map(Result::ok) {
                page.image.play(mtr.start, mtr.end, &change);
                page.complete |= change.change == Change::Init && page.image.concerns(&change);
            }
        }
        self.pages.insert(id, page);
        Ok(())
    }

    fn load(&self, (space, page): Id) -> Result<Result<Vec<u8>, Gap>> {
        let Some((format, bytes)) = self.files.page(space, page)? else { return Ok(Err(Gap::Missing)) };
        Ok(match verify(&format, &bytes) {
            PageState::Zero => Err(Gap::Missing),
            PageState::Valid if key_version(&format, &bytes).is_some_and(|version| version != 0) => {
                Err(Gap::Encrypted)
            }
            PageState::Valid if page_no(&bytes) == Some(page) && space_id(&format, &bytes) == Some(space) => {
                Ok(bytes)
            }
            _ => Err(Gap::Damaged),
        })
    }

    /// Relevant pages that were not followed from the start.
    pub(super) fn incomplete(&self) -> BTreeSet<Id> {
        self.pages.iter().filter(|(_, page)| !page.complete).map(|(id, _)| *id).collect()
    }

    /// Reads the result from the pages after the log was applied up to its `end`.
    pub(super) fn found(&self, end: Lsn) -> Result<Found, Unknown> {
        let content = |id: &Id| {
            let image = &self.pages.get(id).ok_or(Unknown::Page(*id, Gap::Missing))?.image;
            let bytes = image.content().map_err(|gap| Unknown::Page(*id, gap))?;
            if image.lsn() > end { Err(Unknown::PageAhead(*id, end)) } else { Ok(bytes) }
        };
        let size = self.files.page_size();
        let (mut stored, mut prepared) = (Vec::new(), Vec::new());
        for rseg in rseg_slots(content(&TRX_SYS)?) {
            let bytes = content(&rseg)?;
            stored.extend(stored_position(bytes, size));
            for undo in undo_pages(bytes, size).map(|page| (rseg.0, page)) {
                match undo_state(content(&undo)?) {
                    Some(UndoState::Settled) => {}
                    Some(UndoState::Prepared(position)) => prepared.push(position),
                    Some(UndoState::PreparedElsewhere) => return Err(Unknown::PreparedElsewhere),
                    None => return Err(Unknown::Page(undo, Gap::Damaged)),
                }
            }
        }
        Ok(Found { stored: newest(stored), prepared })
    }
}

#[cfg(test)]
#[path = "played_pages_tests.rs"]
mod tests;
