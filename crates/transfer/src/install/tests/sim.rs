//! A filesystem in memory that can be stopped before its n-th operation, and can lose what was not synced: names, and what
//! files hold. One kind of sync can be left out, to show that the tests notice.
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

pub use super::inodes::Loss;
use super::inodes::{Change, Inodes, Node};
use crate::disk::filesystem::{FilesystemId, filesystem_of};
use crate::disk::probe::{Entry, Kind, Probe, Rights};
use crate::install::files::{Files, What};
use crate::install::names::file_name;
use crate::install::patch::Changes;

/// A sync: of a file, or of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    File,
    Directory,
}

/// Whether a sync of this path is left out.
pub type LeftOut = fn(Sync, &Path) -> bool;

/// The filesystem. Everything below `/other` is a filesystem of its own.
#[derive(Clone, Debug)]
pub struct Sim {
    inodes: RefCell<Inodes>,
    left: Cell<usize>,
    pub operations: Cell<usize>,
    pub left_out: Cell<Option<LeftOut>>,
    filesystems: (FilesystemId, FilesystemId),
    /// What a look at these paths shows, whatever is there.
    pub entries: RefCell<BTreeMap<PathBuf, Entry>>,
    /// What may be done in these directories, instead of all.
    pub rights: RefCell<BTreeMap<PathBuf, Rights>>,
    /// Files that may not be opened.
    pub closed: RefCell<BTreeSet<PathBuf>>,
}

impl Sim {
    pub fn new(loss: Loss) -> Sim {
        let root = Node::Directory { now: BTreeMap::new(), durable: BTreeMap::new() };
        Sim {
            inodes: RefCell::new(Inodes { nodes: vec![root], pending: Vec::new(), loss }),
            left: Cell::new(usize::MAX),
            operations: Cell::new(0),
            left_out: Cell::new(None),
            filesystems: (filesystem_of("/".as_ref()).unwrap(), filesystem_of("/proc".as_ref()).unwrap()),
            entries: RefCell::default(),
            rights: RefCell::default(),
            closed: RefCell::default(),
        }
    }

    /// The n-th operation from now on, and all after it, fail.
    pub fn stop_before(&self, n: usize) {
        self.left.set(n);
    }

    fn tick(&self) -> Result<()> {
        if self.left.get() == 0 {
            bail!("stopped");
        }
        self.left.set(self.left.get() - 1);
        self.operations.set(self.operations.get() + 1);
        Ok(())
    }

    /// Everything so far becomes durable.
    pub fn settle(&self) {
        let mut inodes = self.inodes.borrow_mut();
        inodes.pending.clear();
        for node in &mut inodes.nodes {
            match node {
                Node::Directory { now, durable } => *durable = now.clone(),
                Node::File(content) => content.durable = None,
            }
        }
    }

    /// These files were written and not synced yet.
    pub fn are_unsynced(&self, which: impl Fn(&Path) -> bool) {
        let paths: Vec<PathBuf> = self.everything().into_keys().filter(|path| which(path)).collect();
        let mut inodes = self.inodes.borrow_mut();
        for path in paths {
            if let Some(Node::File(content)) = inodes.find(&path).map(|inode| &mut inodes.nodes[inode]) {
                content.durable = Some(Vec::new());
            }
        }
    }

    /// What a whole filesystem holds becomes durable.
    pub fn sync_filesystem(&self) {
        for (path, content) in self.everything() {
            if content.is_some() && !self.leaves_out(Sync::File, &path) {
                self.inodes.borrow_mut().sync_file(&path);
            }
        }
        let mut inodes = self.inodes.borrow_mut();
        for operation in std::mem::take(&mut inodes.pending) {
            inodes.make_durable(&operation);
        }
    }

    fn leaves_out(&self, sync: Sync, path: &Path) -> bool {
        self.left_out.get().is_some_and(|left_out| left_out(sync, path))
    }

    /// The power fails: of what is not durable, `random` chooses what survives.
    pub fn lose_power(&self, mut random: impl FnMut() -> bool) {
        let mut inodes = self.inodes.borrow_mut();
        let loss = inodes.loss;
        let mut blocked = BTreeSet::new();
        for operation in std::mem::take(&mut inodes.pending) {
            let within = |c: &Change| (c.directory, (loss == Loss::Any).then(|| c.name.clone()));
            let free = operation.iter().all(|c| !blocked.contains(&within(c)));
            if loss != Loss::All && free && random() {
                inodes.make_durable(&operation);
            } else {
                blocked.extend(operation.iter().map(within));
            }
        }
        for node in &mut inodes.nodes {
            match node {
                Node::Directory { now, durable } => *now = durable.clone(),
                Node::File(content) => content.lose(&mut random),
            }
        }
    }

    /// Writes as a server does: in place and synced, or a new name that nobody synced.
    pub fn put(&self, path: &Path, content: &[u8]) {
        self.inodes.borrow_mut().put(path, content).unwrap();
    }

    /// Makes a directory and its parents, not counted.
    pub fn make_all(&self, path: &Path) {
        for directory in path.ancestors().collect::<Vec<_>>().into_iter().rev() {
            let mut inodes = self.inodes.borrow_mut();
            if inodes.find(directory).is_none() {
                inodes.make_directory(directory).unwrap();
            }
        }
    }

    /// Removes a file, not counted.
    pub fn delete(&self, path: &Path) {
        self.inodes.borrow_mut().unlink(path).unwrap();
    }

    /// All paths with what lies there.
    pub fn everything(&self) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let inodes = self.inodes.borrow();
        let mut found = BTreeMap::new();
        let mut todo = vec![(PathBuf::from("/"), 0)];
        while let Some((path, inode)) = todo.pop() {
            match &inodes.nodes[inode] {
                Node::File(content) => {
                    found.insert(path, Some(content.now.clone()));
                }
                Node::Directory { now, .. } => {
                    todo.extend(now.iter().map(|(name, inode)| (path.join(name), *inode)));
                    found.insert(path, None);
                }
            }
        }
        found
    }
}

impl Sim {
    /// Refuses what a kernel would refuse where [`Sim::rights`] and [`Sim::entries`] say so.
    fn may_change(&self, path: &Path) -> Result<()> {
        let held = self.entries.borrow().get(path).is_some_and(|entry| entry.locked || entry.mounted);
        let rights = path.parent().and_then(|parent| self.rights.borrow().get(parent).copied());
        if held || rights.is_some() {
            bail!("{} cannot be changed", path.display());
        }
        Ok(())
    }

    fn may_open_for(&self, path: &Path) -> Result<()> {
        if self.closed.borrow().contains(path) {
            bail!("{} cannot be opened", path.display());
        }
        Ok(())
    }
}

impl Probe for Sim {
    fn entry(&self, path: &Path) -> io::Result<Option<Entry>> {
        if let Some(entry) = self.entries.borrow().get(path) {
            return Ok(Some(entry.clone()));
        }
        let inodes = self.inodes.borrow();
        Ok(inodes.find(path).map(|inode| match inodes.nodes[inode] {
            Node::File(_) => Entry::plain(Kind::File),
            Node::Directory { .. } => Entry::plain(Kind::Directory),
        }))
    }

    fn rights(&self, directory: &Path) -> io::Result<Rights> {
        match self.entry(directory)?.map(|entry| entry.kind) {
            None | Some(Kind::Link(_)) => Err(io::ErrorKind::NotFound.into()),
            Some(Kind::File | Kind::Other(_)) => Err(io::ErrorKind::NotADirectory.into()),
            Some(Kind::Directory) => Ok(*self.rights.borrow().get(directory).unwrap_or(&Rights::All)),
        }
    }

    fn may_open(&self, file: &Path, _: bool) -> bool {
        !self.closed.borrow().contains(file)
    }
}

impl Files for Sim {
    fn real_path(&self, directory: &Path) -> Result<PathBuf> {
        Ok(directory.to_path_buf())
    }

    fn filesystem(&self, path: &Path) -> Result<FilesystemId> {
        Ok(if path.starts_with("/other") { self.filesystems.1 } else { self.filesystems.0 })
    }

    fn what(&self, path: &Path) -> Result<Option<What>> {
        let inodes = self.inodes.borrow();
        Ok(inodes.find(path).map(|inode| match inodes.nodes[inode] {
            Node::File(_) => What::File,
            Node::Directory { .. } => What::Directory,
        }))
    }

    fn state(&self, path: &Path) -> Result<Option<(u64, i128)>> {
        Ok(self.read(path)?.map(|content| (content.len() as u64, 0)))
    }

    fn list(&self, directory: &Path) -> Result<Vec<PathBuf>> {
        let inodes = self.inodes.borrow();
        Ok(match inodes.find(directory).map(|inode| &inodes.nodes[inode]) {
            Some(Node::Directory { now, .. }) => now.keys().map(|name| directory.join(name)).collect(),
            _ => Vec::new(),
        })
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        let inodes = self.inodes.borrow();
        Ok(match inodes.find(path).map(|inode| &inodes.nodes[inode]) {
            Some(Node::File(content)) => Some(content.now.clone()),
            _ => None,
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.may_change(from)?;
        self.may_change(to)?;
        self.tick()?;
        if self.filesystem(from)? != self.filesystem(to)? {
            bail!("{} and {} are on two filesystems", from.display(), to.display());
        }
        let mut inodes = self.inodes.borrow_mut();
        let inode = inodes.find(from).with_context(|| format!("no file {}", from.display()))?;
        if inodes.find(to) == Some(inode) {
            return Ok(()); // As rename(2) does with two names of one file.
        }
        let ((from, from_name), (to, to_name)) = (inodes.place(from)?, inodes.place(to)?);
        inodes.change(vec![
            Change { directory: to, name: to_name, inode, set: true },
            Change { directory: from, name: from_name, inode, set: false },
        ]);
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> Result<bool> {
        self.may_change(from)?;
        self.may_change(to)?;
        self.tick()?;
        let mut inodes = self.inodes.borrow_mut();
        let inode = inodes.find(from).with_context(|| format!("no file {}", from.display()))?;
        let (directory, name) = inodes.place(to)?;
        inodes.change(vec![Change { directory, name, inode, set: true }]);
        Ok(true)
    }

    fn copy_unsynced(&self, from: &Path, to: &Path) -> Result<()> {
        self.may_open_for(from)?;
        let content = self.read(from)?.with_context(|| format!("no file {}", from.display()))?;
        self.write_unsynced(to, &content)
    }

    fn patch_unsynced(&self, patch: &Path, table: &Path) -> Result<()> {
        self.may_open_for(table)?;
        let patch = self.read(patch)?.with_context(|| format!("no patch {}", patch.display()))?;
        let changes = Changes::read(patch.len() as u64, |at, bytes| {
            bytes.copy_from_slice(&patch[at as usize..at as usize + bytes.len()]);
            Ok(())
        })?;
        let mut content = self.read(table)?.with_context(|| format!("no table {}", table.display()))?;
        let size = changes.size as usize;
        content.resize(content.len().max(size), b'?');
        let stopped = self.tick();
        // Every second byte, when it is stopped.
        for at in changes.parts.iter().flat_map(|part| part.start as usize..part.end as usize) {
            if stopped.is_ok() || at % 2 == 0 {
                content[at] = patch[at];
            }
        }
        if stopped.is_ok() {
            content.truncate(size);
        }
        self.inodes.borrow_mut().write(table, &content, false)?;
        stopped
    }

    fn temporary(&self, path: &Path) -> Result<PathBuf> {
        Ok(path.with_file_name(format!("{}.tmp", file_name(path))))
    }

    fn remove_temporaries(&self, path: &Path) -> Result<()> {
        self.remove(&self.temporary(path)?)
    }

    fn write_unsynced(&self, path: &Path, content: &[u8]) -> Result<()> {
        self.may_change(path)?;
        let stopped = self.tick();
        let written = if stopped.is_ok() { content } else { &content[..content.len() / 2] };
        self.inodes.borrow_mut().write(path, written, true)?;
        stopped
    }

    fn remove(&self, path: &Path) -> Result<()> {
        if !self.exists(path)? {
            return Ok(());
        }
        self.may_change(path)?;
        if self.what(path)? == Some(What::Directory) {
            bail!("{} is a directory", path.display());
        }
        self.tick()?;
        self.inodes.borrow_mut().unlink(path)
    }

    fn make_directory(&self, path: &Path) -> Result<()> {
        if self.what(path)? == Some(What::Directory) {
            return Ok(());
        }
        self.may_change(path)?;
        self.tick()?;
        self.inodes.borrow_mut().make_directory(path)
    }

    fn remove_directory(&self, path: &Path) -> Result<()> {
        if self.what(path)? != Some(What::Directory) || !self.list(path)?.is_empty() {
            return Ok(());
        }
        if self.may_change(path).is_err() {
            return Ok(());
        }
        self.tick()?;
        self.inodes.borrow_mut().unlink(path)
    }

    fn sync_file(&self, path: &Path) -> Result<()> {
        self.tick()?;
        if !self.leaves_out(Sync::File, path) {
            self.inodes.borrow_mut().sync_file(path);
        }
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> Result<()> {
        self.tick()?;
        let mut inodes = self.inodes.borrow_mut();
        if let Some(inode) = inodes.find(path).filter(|_| !self.leaves_out(Sync::Directory, path)) {
            inodes.sync(inode);
        }
        Ok(())
    }
}
