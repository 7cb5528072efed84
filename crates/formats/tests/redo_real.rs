//! Mini-transactions as a server wrote them: `redo_mtrs.bin` holds the log from a checkpoint to its end, of a 4 MiB
//! log of MariaDB 10.11.19 whose first LSN is 12288. Made by CREATE, INSERT, RENAME, ALTER, CREATE and DROP of
//! tables on a fresh server, and cut from `ib_logfile0` at the LSNs of the checkpoint and of `Innodb_lsn_flushed`.
use rejoin_formats::innodb::redo::{FileEvent, Record};
use rejoin_formats::innodb::redo_mtr::{BadMtrKind, Geometry, MtrReader};
use rejoin_formats::{Lsn, PageNo, SpaceId};

const LOG: &[u8] = include_bytes!("data/redo_mtrs.bin");
const START: Lsn = Lsn(44878);
const END: Lsn = Lsn(52870);

fn reader() -> MtrReader {
    let geometry = Geometry::new(Lsn(12288), 4 << 20).expect("room for records");
    MtrReader::new(geometry, false, START)
}

#[test]
fn every_byte_belongs_to_a_mini_transaction() {
    let (mut reader, mut mtrs, mut records) = (reader(), 0, 0);
    for part in LOG.chunks(333) {
        reader.feed(part);
        while let Some(mtr) = reader.next_mtr().expect("a mini-transaction") {
            mtrs += 1;
            for record in mtr.records() {
                record.expect("a record");
                records += 1;
            }
        }
    }
    assert_eq!(reader.at(), END);
    assert!(mtrs > 20 && records > mtrs, "{mtrs} {records}");
}

#[test]
fn the_ddl_is_seen() {
    let mut reader = reader();
    reader.feed(LOG);
    let mut seen = Vec::new();
    while let Some(mtr) = reader.next_mtr().expect("a mini-transaction") {
        for event in mtr.file_events() {
            let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
            seen.push(match event {
                FileEvent::Checkpoint { lsn } => format!("checkpoint {}", lsn.expect("in clear")),
                FileEvent::Create { name, .. } => format!("create {}", text(name.expect("in clear"))),
                FileEvent::Delete { name, .. } => format!("delete {}", text(name.expect("in clear"))),
                FileEvent::Rename { names, .. } => {
                    let (old, new) = names.expect("in clear");
                    format!("rename {} {}", text(old), text(new))
                }
                FileEvent::Modify { .. } => continue,
            });
        }
    }
    let want = [
        "checkpoint 44878",
        "create ./t/a.ibd",
        "rename ./t/a.ibd ./t/b.ibd",
        "create ./t/z.ibd",
        "delete ./t/z.ibd",
    ];
    assert_eq!(seen, want);
}

#[test]
fn a_new_table_has_its_first_page_made() {
    let mut reader = reader();
    reader.feed(LOG);
    let mut made = Vec::new();
    while let Some(mtr) = reader.next_mtr().expect("a mini-transaction") {
        for record in mtr.records().flatten() {
            if let Record::InitPage { space, page: PageNo(0) } = record {
                made.push(space);
            }
        }
    }
    assert!(made.len() >= 2 && made.iter().all(|space| *space > SpaceId(3)), "{made:?}");
}

#[test]
fn damage_is_found_where_it_is() {
    let mut bytes = LOG.to_vec();
    bytes[4000] ^= 0x10;
    let mut reader = reader();
    reader.feed(&bytes);
    let bad = loop {
        match reader.next_mtr() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("damage not seen"),
            Err(bad) => break bad,
        }
    };
    assert!(bad.start <= Lsn(START.0 + 4000) && bad.kind != BadMtrKind::Empty, "{bad}");
}
