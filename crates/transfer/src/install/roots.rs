//! Staging roots: one `.rejoin/` on each filesystem in use, so that installing is renaming.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::install::files::{Files, What};
use crate::install::names::{OF_PROGRAMS, OWN_DIRECTORY, ROOTS, own_directory, working_directory};

/// Maps directories to staging roots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    roots: Vec<PathBuf>,
    of_directory: BTreeMap<PathBuf, usize>,
}

impl Roots {
    /// Chooses a root for each path's directory: the datadir's own root on the same filesystem, otherwise
    /// `.rejoin` in the directory of the first path on that filesystem.
    pub fn choose<'p>(
        files: &dyn Files,
        datadir: &Path,
        paths: impl IntoIterator<Item = &'p Path>,
    ) -> Result<Roots> {
        let own = Roots { roots: vec![own_directory(datadir)], of_directory: BTreeMap::new() };
        own.extend(files, paths)
    }

    /// Chooses roots for more paths; earlier choices do not change.
    pub fn extend<'p>(
        mut self,
        files: &dyn Files,
        paths: impl IntoIterator<Item = &'p Path>,
    ) -> Result<Roots> {
        let mut filesystems = Vec::with_capacity(self.roots.len());
        for root in &self.roots {
            filesystems.push(files.filesystem(root)?);
        }
        for path in paths {
            let directory = path.parent().with_context(|| format!("{} has no directory", path.display()))?;
            if self.of_directory.contains_key(directory) {
                continue;
            }
            let filesystem = files.filesystem(directory)?;
            let index = match filesystems.iter().position(|known| *known == filesystem) {
                Some(known) => known,
                None => {
                    filesystems.push(filesystem);
                    // A link in the path may be one of the files that are retired.
                    self.roots.push(files.real_path(directory)?.join(OWN_DIRECTORY));
                    self.roots.len() - 1
                }
            };
            self.of_directory.insert(directory.to_path_buf(), index);
        }
        Ok(self)
    }

    /// All roots, the datadir's own first.
    pub fn all(&self) -> &[PathBuf] {
        &self.roots
    }

    /// The root from which a file can be renamed to this path, which must be one of the chosen paths.
    pub fn for_path(&self, path: &Path) -> Option<&Path> {
        let index = *self.of_directory.get(path.parent()?)?;
        self.roots.get(index).map(PathBuf::as_path)
    }
}

/// Adds to the durable list of roots that may exist, so that leftovers on other filesystems are found even if
/// the next transfer uses other roots. Call it before the first of them is created.
pub fn remember(files: &dyn Files, datadir: &Path, roots: &[PathBuf]) -> Result<()> {
    let mut known = remembered(files, datadir)?;
    let before = known.len();
    for root in roots {
        if !known.contains(root) {
            known.push(root.clone());
        }
    }
    let own = own_directory(datadir);
    files.make_directory(&own)?;
    files.sync_directory(datadir)?;
    if known.len() == before {
        return Ok(());
    }
    let text = serde_json::to_vec_pretty(&known).context("a staging root's path is not text")?;
    files.write_atomically(&own.join(ROOTS), &text)
}

/// Every root that may exist, always including the datadir's own.
pub fn remembered(files: &dyn Files, datadir: &Path) -> Result<Vec<PathBuf>> {
    let path = own_directory(datadir).join(ROOTS);
    let mut roots: Vec<PathBuf> = match files.read(&path)? {
        Some(text) => {
            serde_json::from_slice(&text).with_context(|| format!("{} cannot be parsed", path.display()))?
        }
        None => Vec::new(),
    };
    if !roots.contains(&own_directory(datadir)) {
        roots.insert(0, own_directory(datadir));
    }
    Ok(roots)
}

/// Removes a directory with everything in it.
///
/// # Errors
/// Something cannot be removed.
pub fn clear_tree(files: &dyn Files, directory: &Path) -> Result<()> {
    for path in files.list(directory)? {
        match files.what(&path)? {
            Some(What::Directory) => clear_tree(files, &path)?,
            _ => files.remove(&path)?,
        }
    }
    files.remove_directory(directory)
}

/// Removes the files on which other programs were still working in any root when they ended with ours: they take as much room as
/// a whole set of files.
///
/// # Errors
/// Something cannot be removed.
pub fn clear_after_programs(files: &dyn Files, datadir: &Path) -> Result<()> {
    remembered(files, datadir)?.iter().try_for_each(|root| clear_of_programs(files, root))
}

/// As [`clear_after_programs`], in one root.
///
/// # Errors
/// Something cannot be removed.
pub fn clear_of_programs(files: &dyn Files, root: &Path) -> Result<()> {
    OF_PROGRAMS.iter().try_for_each(|name| clear_tree(files, &working_directory(root, name)))
}

/// Removes the files in a flat directory of a root, then the directory.
///
/// # Errors
/// One cannot be removed.
pub fn clear(files: &dyn Files, directory: &Path) -> Result<()> {
    for path in files.list(directory)? {
        files.remove(&path)?;
    }
    files.remove_directory(directory)
}
