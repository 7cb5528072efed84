//! What a joiner answers from memory.
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};

use protocol::fingerprint::{self, Fingerprint};
use protocol::inventory::{FileEntry, FileId, FileRole, Place};
use protocol::message::Message;

use crate::cancel::Cancel;
use crate::datadir::testing::Tree;
use crate::flavor::mariadb::MariaDb;
use crate::receive::base::Base;
use crate::receive::staging::Staging;
use crate::remembered::memory::Memory;
use crate::remembered::testing::{KEY, misremembering, remembering};

const RANGES: usize = 12;
const FILE: FileId = FileId(1);

/// A table of twelve ranges, each with a content of its own.
fn table(tree: &Tree) -> (PathBuf, Vec<Fingerprint>) {
    tree.file("data/d/t.MAD", "");
    let path = tree.path("data/d/t.MAD");
    let content: Vec<u8> = (0..RANGES << 20).map(|n| (n % 251) as u8 ^ (n >> 20) as u8).collect();
    fs::write(&path, &content).unwrap();
    let range =
        |bytes: &[u8]| fingerprint::range_fingerprint(&KEY, &fingerprint::block_fingerprints(&KEY, bytes));
    (path, content.chunks(1 << 20).map(range).collect())
}

/// What is answered about it, and how many ranges were read and remembered.
fn asked(tree: &Tree, memory: &Arc<Memory>) -> (Vec<Message>, u64, u64) {
    let (layout, cancel) = (tree.layout(&[]), Cancel::new());
    let staging = Staging::new(&MariaDb, &layout.datadir).unwrap();
    let base = Base::new(&layout, &staging, None, KEY, 1, &cancel).with_memory(Some(Arc::clone(memory)));
    let (size, path, role) = ((RANGES as u64) << 20, "d/t.MAD".to_owned(), FileRole::Table);
    let entry = FileEntry { id: FILE, place: Place::Datadir, path, size, allocated: size, role };
    base.take(Message::CompareFiles(vec![entry])).unwrap();
    let (say, said) = mpsc::sync_channel(64);
    let answers = std::thread::scope(|scope| {
        scope.spawn(|| base.fingerprint_pieces(&say).unwrap());
        let mut answers: Vec<Message> = Vec::new();
        let all = |answers: &[Message]| {
            let ranges = answers.iter().map(|answer| match answer {
                Message::RangeFingerprints { fingerprints, .. } => fingerprints.len(),
                _ => 0,
            });
            ranges.sum::<usize>() == RANGES
        };
        while !all(&answers) {
            answers.push(said.recv().unwrap());
        }
        base.take(Message::CompareEnd).unwrap();
        answers
    });
    let counts = base.counts();
    let ranges = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed) >> 20;
    (answers, ranges(&counts.read), ranges(&counts.remembered))
}

fn fingerprints(answers: &[Message]) -> Vec<Fingerprint> {
    let of = |answer: &Message| match answer {
        Message::RangeFingerprints { fingerprints, .. } => fingerprints.clone(),
        _ => Vec::new(),
    };
    answers.iter().flat_map(of).collect()
}

#[test]
fn what_is_remembered_is_answered_and_one_range_at_least_is_read() {
    let tree = Tree::new();
    let (path, expected) = table(&tree);
    let memory = Arc::new(remembering(&tree.layout(&[]).datadir, &[&path]));
    let (answers, read, remembered) = asked(&tree, &memory);
    assert_eq!(fingerprints(&answers), expected);
    assert!(
        (1..6).contains(&read) && read + remembered == RANGES as u64,
        "{read} read, {remembered} remembered"
    );
    assert!(!memory.is_wrong());
    // What was changed since is read.
    std::thread::sleep(std::time::Duration::from_millis(20));
    let mut content = fs::read(&path).unwrap();
    content[5 << 20] ^= 1;
    fs::write(&path, content).unwrap();
    let (answers, read, remembered) = asked(&tree, &memory);
    let differing = fingerprints(&answers).iter().zip(&expected).filter(|(now, then)| now != then).count();
    assert_eq!((differing, read, remembered), (1, RANGES as u64, 0));
}

#[test]
fn what_is_wrong_is_said_before_the_answer_and_everything_else_is_read() {
    let tree = Tree::new();
    let (path, expected) = table(&tree);
    let datadir = tree.layout(&[]).datadir;
    let memory = Arc::new(misremembering(&datadir, &[&path]));
    let (answers, ..) = asked(&tree, &memory);
    let wrong: Vec<usize> = (0..answers.len())
        .filter(|at| matches!(&answers[*at], Message::WrongFingerprints { what } if what.contains("t.MAD")))
        .collect();
    assert_eq!(wrong.len(), 1, "{answers:?}");
    assert!(memory.is_wrong() && !datadir.join("rejoin-fingerprints").exists());
    // Answers before it are wrong, which is why the donor must not use any of them, and so may those be that were made with it. Those
    // that begin after it are not.
    let is_fingerprints = |answer: &&Message| matches!(answer, Message::RangeFingerprints { .. });
    for answer in answers.iter().skip(wrong[0]).filter(is_fingerprints).skip(1) {
        if let Message::RangeFingerprints { first, fingerprints, .. } = answer {
            let first = *first as usize;
            assert_eq!(*fingerprints, expected[first..first + fingerprints.len()]);
        }
    }
    let (answers, read, _) = asked(&tree, &memory);
    assert_eq!((fingerprints(&answers), read), (expected, RANGES as u64));
}
