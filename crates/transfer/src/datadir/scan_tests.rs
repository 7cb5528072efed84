use super::*;
use crate::datadir::testing::Tree;

fn names(scan: &Scan) -> Vec<String> {
    scan.files.iter().map(|file| format!("{:?}:{}", file.entry.place, file.entry.path)).collect()
}

fn left_out(scan: &Scan, tree: &Tree) -> Vec<String> {
    let base = tree.path("");
    let mut names: Vec<String> = scan
        .left_out
        .iter()
        .map(|left| left.path.strip_prefix(&base).unwrap_or(&left.path).to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

fn plain(tree: &Tree, words: &[&str]) -> Scan {
    scan(&tree.layout(words), &EnginePolicy::default()).unwrap()
}

/// A view, so that a definition needs no data file.
const VIEW: &str = "TYPE=VIEW\nquery=select 1\n";

#[test]
fn every_kind_of_file() {
    let tree = Tree::with_engine_files();
    let sent = [
        "undo001",
        "mysql_upgrade_info",
        "ib_buffer_pool",
        "db/db.opt",
        "db/t.ibd",
        "db/t.frm",
        "db/m.MYD",
        "db/m.MYI",
        "db/m.frm",
        "db/a.MAD",
        "db/a.MAI",
        "db/a.frm",
        "db/c.CSV",
        "db/c.CSM",
        "db/c.frm",
        "db/r.ARZ",
        "db/r.frm",
        "db/g.MRG",
        "db/g.frm",
        "db/t.TRG",
        "db/x.TRN",
        "db/p.par",
        "db/p.frm",
        "db/p#P#p0.ibd",
        "db/v.frm",
        "db/#sql-alter-1-2.ibd",
        "my@002ddb/t.ibd",
    ];
    for name in sent {
        tree.file(&format!("data/{name}"), VIEW);
    }
    let never = [
        "ibtmp1",
        "ib_logfile101",
        "ddl_recovery.log",
        "tc.log",
        "grastate.dat",
        "gvwstate.dat",
        "galera.cache",
        "gcache.page.000001",
        "server-key.pem",
        "n1.err",
        "slow.log",
        "master.info",
        "relay-log.info",
        "multi-master.info",
        "sst_in_progress",
        "sst_retry_count",
        "sst_retry_limit_reached",
        "wsrep_sst.pid",
        "mysqld.pid",
        "mybin.000001",
        "mybin.index",
        "mybin.state",
        "rel.000001",
        "rel-west.000002",
        "rel.index",
        "#sql_1_0.MAI",
        "db/#sql-1.MYD",
        "db/#sql-1.frm",
        ".rejoin/x.ibd",
        ".snapshot/db/t.ibd",
        "lost+found/t.ibd",
        "ib_buffer_pool.incomplete",
    ];
    for name in never {
        tree.file(&format!("data/{name}"), "x");
    }
    let told = [
        "my-notes.txt",
        "db/t.BAK",
        "db/deeper/t.ibd",
        "ignored/t.ibd",
        "backup/file.gz",
        "#rocksdb/CURRENT",
        "ib_logfile_old",
    ];
    for name in told {
        tree.file(&format!("data/{name}"), "x");
    }
    // Debian's own, in every datadir of its packages: neither sent nor worth a word.
    tree.file("data/debian-10.11.flag", "");
    std::fs::create_dir(tree.path("data/empty")).unwrap();
    let scan = plain(&tree, &["--log-bin=mybin", "--relay-log=rel", "--ignore-db-dirs=ignored"]);
    assert!(scan.refusals.is_empty(), "{:?}", scan.refusals);

    let mut want: Vec<String> =
        sent.iter().filter(|n| n.contains('/')).map(|n| format!("Datadir:{n}")).collect();
    want.extend(
        ["DataHome:ibdata1", "LogHome:ib_logfile0", "UndoDir:undo001", "DataHome:ib_buffer_pool"]
            .map(str::to_owned),
    );
    want.extend(
        ["SecondLogDir:aria_log.00000001", "SecondLogDir:aria_log_control", "Datadir:mysql_upgrade_info"]
            .map(str::to_owned),
    );
    let mut got = names(&scan);
    want.sort();
    got.sort();
    assert_eq!(got, want);
    let mut told: Vec<&str> = vec![
        "data/#rocksdb",
        "data/backup",
        "data/db/deeper",
        "data/db/t.BAK",
        "data/empty",
        "data/ib_logfile_old",
        "data/ignored",
        "data/my-notes.txt",
    ];
    told.sort();
    assert_eq!(left_out(&scan, &tree), told);
}

#[test]
fn numbers_ascend_and_the_largest_table_is_first() {
    let tree = Tree::with_engine_files();
    for (name, size) in [("small", 10), ("large", 30_000), ("middle", 400)] {
        tree.file(&format!("data/db/{name}.ibd"), &"x".repeat(size));
    }
    let scan = plain(&tree, &[]);
    let ids: Vec<u32> = scan.files.iter().map(|file| file.entry.id.0).collect();
    assert_eq!(ids, (0..scan.files.len() as u32).collect::<Vec<_>>());
    assert_eq!(
        names(&scan),
        [
            "DataHome:ibdata1",
            "LogHome:ib_logfile0",
            "SecondLogDir:aria_log.00000001",
            "SecondLogDir:aria_log_control",
            "Datadir:db/large.ibd",
            "Datadir:db/middle.ibd",
            "Datadir:db/small.ibd"
        ]
    );
    let large = &scan.files[4].entry;
    assert_eq!(large.size, 30_000);
    assert!(large.allocated >= 30_000 && large.allocated.is_multiple_of(512), "{}", large.allocated);
}

#[test]
fn holes_are_not_allocated() {
    let tree = Tree::with_engine_files();
    tree.file("data/db/t.ibd", "x");
    std::fs::File::options().write(true).open(tree.path("data/db/t.ibd")).unwrap().set_len(64 << 20).unwrap();
    let scan = plain(&tree, &[]);
    let file = scan.files.iter().find(|file| file.entry.path == "db/t.ibd").unwrap();
    assert_eq!(file.entry.size, 64 << 20);
    assert!(file.entry.allocated < 1 << 20);
}

#[test]
fn split_directories_inside_and_outside_the_datadir() {
    let tree = Tree::new();
    for name in [
        "home/ibdata1",
        "data/redo/ib_logfile0",
        "data/inno/undo/undo002",
        "aria/aria_log_control",
        "data/redo/ib_logfile101",
    ] {
        tree.file(name, "x");
    }
    tree.file("data/ib_logfile0", "stale");
    tree.file("data/undo001", "stale");
    let words = [
        "--innodb-data-home-dir=DIR/home",
        "--innodb-log-group-home-dir=redo",
        "--innodb-undo-directory=inno/undo",
        "--aria-log-dir-path=DIR/aria",
    ];
    let scan = plain(&tree, &words);
    assert_eq!(
        names(&scan),
        ["DataHome:ibdata1", "UndoDir:undo002", "LogHome:ib_logfile0", "SecondLogDir:aria_log_control"]
    );
    assert_eq!(scan.files[2].path, tree.path("data/redo/ib_logfile0"));
    assert_eq!(left_out(&scan, &tree), ["data/ib_logfile0", "data/inno", "data/undo001"]);
}

#[test]
fn two_system_files_of_one_name() {
    let tree = Tree::with_engine_files();
    tree.file("a/ib", "x");
    tree.file("b/ib", "y");
    let scan = plain(&tree, &["--innodb-data-home-dir=", "--innodb-data-file-path=DIR/a/ib:1M;DIR/b/ib:1M"]);
    assert_eq!(names(&scan)[..2], ["DataHome:ib", "DataHome:1-ib"]);
    assert_eq!(scan.files[1].entry.role, FileRole::SystemTablespace { index: 1 });
}

#[test]
fn tables_elsewhere() {
    let tree = Tree::with_engine_files();
    let ext = tree.path("ext/db");
    tree.file("ext/db/t.ibd", "rows");
    tree.file("data/db/t.isl", &format!("{}\n", ext.join("t.ibd").display()));
    tree.file("data/db/gone.isl", ext.join("gone.ibd").to_str().unwrap());
    tree.file("ext/db/m.MYD", "rows");
    tree.link("data/db/m.MYD", ext.join("m.MYD"));
    tree.link("data/db/rel.MYI", "../../ext/db/m.MYD");
    tree.link("data/db/lost.MYD", ext.join("none.MYD"));
    tree.file("data/other/x.MYD", "rows");
    tree.link("data/db/in.MYD", tree.path("data/other/x.MYD"));
    let scan = plain(&tree, &[]);
    let role = |path: &str| {
        scan.files.iter().find(|file| file.entry.path == path).map(|file| file.entry.role.clone())
    };
    let target = |name: &str| ext.join(name).to_str().unwrap().to_owned();
    assert_eq!(role("db/t.isl"), Some(FileRole::Table));
    assert_eq!(role(&target("t.ibd")), Some(FileRole::TableElsewhere { owner: "db/t.isl".into() }));
    assert_eq!(role("db/m.MYD"), Some(FileRole::Link { target: target("m.MYD") }));
    assert_eq!(
        role("db/rel.MYI"),
        Some(FileRole::Link { target: target("m.MYD") }),
        "a relative link is resolved"
    );
    let outside: Vec<_> = scan.files.iter().filter(|file| file.entry.place == Place::External).collect();
    assert_eq!(outside.len(), 2, "two links to one file: {outside:?}");
    assert_eq!(left_out(&scan, &tree), ["data/db/lost.MYD", "ext/db/gone.ibd"]);
    // The server follows a link inside the datadir as any other: on the joiner it is a file of its own.
    assert_eq!(role("db/in.MYD"), Some(FileRole::Table));
    let inside = scan.files.iter().find(|file| file.entry.path == "db/in.MYD").unwrap();
    assert_eq!((inside.entry.size, inside.look.is_file), (4, true));
}

#[test]
fn links_that_cannot_be_carried() {
    let tree = Tree::with_engine_files();
    tree.file("data/.ssd/t.ibd", "rows");
    tree.file("data/db/t.isl", tree.path("data/.ssd/t.ibd").to_str().unwrap());
    tree.link("data/db/loop.ibd", "loop.ibd");
    let deep = format!("ext/.rejoin/{}", "u.ibd");
    tree.file(&deep, "rows");
    tree.file("data/db/u.isl", tree.path(&deep).to_str().unwrap());
    let scan = plain(&tree, &[]);
    assert_eq!(left_out(&scan, &tree), ["data/db/loop.ibd"]);
    let refusals: Vec<String> = scan.refusals.iter().map(Failure::to_string).collect();
    assert_eq!(refusals.len(), 2, "{refusals:?}");
    assert!(
        refusals[0].contains("t.isl names") && refusals[0].contains("inside this node's datadir"),
        "{refusals:?}"
    );
    assert!(refusals[1].contains("u.ibd cannot be sent: its path lies in the program's own"), "{refusals:?}");
}

#[test]
fn a_linked_database_is_followed() {
    let tree = Tree::with_engine_files();
    tree.file("ssd/shop/t.ibd", "rows");
    tree.link("data/shop", tree.path("ssd/shop"));
    tree.link("data/dead", tree.path("nowhere"));
    let scan = plain(&tree, &[]);
    let file = scan.files.last().unwrap();
    assert_eq!((file.entry.path.as_str(), file.entry.role.clone()), ("shop/t.ibd", FileRole::Table));
    assert_eq!(file.path, tree.path("data/shop/t.ibd"));
    assert_eq!(left_out(&scan, &tree), ["data/dead"]);
}

#[test]
fn a_missing_system_file_is_a_refusal() {
    let tree = Tree::new();
    let scan = plain(&tree, &[]);
    let text = format!("{:?}", scan.refusals);
    assert!(text.contains("ibdata1") && text.contains("ib_logfile0"), "{text}");
}

#[test]
fn only_lonely_definitions_are_opened() {
    let tree = Tree::with_engine_files();
    tree.file("data/db/t.frm", "not a definition");
    tree.file("data/db/t#P#p0.ibd", "x");
    tree.file("data/db/odd.frm", "not a definition");
    let scan = plain(&tree, &[]);
    assert_eq!(scan.warnings.len(), 1, "{:?}", scan.warnings);
    assert!(scan.warnings[0].contains("odd.frm"));
}

#[test]
fn twenty_thousand_tables_are_quick() {
    let tree = Tree::with_engine_files();
    let db = tree.path("data/db");
    std::fs::create_dir(&db).unwrap();
    for n in 0..20_000 {
        std::fs::write(db.join(format!("t{n}.ibd")), "").unwrap();
        std::fs::write(db.join(format!("t{n}.frm")), "never opened").unwrap();
    }
    let start = std::time::Instant::now();
    let scan = plain(&tree, &[]);
    assert_eq!(scan.files.len(), 40_004);
    assert!(scan.warnings.is_empty());
    // 0.36 s on two cores busy with other things; the limit only catches work that grows with the square.
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
}

/// A definition with nothing but the engine's name where the server puts it: after the keys and the default row.
fn definition(engine: &str) -> Vec<u8> {
    let mut frm = vec![0; 64];
    frm[..2].copy_from_slice(&[0xfe, 1]);
    frm[6] = 64;
    frm[55] = 1;
    frm.extend([0, 0, engine.len() as u8, 0]);
    frm.extend(engine.as_bytes());
    frm
}

#[test]
fn engines_whose_rows_do_not_travel() {
    let tree = Tree::with_engine_files();
    for (table, engine) in
        [("r1", "ROCKSDB"), ("r2", "ROCKSDB"), ("c", "CONNECT"), ("m", "MEMORY"), ("g", "Mroonga")]
    {
        tree.file(&format!("data/db/{table}.frm"), "");
        std::fs::write(tree.path(&format!("data/db/{table}.frm")), definition(engine)).unwrap();
    }
    tree.file("data/db/r1.TRG", "x");
    tree.file("data/db.mrn", "x");
    let refused = plain(&tree, &[]);
    let text: Vec<String> = refused.refusals.iter().map(ToString::to_string).collect();
    assert_eq!(text.len(), 2, "{text:?}");
    assert!(
        text[1].contains("ROCKSDB") && text[1].contains("db.r1, db.r2") && text[1].contains("skip-engines"),
        "{text:?}"
    );
    assert_eq!(
        refused.warnings,
        ["the rows of CONNECT tables are not in the datadir; only their definitions are sent: db.c"]
    );

    let layout = tree.try_layout(&[], "skip-engines=rocksdb,MROONGA").unwrap();
    let policy = EnginePolicy { skip: ["ROCKSDB", "MROONGA"].map(str::to_owned).into() };
    let skipped = scan(&layout, &policy).unwrap();
    assert!(skipped.refusals.is_empty(), "{:?}", skipped.refusals);
    assert!(skipped.warnings.iter().any(|w| w.contains("left out (skip-engines): db.r1, db.r2")));
    assert_eq!(
        left_out(&skipped, &tree),
        ["data/db.mrn", "data/db/g.frm", "data/db/r1.TRG", "data/db/r1.frm", "data/db/r2.frm"]
    );
    assert_eq!(names(&skipped)[4..], ["Datadir:db/c.frm", "Datadir:db/m.frm"]);
}

/// A joiner's server found no `ib_logfile0` beside what a blocking snapshot of such a donor had installed.
#[test]
fn a_redo_log_in_archived_files_only_is_known() {
    let tree = Tree::with_engine_files();
    let archived = || redo_is_archived(&tree.layout(&[])).unwrap();
    assert!(!archived());
    tree.file("data/ib_0000000000c0ffee.log", "redo");
    assert!(!archived(), "left from a time when the option was on");
    std::fs::remove_file(tree.path("data/ib_logfile0")).unwrap();
    assert!(archived());
    std::fs::remove_file(tree.path("data/ib_0000000000c0ffee.log")).unwrap();
    assert!(!archived());
}
