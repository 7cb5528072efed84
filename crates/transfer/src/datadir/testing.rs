//! Trees and layouts for the tests of this module.
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use formats::wsrep::invocation::SstArgs;

use super::layout::Layout;
use crate::server::options::ServerOptions;

/// A node's directories below one temporary directory; the datadir is `data` in it.
pub struct Tree {
    dir: tempfile::TempDir,
}

impl Tree {
    pub fn new() -> Tree {
        let tree = Tree { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(tree.path("data")).unwrap();
        tree
    }

    /// With a system tablespace, redo log and Aria logs where a default configuration has them.
    pub fn with_engine_files() -> Tree {
        let tree = Tree::new();
        for name in ["ibdata1", "ib_logfile0", "aria_log.00000001", "aria_log_control"] {
            tree.file(&format!("data/{name}"), name);
        }
        tree
    }

    /// The canonical path: a temporary directory may be behind a link.
    pub fn path(&self, name: &str) -> PathBuf {
        fs::canonicalize(self.dir.path()).unwrap().join(name)
    }

    pub fn file(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn link(&self, name: &str, target: impl AsRef<Path>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    /// The layout of a server with this command line; `DIR` stands for the temporary directory.
    pub fn try_layout(&self, words: &[&str], sst: &str) -> anyhow::Result<Layout> {
        let dir = self.path("");
        let dir = dir.to_str().unwrap().trim_end_matches('/');
        fs::write(self.path("my.cnf"), format!("[sst]\n{sst}\n")).unwrap();
        let args = SstArgs {
            datadir: Some(format!("{dir}/data/")),
            defaults_file: Some(format!("{dir}/my.cnf")),
            mysqld_args: words.iter().map(|word| word.replace("DIR", dir)).collect(),
            ..SstArgs::default()
        };
        Layout::resolve(&args, &ServerOptions::load(&args)?)
    }

    pub fn layout(&self, words: &[&str]) -> Layout {
        self.try_layout(words, "").unwrap()
    }
}

/// Size of the pages that [`page`] makes.
pub const PAGE: usize = 16384;

pub fn put(page: &mut [u8], at: usize, bytes: &[u8]) {
    page[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A valid page in the full_crc32 format, last changed at `lsn`.
pub fn page(space: u32, number: u32, lsn: u64, content: &[(usize, &[u8])]) -> Vec<u8> {
    let mut page = vec![0; PAGE];
    put(&mut page, 4, &number.to_be_bytes());
    put(&mut page, 16, &lsn.to_be_bytes());
    put(&mut page, 34, &space.to_be_bytes());
    if number == 0 {
        put(&mut page, 38, &space.to_be_bytes());
        put(&mut page, 54, &0x15u32.to_be_bytes());
    }
    content.iter().for_each(|(at, bytes)| put(&mut page, *at, bytes));
    put(&mut page, PAGE - 8, &(lsn as u32).to_be_bytes());
    let sum = crc32c::crc32c(&page[..PAGE - 4]);
    put(&mut page, PAGE - 4, &sum.to_be_bytes());
    page
}

/// A file of `count` pages, zeros but for these.
pub fn write_pages(tree: &Tree, name: &str, pages: &[(usize, Vec<u8>)], count: usize) -> PathBuf {
    tree.file(name, "");
    let mut content = vec![0; count * PAGE];
    pages.iter().for_each(|(number, page)| put(&mut content, number * PAGE, page));
    fs::write(tree.path(name), content).unwrap();
    tree.path(name)
}
