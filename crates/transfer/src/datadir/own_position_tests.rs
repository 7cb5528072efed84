use super::*;
use crate::datadir::testing::{PAGE, Tree, put, write_pages};
use std::fs::File;
use std::process::Command;

/// A page 0 of a space with 16 KiB pages in the full_crc32 format.
fn page0(space: u32) -> Vec<u8> {
    let mut page = vec![0; PAGE];
    put(&mut page, 34, &space.to_be_bytes());
    put(&mut page, 38, &space.to_be_bytes());
    put(&mut page, 54, &0x15u32.to_be_bytes());
    page
}

fn rseg(seqno: u64) -> Vec<u8> {
    let mut page = vec![0; PAGE];
    let xid = 38 + 34 + PAGE / 4 + 16 + 512;
    put(&mut page, xid, &1u32.to_be_bytes());
    put(&mut page, xid + 4, &48u32.to_be_bytes());
    put(&mut page, xid + 12, b"WSREPXif");
    put(&mut page, xid + 20, &[7; 16]);
    put(&mut page, xid + 36, &seqno.to_le_bytes());
    page
}

/// The system tablespace in two files, one segment in each and one in an undo tablespace.
#[test]
fn the_highest_position_over_all_files() {
    let tree = Tree::new();
    let mut trx_sys = vec![0xff; PAGE];
    for (slot, (space, page)) in [(0u32, 6u32), (0, 9), (3, 2), (77, 4)].into_iter().enumerate() {
        put(&mut trx_sys, 56 + 8 * slot, &space.to_be_bytes());
        put(&mut trx_sys, 60 + 8 * slot, &page.to_be_bytes());
    }
    write_pages(&tree, "data/a", &[(0, page0(0)), (5, trx_sys), (6, rseg(10))], 8);
    write_pages(&tree, "data/b", &[(1, rseg(12))], 4);
    write_pages(&tree, "data/undo003", &[(0, page0(3)), (2, rseg(95))], 4);
    let layout = tree.layout(&["--innodb-data-file-path=a:1M;b:1M:autoextend"]);
    assert_eq!(position_in_files(&layout).unwrap().unwrap().state.seqno.0, 95);
    std::fs::remove_file(tree.path("data/undo003")).unwrap();
    assert_eq!(position_in_files(&layout).unwrap().unwrap().state.seqno.0, 12);
}

#[test]
fn nothing_zeros_and_garbage_hold_no_position() {
    let tree = Tree::new();
    let layout = tree.layout(&[]);
    assert_eq!(position_in_files(&layout).unwrap(), None);
    for content in [vec![0; PAGE * 8], vec![0x5a; PAGE * 8], page0(0), vec![1; 20]] {
        std::fs::write(tree.path("data/ibdata1"), content).unwrap();
        assert_eq!(position_in_files(&layout).unwrap(), None);
    }
}

/// Runs this test again in another process, which takes the lock as InnoDB does and waits for a signal to
/// end.
#[test]
fn a_lock_of_another_process_is_seen() {
    const HOLD: &str = "REJOIN_TEST_HOLD_LOCK";
    if let Some(path) = std::env::var_os(HOLD) {
        let file = File::options().read(true).write(true).open(path).unwrap();
        rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
        let mut ready = std::env::var_os(HOLD).unwrap();
        ready.push(".held");
        std::fs::write(ready, "").unwrap();
        std::io::read_to_string(std::io::stdin()).unwrap();
        return;
    }
    let tree = Tree::with_engine_files();
    let layout = tree.layout(&[]);
    assert_eq!(server_using(&layout).unwrap(), None);
    let path = tree.path("data/aria_log_control");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "datadir::own_position::tests::a_lock_of_another_process_is_seen"])
        .env(HOLD, &path)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let held = tree.path("data/aria_log_control.held");
    for _ in 0..1000 {
        if held.exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(server_using(&layout).unwrap(), Some(InUse { path, pid: Some(child.id()) }));
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    assert_eq!(server_using(&layout).unwrap(), None);
}
