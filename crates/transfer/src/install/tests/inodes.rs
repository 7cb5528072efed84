//! The files and directories of the simulated filesystem, and which of their names survive a power loss.
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::content::Content;

pub(super) type Inode = usize;

#[derive(Clone, Debug)]
pub(super) enum Node {
    File(Content),
    Directory { now: BTreeMap<String, Inode>, durable: BTreeMap<String, Inode> },
}

/// One name that an operation sets or removes.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub directory: Inode,
    pub name: String,
    pub inode: Inode,
    pub set: bool,
}

/// Which operations that were not synced survive a power loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Per directory, some first ones; a rename is in both directories or in none.
    Suffix,
    /// Any of them, those of one name in their order; a rename is in both directories or in none.
    Any,
    /// None of them.
    All,
}

/// Which files and directories there are: as a program sees them, and as they are on the disk.
#[derive(Clone, Debug)]
pub(super) struct Inodes {
    pub nodes: Vec<Node>,
    /// Operations that are not durable yet.
    pub pending: Vec<Vec<Change>>,
    pub loss: Loss,
}

impl Inodes {
    pub fn find(&self, path: &Path) -> Option<Inode> {
        let mut inode = 0;
        for part in path.components().skip(1) {
            match &self.nodes[inode] {
                Node::Directory { now, .. } => inode = *now.get(part.as_os_str().to_str()?)?,
                Node::File(_) => return None,
            }
        }
        Some(inode)
    }

    pub fn place(&self, path: &Path) -> Result<(Inode, String)> {
        let parent = path.parent().context("no parent")?;
        let directory = self.find(parent).with_context(|| format!("no directory {}", parent.display()))?;
        let name = path.file_name().and_then(|n| n.to_str()).context("no name")?;
        Ok((directory, name.to_owned()))
    }

    pub fn change(&mut self, operation: Vec<Change>) {
        for change in &operation {
            if let Node::Directory { now, .. } = &mut self.nodes[change.directory] {
                apply(now, change);
            }
        }
        self.pending.push(operation);
    }

    pub fn make_durable(&mut self, operation: &[Change]) {
        for change in operation {
            if let Node::Directory { durable, .. } = &mut self.nodes[change.directory] {
                apply(durable, change);
            }
        }
    }

    fn add(&mut self, path: &Path, node: Node) -> Result<()> {
        let (directory, name) = self.place(path)?;
        self.nodes.push(node);
        let inode = self.nodes.len() - 1;
        self.change(vec![Change { directory, name, inode, set: true }]);
        Ok(())
    }

    pub fn make_directory(&mut self, path: &Path) -> Result<()> {
        self.add(path, Node::Directory { now: BTreeMap::new(), durable: BTreeMap::new() })
    }

    pub fn put(&mut self, path: &Path, content: &[u8]) -> Result<()> {
        match self.find(path) {
            Some(inode) => {
                self.nodes[inode] = Node::File(Content::durable(content));
                Ok(())
            }
            None => self.add(path, Node::File(Content::durable(content))),
        }
    }

    /// Writes what is not synced; `anew` when no byte of what was there is left alone.
    pub fn write(&mut self, path: &Path, content: &[u8], anew: bool) -> Result<()> {
        if self.find(path).is_none() {
            self.add(path, Node::File(Content::durable(b"")))?;
        }
        match self.find(path).map(|inode| &mut self.nodes[inode]) {
            Some(Node::File(file)) => {
                file.write(content);
                if anew {
                    file.durable = Some(Vec::new());
                }
            }
            _ => bail!("{} is a directory", path.display()),
        }
        Ok(())
    }

    pub fn sync_file(&mut self, path: &Path) {
        if let Some(Node::File(content)) = self.find(path).map(|inode| &mut self.nodes[inode]) {
            content.durable = None;
        }
    }

    pub fn unlink(&mut self, path: &Path) -> Result<()> {
        let Some(inode) = self.find(path) else { return Ok(()) };
        let (directory, name) = self.place(path)?;
        self.change(vec![Change { directory, name, inode, set: false }]);
        Ok(())
    }

    pub fn sync(&mut self, directory: Inode) {
        let mut wanted = BTreeSet::from([directory]);
        let mut chosen = vec![false; self.pending.len()];
        for (index, operation) in self.pending.iter().enumerate().rev() {
            chosen[index] = operation.iter().any(|c| wanted.contains(&c.directory));
            // What came before in the other directory of a rename is durable too, where directories are ordered.
            if chosen[index] && self.loss != Loss::Any {
                wanted.extend(operation.iter().map(|c| c.directory));
            }
        }
        let pending = std::mem::take(&mut self.pending);
        for (operation, chosen) in pending.into_iter().zip(chosen) {
            if chosen {
                self.make_durable(&operation);
            } else {
                self.pending.push(operation);
            }
        }
    }
}

fn apply(names: &mut BTreeMap<String, Inode>, change: &Change) {
    if change.set {
        names.insert(change.name.clone(), change.inode);
    } else if names.get(&change.name) == Some(&change.inode) {
        names.remove(&change.name);
    }
}
