//! The formats against files that real servers made (`tests/data/remake.sh` makes them anew).

use std::path::PathBuf;

use rejoin_formats::galera::grastate::GraState;
use rejoin_formats::innodb::page::{self, PageState, page_type};
use rejoin_formats::innodb::redo_header::{Checkpoint, DATA_START, RedoFormat, RedoHeader};
use rejoin_formats::innodb::tablespace::{PageFormat, is_encrypted, parse_page0};
use rejoin_formats::innodb::wsrep_position::{newest, rseg_slots, stored_position};
use rejoin_formats::innodb::{checksum, doublewrite};
use rejoin_formats::mariadb::frm::{Engine, engine};
use rejoin_formats::mariadb::gtid_list::{self, BinlogError};
use rejoin_formats::mariadb::option_file::{Item, OptionFile};
use rejoin_formats::wsrep::state_id::StateId;
use rejoin_formats::{PageNo, Seqno, SpaceId};

fn data(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn text(name: &str) -> String {
    String::from_utf8(data(name)).unwrap()
}

/// One file of pages: the format its page 0 must state, and the numbers of the pages kept.
fn check_pages(name: &str, expected: PageFormat, numbers: &[u32]) -> Vec<(u16, u32, PageState)> {
    let file = data(name);
    let size = expected.physical_size;
    assert_eq!(file.len(), size * numbers.len(), "{name}");
    let space = page::space_id(&expected, &file);
    if numbers[0] == 0 {
        let header = parse_page0(&file).unwrap();
        assert_eq!((header.format, Some(header.space)), (expected, space), "{name}");
        assert_ne!(header.space, SpaceId(0));
        assert!(header.pages >= 4, "{name}: {} pages", header.pages);
        assert_eq!(page::page_type(&file), Some(page_type::FSP_HDR));
    }
    numbers
        .iter()
        .zip(file.chunks(size))
        .map(|(&number, bytes)| {
            let state = page::verify(&expected, bytes);
            assert!(state.is_usable(), "{name} page {number}: {state:?}");
            if state != PageState::Zero {
                assert_eq!(page::page_no(bytes), Some(PageNo(number)), "{name}");
                let hidden = expected.full_crc32
                    && (page::key_version(&expected, bytes) != Some(0)
                        || page::page_type(bytes).unwrap() & 0x8000 != 0);
                let seen = if hidden { None } else { space };
                assert_eq!(page::space_id(&expected, bytes), seen, "{name} page {number}");
                assert!(page::lsn(bytes).unwrap().0 > 0, "{name} page {number}");
            }
            if state == PageState::Valid {
                damage_is_seen(&expected, bytes, name, number);
            }
            (page::page_type(bytes).unwrap(), page::key_version(&expected, bytes).unwrap(), state)
        })
        .collect()
}

/// One bit flipped in each 97th byte of what a page stores must show, but for the bytes no checksum covers.
fn damage_is_seen(format: &PageFormat, bytes: &[u8], name: &str, number: u32) {
    let stored = page::stored_len(format, bytes).unwrap();
    for at in (0..stored).step_by(97) {
        if !format.full_crc32 && (26..38).contains(&at) {
            continue;
        }
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 0x10;
        let state = page::verify(format, &damaged);
        // An encrypted page of the old formats is checked by the sum at 30; those at 0 and at the end are idle.
        let idle = !format.full_crc32
            && page::key_version(format, bytes) != Some(0)
            && (at < 4 || (!format.zip && at >= stored - 8));
        assert!(idle || !state.is_usable(), "{name} page {number}: damage at {at} not seen");
    }
}

const INDEX: u16 = 17855;

#[test]
fn plain_pages_of_every_size_and_both_worlds() {
    let states = check_pages("ibd_full_4k.bin", PageFormat::plain(4096, true), &[0, 3, 4]);
    assert_eq!(states[1], (INDEX, 0, PageState::Valid));
    check_pages("ibd_full_16k.bin", PageFormat::plain(16384, true), &[3]);
    check_pages("ibd_full_64k.bin", PageFormat::plain(65536, true), &[0]);
    let states = check_pages("ibd_crc_4k.bin", PageFormat::plain(4096, false), &[0, 3, 4]);
    assert_eq!(states[2], (INDEX, 0, PageState::Valid));
}

#[test]
fn row_format_compressed() {
    let zip = PageFormat { physical_size: 2048, zip: true, ..PageFormat::plain(16384, false) };
    let states = check_pages("ibd_zip_16k.bin", zip, &[0, 1, 2, 3, 4, 5]);
    assert!(states.iter().all(|s| s.1 == 0));
    let states = check_pages("ibd_zip_encrypted_16k.bin", zip, &[0, 1, 2, 3, 4, 5]);
    assert_eq!(states.iter().filter(|s| s.1 == 1).count(), 5, "{states:?}");
}

#[test]
fn the_first_page_tells_whether_keys_are_needed() {
    for name in ["ibd_full_encrypted_4k.bin", "ibd_crc_encrypted_4k.bin", "ibd_zip_encrypted_16k.bin"] {
        assert!(is_encrypted(&data(name)), "{name}");
    }
    for name in
        ["ibd_full_4k.bin", "ibd_full_16k.bin", "ibd_full_64k.bin", "ibd_crc_4k.bin", "ibd_zip_16k.bin"]
    {
        assert!(!is_encrypted(&data(name)), "{name}");
    }
    assert!(!is_encrypted(&data("ibd_full_encrypted_4k.bin")[..1600]), "not all of the page");
}

#[test]
fn encrypted() {
    let states = check_pages("ibd_full_encrypted_4k.bin", PageFormat::plain(4096, true), &[0, 3, 4]);
    assert_eq!(states[1].1, 1, "{states:?}");
    let states = check_pages("ibd_crc_encrypted_4k.bin", PageFormat::plain(4096, false), &[0, 3, 4]);
    assert_eq!(states[1].1, 1, "{states:?}");
}

#[test]
fn page_compressed() {
    let full = PageFormat { page_compressed: true, ..PageFormat::plain(8192, true) };
    for name in ["ibd_full_compressed_8k.bin", "ibd_full_compressed_encrypted_8k.bin"] {
        let states = check_pages(name, full, &[0, 3]);
        let bytes = data(name);
        assert_eq!(states[1].2, PageState::Valid);
        assert!(page::stored_len(&full, &bytes[8192..]).unwrap() < 8192, "{name}");
    }
    let old = PageFormat { page_compressed: true, ..PageFormat::plain(8192, false) };
    let states = check_pages("ibd_crc_compressed_8k.bin", old, &[0, 3]);
    assert_eq!(states[1], (page_type::PAGE_COMPRESSED, 0, PageState::Unverifiable));
    let states = check_pages("ibd_crc_compressed_encrypted_8k.bin", old, &[3]);
    assert_eq!((states[0].0, states[0].2), (page_type::PAGE_COMPRESSED_ENCRYPTED, PageState::Unverifiable));
}

/// A 10.11.19 server (`innodb_checksum_algorithm` not strict) read a table whose root page carried any of these;
/// with strict_crc32 it refused them, as innochecksum always does.
#[test]
fn checksums_of_old_servers() {
    let format = PageFormat::plain(4096, false);
    let original = data("ibd_crc_4k.bin")[4096..8192].to_vec();
    let high = u32::from_be_bytes(original[16..20].try_into().unwrap());
    let verdict = |first: u32, last: Option<u32>| {
        let mut page = original.clone();
        page[..4].copy_from_slice(&first.to_be_bytes());
        let last = last.unwrap_or_else(|| checksum::innodb_old(&page).unwrap());
        page[4088..4092].copy_from_slice(&last.to_be_bytes());
        page::verify(&format, &page)
    };
    for first in [checksum::innodb_new(&original).unwrap(), checksum::NO_CHECKSUM, 0] {
        for last in [None, Some(checksum::NO_CHECKSUM), Some(high)] {
            assert_eq!(verdict(first, last), PageState::Valid, "{first:#x} {last:?}");
        }
        assert!(!verdict(first, Some(high ^ 12345)).is_usable());
    }
    assert!(!verdict(12345, None).is_usable());
}

#[test]
fn redo_head() {
    let head = data("redo_head.bin");
    assert_eq!(head.len() as u64, DATA_START);
    let header = RedoHeader::parse(&head).unwrap();
    assert_eq!(header.format, RedoFormat::Circular);
    assert!(header.creator.starts_with("MariaDB 10.11."), "{}", header.creator);
    let checkpoint = Checkpoint::newest(&head).unwrap();
    assert!(checkpoint.lsn >= header.first_lsn && checkpoint.end_lsn >= checkpoint.lsn);
    // What we would write is what the server wrote.
    assert_eq!(header.emit().unwrap(), head[..512]);
    let at = if Checkpoint::parse(&head[4096..]) == Ok(checkpoint) { 4096 } else { 8192 };
    assert_eq!(checkpoint.emit(), head[at..at + 64]);
    let encrypted = RedoHeader::parse(&data("redo_encrypted_head.bin")).unwrap();
    assert_eq!(encrypted.format, RedoFormat::CircularEncrypted);
}

#[test]
fn position_in_innodb_is_what_the_server_recovers() {
    let file = data("wsrep_rseg_4k.bin");
    let (trx_sys, rsegs) = file.split_at(4096);
    assert_eq!(page::page_type(trx_sys), Some(page_type::TRX_SYS));
    let [first, second] = doublewrite::extents(trx_sys).unwrap();
    assert_eq!((first, second), (PageNo(256)..PageNo(512), PageNo(512)..PageNo(768)));
    let slots = rseg_slots(trx_sys);
    assert_eq!(slots.len(), 128);
    assert_eq!(slots[0].0, SpaceId(0));
    let positions: Vec<_> = rsegs
        .chunks(4096)
        .map(|rseg| {
            assert!(slots.contains(&(SpaceId(0), page::page_no(rseg).unwrap())));
            stored_position(rseg, 4096).unwrap()
        })
        .collect();
    let recovered: StateId = StateId::parse_annotated(&text("wsrep_recovered.txt")).unwrap().state;
    assert_eq!(newest(positions).unwrap().state, recovered);
    let stopped = GraState::parse(&text("grastate_stopped.dat")).unwrap();
    assert_eq!(stopped.state(), recovered);
    // A page of another kind holds none.
    assert_eq!(stored_position(trx_sys, 4096), None);
}

#[test]
fn grastate_is_written_as_the_provider_does() {
    for (name, running) in [("grastate_running.dat", true), ("grastate_stopped.dat", false)] {
        let read = GraState::parse(&text(name)).unwrap();
        assert_eq!(read.seqno == Seqno::UNDEFINED, running);
        assert_eq!((read.version.as_str(), read.safe_to_bootstrap), ("2.1", true));
        assert_eq!(read.emit().trim_end(), text(name).trim_end());
    }
}

#[test]
fn binlog_positions_are_the_state_file() {
    let list = gtid_list::parse(&data("binlog_head.bin")).unwrap();
    assert!(list.len() >= 5);
    let state = text("binlog.state");
    assert_eq!(gtid_list::state_text(&list), state);
    assert_eq!(gtid_list::parse_state(&state), Ok(list.clone()));
    assert_eq!(gtid_list::parse(&data("binlog_nocrc_head.bin")), Ok(list));
    assert_eq!(gtid_list::parse(&data("binlog_encrypted_head.bin")), Err(BinlogError::Encrypted));
}

#[test]
fn engines_of_every_definition() {
    let parts = |of| Engine::Partition { of: Some(Box::new(of)) };
    let sequence = |of| Engine::Sequence { of: Box::new(of) };
    let other = |name: &str| Engine::Other(name.into());
    let expected = [
        ("innodb_t", Engine::InnoDb),
        ("innodb_versioned", Engine::InnoDb),
        ("innodb_generated", Engine::InnoDb),
        ("innodb_options", Engine::InnoDb),
        ("aria_t", Engine::Aria),
        ("aria_nontransactional", Engine::Aria),
        ("myisam_t", Engine::MyIsam),
        ("myisam_bare", Engine::MyIsam),
        ("memory_t", Engine::Memory),
        ("csv_t", Engine::Csv),
        ("archive_t", Engine::Archive),
        ("blackhole_t", Engine::Blackhole),
        ("merge_t", Engine::Merge),
        ("federated_t", Engine::Federated),
        ("rocksdb_t", Engine::RocksDb),
        ("spider_t", other("SPIDER")),
        ("connect_t", other("CONNECT")),
        ("mroonga_t", other("MROONGA")),
        ("oqgraph_t", other("OQGRAPH")),
        ("sphinx_t", other("SPHINX")),
        ("part_innodb", parts(Engine::InnoDb)),
        ("part_aria", parts(Engine::Aria)),
        ("part_myisam", parts(Engine::MyIsam)),
        ("part_sub", parts(Engine::InnoDb)),
        ("part_rocksdb", parts(Engine::RocksDb)),
        ("seq_innodb", sequence(Engine::InnoDb)),
        ("seq_aria", sequence(Engine::Aria)),
        ("seq_myisam", sequence(Engine::MyIsam)),
        ("view_t", Engine::View),
    ];
    for (name, expected) in &expected {
        assert_eq!(engine(&data(&format!("frm/{name}.frm"))), Ok(expected.clone()), "{name}");
    }
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/frm");
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), expected.len(), "a definition without expectation");
}

#[test]
fn option_file_as_my_print_defaults_reads_it() {
    let file = OptionFile::parse(&data("options.cnf"));
    assert_eq!(file.errors, []);
    for wanted in ["mysqld", "sst"] {
        let mut group = String::new();
        let mut printed = String::new();
        for line in &file.lines {
            match &line.item {
                Item::Group(name) => group.clone_from(name),
                Item::Option { name, value } if group == wanted => {
                    let value = value.as_ref().map(|v| format!("={v}")).unwrap_or_default();
                    printed.push_str(&format!("--{name}{value}\n"));
                }
                _ => {}
            }
        }
        assert_eq!(printed, text(&format!("options.{wanted}.expected")));
    }
}
