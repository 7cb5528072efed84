//! Whatever way bytes are written, the file is the same.
use std::fs;

use proptest::prelude::*;

use super::*;

/// Not a whole number of blocks.
const SIZE: usize = 3 * DIRECT_MIN + 5 * ALIGN + 777;

/// A directory on a filesystem that can, one that cannot, and the first again as if it could not.
fn directories() -> [(tempfile::TempDir, Arc<DirectWrites>); 3] {
    let [here, memory, again] = [".", "/dev/shm", "."].map(|at| tempfile::tempdir_in(at).unwrap());
    let [direct, none, off] = [&here, &memory, &again].map(|dir| Arc::new(DirectWrites::try_in(dir.path())));
    off.work.store(false, Ordering::Relaxed);
    [(here, direct), (memory, none), (again, off)]
}

fn write(output: &Output, run: &[u8], offset: u64, spare: &mut Buffer) -> io::Result<()> {
    output.write_blocks(run, offset, spare)?;
    output.write_rest(run, offset)
}

/// An offset and a length: around the borders of blocks, and anywhere.
fn run() -> impl Strategy<Value = (usize, usize)> {
    let near = |most: usize| {
        let border =
            (0..most / ALIGN, 0..3usize).prop_map(|(block, off)| (block * ALIGN + off).saturating_sub(1));
        prop_oneof![border, 0..most]
    };
    (near(SIZE), near(SIZE)).prop_map(|(start, len)| (start, len.clamp(1, SIZE - start)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_runs_in_any_order_give_the_same_bytes(runs in proptest::collection::vec((run(), 0..ALIGN), 1..12)) {
        for (dir, writes) in &directories() {
            let path = dir.path().join("f");
            File::create(&path).unwrap().set_len(SIZE as u64).unwrap();
            let output = Output::open(&path, writes).unwrap();
            let (mut expected, mut spare) = (vec![0; SIZE], Buffer::default());
            for (number, ((start, len), shift)) in runs.iter().enumerate() {
                let source: Vec<u8> = (0..shift + len).map(|at| (at % 251 + number + 1) as u8).collect();
                // At an address that may be anything.
                let run = &source[*shift..];
                write(&output, run, *start as u64, &mut spare).unwrap();
                expected[*start..start + len].copy_from_slice(run);
                // What a reader sees in between does not disturb the next write.
                prop_assert!(fs::read(&path).unwrap() == expected, "after run {number} of {}", dir.path().display());
            }
        }
    }
}

#[test]
fn what_is_in_memory_anyway_is_not_written_past_it() {
    assert!(!DirectWrites::try_in(Path::new("/dev/shm")).work());
    assert!(!DirectWrites::try_in(Path::new("/proc/self")).work(), "nothing can be written there");
}

#[test]
fn a_filesystem_that_refuses_gets_everything_through_the_cache() {
    let writes = |at: &Path| Arc::new(DirectWrites { directory: at.to_owned(), work: AtomicBool::new(true) });
    let (dir, run, mut spare) =
        (tempfile::tempdir_in(".").unwrap(), vec![5; 2 * DIRECT_MIN], Buffer::default());
    let path = dir.path().join("f");
    File::create(&path).unwrap();

    // It is opened, and then refused where it is not at the border of a block.
    let output = Output::open(&path, &writes(dir.path())).unwrap();
    write(&output, &run, 0, &mut spare).unwrap();
    assert!(output.writes.work());
    output.write_aligned(output.direct().unwrap().file(), &run, 1).unwrap();
    assert!(!output.writes.work());
    assert_eq!(fs::read(&path).unwrap()[1..], run);
    assert!(!output.has_blocks(&run, 0) && output.has_rest(&run, 0));

    // It cannot even be opened, and a full disk is still reported as one.
    for (device, fails) in [("/dev/null", None), ("/dev/full", Some(ErrorKind::StorageFull))] {
        let output = Output::open(Path::new(device), &writes(Path::new("/dev"))).unwrap();
        let written = output.write_blocks(&run, 0, &mut spare);
        assert_eq!(written.err().map(|e| e.kind()), fails);
        assert!(!output.writes.work(), "{device}");
    }
}
