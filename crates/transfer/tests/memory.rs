//! What a file costs in memory: a datadir may have hundreds of thousands, and each side knows all of them from the first listing
//! to the end of the install. A program of its own, because it counts all that is allocated.
#![allow(unsafe_code, clippy::print_stdout, reason = "an allocator that counts, and what it counted")]

use std::alloc::{GlobalAlloc, Layout as Block, System};
use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use formats::wsrep::invocation::SstArgs;
use formats::{Lsn, SpaceId};
use protocol::chunk::digest;
use protocol::coverage::Coverage;
use protocol::entries::Entries;
use protocol::fingerprint::{GroupHasher, block_fingerprints, range_fingerprint};
use protocol::inventory::{FileEntry, FileId, FileRole, Place, batches, groups};
use protocol::message::Message;
use protocol::remembered::{Builder, FileRecord, Front, range_record};
use rejoin_transfer::cancel::Cancel;
use rejoin_transfer::compare::comparison::{Compare, Parts};
use rejoin_transfer::datadir::engines::EnginePolicy;
use rejoin_transfer::datadir::layout::Layout;
use rejoin_transfer::datadir::{managed, scan};
use rejoin_transfer::disk::identity::look;
use rejoin_transfer::flavor::class::Class;
use rejoin_transfer::flavor::mariadb::MariaDb;
use rejoin_transfer::install::files::Disk;
use rejoin_transfer::install::plan::{Inputs, Keep, OldKind, plan};
use rejoin_transfer::install::{run, tidy};
use rejoin_transfer::receive::base::Base;
use rejoin_transfer::receive::reusable::Old;
use rejoin_transfer::receive::staging::{Patches, Staging};
use rejoin_transfer::remembered::arrived::Arrived;
use rejoin_transfer::remembered::front::is_tablespace;
use rejoin_transfer::remembered::memory::Memory;
use rejoin_transfer::remembered::store;
use rejoin_transfer::remembered::trust::{moment, state_of};
use rejoin_transfer::send::packer::Compression;
use rejoin_transfer::send::queue::SendQueue;
use rejoin_transfer::send::throttle::Throttle;
use rejoin_transfer::server::options::ServerOptions;
use rejoin_transfer::server::progress::Progress;
use rejoin_transfer::snapshot::online::catalog::Catalog;
use rejoin_transfer::snapshot::online::listing::{self, Roots};
use rejoin_transfer::snapshot::sink::SnapshotSink;

/// Counts bytes that are allocated now, and the most there ever were.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// What takes more than it may.
static OVER: Mutex<Vec<String>> = Mutex::new(Vec::new());

// SAFETY: everything is the system allocator's; only its sizes are added up.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, block: Block) -> *mut u8 {
        // What the system's allocator takes for a block of this size.
        let now = NOW.fetch_add(taken(block.size()), Relaxed) + taken(block.size());
        PEAK.fetch_max(now, Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(block) }
    }

    unsafe fn realloc(&self, at: *mut u8, block: Block, size: usize) -> *mut u8 {
        // Not both at a time: what is large is moved by the kernel.
        let now = NOW.fetch_add(taken(size), Relaxed) + taken(size) - taken(block.size());
        NOW.fetch_sub(taken(block.size()), Relaxed);
        PEAK.fetch_max(now, Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(at, block, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, block: Block) {
        NOW.fetch_sub(taken(block.size()), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, block) }
    }
}

/// As glibc: eight bytes more, in steps of sixteen, at least 32.
fn taken(size: usize) -> usize {
    (size + 8).next_multiple_of(16).max(32)
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Two files each: as many as fill a hash table before it doubles, so that what is measured is not the room in it.
const TABLES: usize = 14_000;
const FILES: usize = 2 * TABLES;

const KEY: [u8; 32] = [7; 32];

/// Bytes a file, as measured and a fifth more. What does not grow with the number of files is in it (a mebibyte is 37 bytes a file
/// here): with 200,000 files there is less of that.
const OFFER_MAX: usize = 360;
const SNAPSHOT_MAX: usize = 505;
const RECALL_MAX: usize = 95;
const RECEIVE_MAX: usize = 305;
/// Less room: 223 measured.
const SETTLED_MAX: usize = 240;
const INSTALL_MAX: usize = 565;
const REMEMBER_MAX: usize = 136;

/// Does something; answers the most bytes that were allocated meanwhile beyond `before`, for each file.
fn peak<T>(before: usize, what: &str, limit: usize, work: impl FnOnce() -> T) -> T {
    PEAK.store(NOW.load(Relaxed), Relaxed);
    let done = work();
    let bytes = PEAK.load(Relaxed).saturating_sub(before) / FILES;
    println!(
        "{what}: {bytes} bytes a file at most, {} now",
        NOW.load(Relaxed).saturating_sub(before) / FILES
    );
    if bytes > limit {
        OVER.lock().unwrap().push(format!("{what} takes {bytes} bytes a file, more than {limit}"));
    }
    done
}

fn datadir(dir: &Path) -> Layout {
    let data = dir.join("data");
    fs::create_dir_all(data.join("many")).unwrap();
    for name in ["ibdata1", "ib_logfile0", "aria_log.00000001", "aria_log_control"] {
        fs::write(data.join(name), name).unwrap();
    }
    for table in 0..TABLES {
        File::create(data.join(format!("many/t{table}.ibd"))).unwrap().set_len(1 << 14).unwrap();
        File::create(data.join(format!("many/t{table}.frm"))).unwrap().set_len(1 << 10).unwrap();
    }
    fs::write(dir.join("my.cnf"), "[mysqld]\n").unwrap();
    let args = SstArgs {
        datadir: Some(format!("{}/", data.display())),
        defaults_file: Some(dir.join("my.cnf").display().to_string()),
        ..SstArgs::default()
    };
    Layout::resolve(&args, &ServerOptions::load(&args).unwrap()).unwrap()
}

#[test]
fn a_file_costs_few_bytes_on_either_side() {
    let dir = tempfile::tempdir().unwrap();
    let layout = datadir(&fs::canonicalize(dir.path()).unwrap());
    let files = donor(&layout);
    assert!(files.len() > FILES);
    remember_all(&layout);
    joiner(&layout, &files, true);
    joiner(&layout, &files, false);
    let over = OVER.lock().unwrap();
    assert!(over.is_empty(), "{}", over.join("\n"));
}

fn is_small(entry: &FileEntry) -> bool {
    entry.path.starts_with("many/")
}

/// From the first listing to the list of what was sent: files that the joiner has.
fn donor(layout: &Layout) -> Entries {
    let before = NOW.load(Relaxed);
    let offered =
        peak(before, "the offer", OFFER_MAX, || scan::scan(layout, &EnginePolicy::default()).unwrap());
    drop(offered);
    let (progress, cancel) = (Progress::new("donor"), Cancel::new());
    let compare = Compare::new(KEY, Parts::Never, &cancel);
    let (packing, throttle) = (Compression::Never, Throttle::new(None).into());
    let queue = SendQueue::new(4, Some(FileId(0)), packing, throttle, Some(compare), &progress, &cancel);
    peak(before, "a snapshot", SNAPSHOT_MAX, || {
        let roots = Roots { layout: layout.clone(), skipped: Default::default() };
        let mut catalog = Catalog::new(0);
        let todo = catalog.update(listing::list(&roots).unwrap());
        for some in todo.small.chunks(1000).chain(todo.pages.chunks(1000)) {
            let entries = some.iter().map(|id| catalog.get(*id).unwrap().entry());
            let entries: Vec<FileEntry> = entries.filter(is_small).collect();
            send(&queue, &entries);
            for entry in entries {
                let space = entry.path.ends_with(".ibd").then_some(SpaceId(entry.id.0));
                catalog.copied(entry.id, Some(entry.size), None, space);
                if space.is_some() {
                    catalog.first_page(entry.id, Some(Lsn(9)));
                    catalog.head(entry.id, vec![1; 4]);
                    catalog.fresh(entry.id, vec![(Lsn(9), 0)]);
                }
            }
        }
        // As for a newer checkpoint.
        assert!(catalog.update_each(|take| listing::each(&roots, take)).unwrap().is_some());
        let (place, path) = (Place::LogHome, "ib_logfile0".to_owned());
        let redo = FileEntry { id: FileId(0), place, path, size: 11, allocated: 11, role: FileRole::Redo };
        let list = queue.list(catalog.result(&redo).0);
        list.messages(|_| Ok(())).unwrap();
        let mut files = list.files().clone();
        let named =
            |id, path: &str, role| FileEntry { id: FileId(id), path: path.to_owned(), role, ..redo.clone() };
        let next = files.len() as u32 + 10;
        files.insert(&FileEntry {
            place: Place::DataHome,
            ..named(next, "ibdata1", FileRole::SystemTablespace { index: 0 })
        });
        files
    })
}

/// Hands over files that the joiner has, of which it was asked as groups.
fn send(queue: &SendQueue<'_>, entries: &[FileEntry]) {
    queue.expect(&mut entries.iter());
    let content = |entry: &FileEntry| vec![1; entry.size as usize];
    for group in batches(entries).flat_map(groups) {
        let mut theirs = GroupHasher::new(&KEY);
        for entry in group {
            let range = range_fingerprint(&KEY, &block_fingerprints(&KEY, &content(entry)));
            theirs.add(Some(entry.size), &[range]);
        }
        assert!(queue.compare().unwrap().together().answered(group[0].id, theirs.fingerprint()));
    }
    for entry in entries {
        queue.announce(entry).unwrap();
        queue.write(entry.id, 0, &content(entry)).unwrap();
    }
}

/// Has the node remember the fingerprints of all tables' files.
fn remember_all(layout: &Layout) {
    let mut list = Builder::default();
    let tables = managed::managed(layout).unwrap();
    for path in tables.iter().map(|file| file.path).filter(|path| path.to_str().unwrap().contains("/many/t"))
    {
        let state = state_of(&look(&path).unwrap().unwrap());
        let front = is_tablespace(&path).then_some(Front { space: 7, lsn: 1 << 30, pages: &[7; 32] });
        assert!(list.push(&FileRecord { state, front, ranges: &range_record(&[7; 16], 7) }));
    }
    assert_eq!(list.len(), FILES);
    store::take_key(&layout.datadir, &KEY).unwrap();
    store::save(&layout.datadir, &KEY, list.finish(&moment().unwrap())).unwrap();
}

/// From what is here to what is remembered of it after the install: files that are all the same, or that all came.
fn joiner(layout: &Layout, files: &Entries, same: bool) {
    let before = NOW.load(Relaxed);
    let memory = peak(before, "what is recalled", RECALL_MAX, || Memory::with_key(&layout.datadir, KEY));
    let memory = memory.unwrap().unwrap();
    assert_eq!(memory.files(), FILES);
    let before = NOW.load(Relaxed);
    let arrived = installed(layout, files, same);
    let remembered = peak(before, "what is remembered", REMEMBER_MAX, || arrived.remember(&memory).unwrap());
    // What came has no first page, so no tablespace of it is remembered.
    assert_eq!(
        remembered.map(|(files, _)| files),
        Some(if same { FILES } else { TABLES }),
        "run the tests with TMPDIR on ext4 or XFS"
    );
}

fn installed(layout: &Layout, files: &Entries, same: bool) -> Arrived {
    let before = NOW.load(Relaxed);
    let cancel = Cancel::new();
    let old = managed::managed(layout).unwrap();
    let staging = Staging::new(&MariaDb, &layout.datadir).unwrap();
    let what = if same { "receiving what is here" } else { "receiving what is not here" };
    let mut coverage = Coverage::new();
    let list = peak(before, what, RECEIVE_MAX, || {
        let base = Base::new(layout, &staging, None, KEY, 1, &cancel);
        let all: Vec<FileId> = files.iter().map(|entry| entry.id).collect();
        for some in all.chunks(1000) {
            let entries: Vec<FileEntry> = some.iter().filter_map(|id| files.get(*id)).collect();
            let small: Vec<FileEntry> = entries.iter().filter(|entry| is_small(entry)).cloned().collect();
            if same {
                base.take(Message::CompareGroups(small.clone())).unwrap();
            }
            entries.iter().for_each(|entry| receive(layout, &staging, &mut coverage, entry, same));
            groups(&small).for_each(|group| base.used_up(group[0].id));
        }
        files.clone()
    });
    drop(coverage);
    let what = if same { "an install of nothing" } else { "an install of everything" };
    peak(before, what, if same { SETTLED_MAX } else { INSTALL_MAX }, || {
        let targets = list.iter().map(|entry| Ok((layout.target_of(&entry)?, entry)));
        let targets = targets.map(|both| both.map(|(target, entry)| (entry, target)));
        staging.remember_with(KEY);
        let unchanged = staging.settle(targets, true, Patches::None, 2).unwrap();
        assert_eq!(unchanged.len(), if same { FILES } else { 0 });
        let (_, arrived) = staging.read_back_and_learn(1, &cancel).unwrap();
        let stays: HashSet<&Path> = unchanged.iter().map(|file| file.path.as_path()).collect();
        let leaving = old.iter().filter(|file| !stays.contains(file.path.as_path()) && file.path.is_file());
        let managed: Vec<(PathBuf, OldKind)> =
            leaving.map(|file| (file.path, OldKind::Data(Class::Table))).collect();
        let roots = staging.roots().extend(&Disk, managed.iter().map(|(path, _)| path.as_path())).unwrap();
        let staged = staging.staged();
        drop((staging, list));
        let plan = plan(Inputs {
            datadir: &layout.datadir,
            managed: &managed,
            staged,
            unchanged,
            patched: &[],
            roots: &roots,
            keep: Keep::Nothing,
            earlier: None,
            sweep: &[],
            position: "11111111-1111-1111-1111-111111111111:7",
            made: 1,
        });
        drop((managed, old));
        run::install(&Disk, plan.unwrap()).unwrap();
        tidy::remove_everything(&Disk, &layout.datadir).unwrap();
        arrived
    })
}

fn receive(layout: &Layout, staging: &Staging, coverage: &mut Coverage, entry: &FileEntry, same: bool) {
    let (id, size) = (entry.id, entry.size as u32);
    let target = layout.target_of(entry).unwrap();
    staging.begin(entry, &target).unwrap();
    coverage.begin(id).unwrap();
    if !is_small(entry) {
        return;
    }
    let old = same.then(|| Old::new(target.clone(), look(&target).unwrap().unwrap()));
    let parts = if same { vec![(0, size)] } else { Vec::new() };
    staging.hold(id, 0..entry.size, &parts, old).unwrap();
    // Zeros; the fingerprint of what is the joiner's own is known.
    staging.expect(id, 0, size, Some(digest(&[])), same.then_some([7; 16])).unwrap();
    coverage.record(id, 0, size).unwrap();
    staging.may_rest(id);
}
