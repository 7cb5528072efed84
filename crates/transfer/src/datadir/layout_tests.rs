use super::*;
use crate::datadir::testing::Tree;
use protocol::inventory::FileId;

fn resolved(words: &[&str]) -> (Tree, Layout) {
    let tree = Tree::new();
    let layout = tree.layout(words);
    (tree, layout)
}

#[test]
fn defaults() {
    let (tree, layout) = resolved(&[]);
    let data = tree.path("data");
    for dir in [
        &layout.datadir,
        &layout.data_home,
        &layout.log_home,
        &layout.undo_dir,
        layout.second_log_dir.as_ref().unwrap(),
    ] {
        assert_eq!(dir, &data);
    }
    assert_eq!(
        layout.system_files,
        [SystemFileAt { path: data.join("ibdata1"), size: 12 << 20, autoextend: true }]
    );
    assert_eq!(layout.temp_files, [data.join("ibtmp1")]);
    assert_eq!(layout.ddl_logs, [data.join("ddl_recovery.log"), data.join("ddl_recovery-backup.log")]);
    assert_eq!(
        (layout.tc_log.clone(), layout.buffer_pool_dump.clone()),
        (data.join("tc.log"), data.join("ib_buffer_pool"))
    );
    assert_eq!((layout.page_size, layout.lower_case_table_names), (16384, 0));
    assert_eq!((&layout.binlog, layout.key_plugins.len()), (&None, 0));
    assert_eq!(layout.directories(), [data.as_path()]);
}

/// The paths at which a real 10.11.19 put its files with each of these (`DIR` is the parent of the datadir).
#[test]
fn system_files_as_the_server_places_them() {
    for (words, want) in [
        (&["--innodb-data-file-path=DIR/abs/ib1:12M:autoextend"][..], &["abs/ib1"][..]),
        (
            &["--innodb-data-home-dir=", "--innodb-data-file-path=DIR/abs/ib1:12M;rel2:10M"],
            &["abs/ib1", "data/rel2"],
        ),
        (&["--innodb-data-home-dir=DIR/home", "--innodb-data-file-path=/ib1:12M"], &["home/ib1"]),
        (
            &["--innodb-data-home-dir=sub", "--innodb-data-file-path=ib1:12M;ib2:1G"],
            &["data/sub/ib1", "data/sub/ib2"],
        ),
        (&["--innodb-data-home-dir=./", "--innodb-data-file-path=ib1:12582912"], &["data/ib1"]),
        (&["--innodb_data_home_dir=../home/"], &["data/../home/ibdata1"]),
    ] {
        let (tree, layout) = resolved(words);
        let paths: Vec<PathBuf> = layout.system_files.iter().map(|file| file.path.clone()).collect();
        let want: Vec<PathBuf> = want.iter().map(|name| tree.path(name)).collect();
        assert_eq!(paths, want, "{words:?}");
    }
}

#[test]
fn directories_and_names() {
    let (tree, layout) = resolved(&[
        "--innodb-log-group-home-dir=DIR/redo/",
        "--innodb-undo-directory=undo",
        "--aria-log-dir-path=./aria/.",
        "--innodb-buffer-pool-filename=warm",
        "--innodb-data-home-dir=DIR/home",
        "--log-bin=DIR/bl/mysql-bin.log",
        "--log-bin-index=DIR/bl/names",
        "--relay-log=rel",
        "--log-tc=x.log",
        "--ignore-db-dirs=a",
        "--ignore-db-dirs=",
        "--ignore-db-dirs=b",
        "--lower-case-table-names",
        "--innodb-page-size=64k",
    ]);
    let at = |name: &str| tree.path(name);
    assert_eq!(layout.log_home, at("redo"));
    assert_eq!(
        (layout.undo_dir.clone(), layout.second_log_dir.clone()),
        (at("data/undo"), Some(at("data/aria")))
    );
    assert_eq!(layout.buffer_pool_dump, at("home/warm"));
    assert_eq!(
        (layout.binlog.clone(), layout.binlog_index.clone()),
        (Some(at("bl/mysql-bin")), Some(at("bl/names.index")))
    );
    assert_eq!(
        (layout.relay_log.clone(), layout.relay_log_index.clone()),
        (at("data/rel"), at("data/rel.index"))
    );
    assert_eq!(
        (layout.tc_log.clone(), layout.ignore_db_dirs.clone()),
        (at("data/x.log"), vec!["b".to_owned()])
    );
    assert_eq!((layout.page_size, layout.lower_case_table_names), (65536, 1));
    let dirs: Vec<_> = ["data", "home", "redo", "data/undo", "data/aria", "bl"].map(&at).into();
    assert_eq!(layout.directories(), dirs);
    let facts = layout.facts(Some("10.11.19-MariaDB".into()));
    assert_eq!((facts.page_size, facts.system_files.len()), (65536, 1));
}

#[test]
fn binlogs_by_every_spelling() {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    for (words, base) in [
        (&["--log-bin=mybin"][..], Some("mybin".to_owned())),
        (&["--log-bin=a.b.c"], Some("a".to_owned())),
        (&["--log-bin"], Some(format!("{host}-bin"))),
        (&["--log-bin", "--log-basename=n1"], Some("n1-bin".to_owned())),
        (&["--log-bin=x", "--skip-log-bin"], None),
    ] {
        let (tree, layout) = resolved(words);
        assert_eq!(layout.binlog, base.map(|base| tree.path("data").join(base)), "{words:?}");
    }
}

#[test]
fn key_plugins_by_every_way_to_load_them() {
    for words in [
        &["--plugin-load-add=file_key_management"][..],
        &["--plugin-load=x.so;file_key_management.so"],
        &["--plugin-load-add=file_key_management=file_key_management.so"],
        &["--loose-file-key-management-filename=/k"],
    ] {
        assert_eq!(resolved(words).1.key_plugins, ["file_key_management"], "{words:?}");
    }
}

#[test]
fn what_cannot_be_followed_is_named() {
    let tree = Tree::new();
    for (words, sst, part) in [
        ("--innodb-page-size=5k", "", "innodb_page_size"),
        ("--innodb-page-size=x", "", "innodb-page-size"),
        ("--innodb-data-file-path=ibdata1", "", "innodb-data-file-path"),
        ("--innodb-data-file-path=/dev/sdb:3Graw", "", "raw device"),
        ("--lower-case-table-names=3", "", "lower_case_table_names"),
        ("--x", "cpat=\\(", "[sst] cpat"),
    ] {
        let error = tree.try_layout(&[words], sst).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(crate::failure::kind_of(&error), Kind::Configuration);
    }
    let error = Layout::resolve(&SstArgs::default(), &ServerOptions::default()).unwrap_err();
    assert!(error.to_string().contains("datadir is not set"), "{error}");
}

fn entry(place: Place, path: &str, role: FileRole) -> FileEntry {
    FileEntry { id: FileId(0), place, path: path.to_owned(), size: 0, allocated: 0, role }
}

#[test]
fn targets_are_this_nodes_own() {
    let (tree, layout) = resolved(&[
        "--innodb-data-file-path=a:12M;b:12M:autoextend",
        "--innodb-log-group-home-dir=DIR/redo",
        "--log-bin=DIR/bl/x",
        "--innodb-buffer-pool-filename=warm",
    ]);
    let elsewhere = FileRole::TableElsewhere { owner: "db/t.isl".to_owned() };
    let ext = tree.path("ext/db/t.ibd");
    let ext = ext.to_str().unwrap();
    for (entry, want) in [
        (entry(Place::DataHome, "ibdata2", FileRole::SystemTablespace { index: 1 }), "data/b"),
        (entry(Place::LogHome, "ib_logfile0", FileRole::Redo), "redo/ib_logfile0"),
        (entry(Place::Datadir, "db/t.ibd", FileRole::Table), "data/db/t.ibd"),
        (entry(Place::External, ext, elsewhere.clone()), "ext/db/t.ibd"),
        (entry(Place::DataHome, "ib_buffer_pool", FileRole::Server), "data/warm"),
    ] {
        assert_eq!(layout.target_of(&entry).unwrap(), tree.path(want), "{entry:?}");
    }
    let third = entry(Place::DataHome, "c", FileRole::SystemTablespace { index: 2 });
    assert_eq!(layout.target_of(&third).unwrap_err().kind, Kind::Configuration);
    let inside = tree.path("data/db2/t.ibd");
    let inside = entry(Place::External, inside.to_str().unwrap(), elsewhere);
    assert!(layout.target_of(&inside).unwrap_err().text.contains("inside this node's datadir"));
    let hostile = entry(Place::Datadir, "db/../../x.ibd", FileRole::Table);
    assert_eq!(layout.target_of(&hostile).unwrap_err().kind, Kind::Peer);
}

#[test]
fn a_link_to_a_file_of_the_system_set_stays() {
    let tree = Tree::new();
    tree.file("ssd/ibdata1", "x");
    tree.link("data/ibdata1", tree.path("ssd/ibdata1"));
    let target =
        tree.layout(&[]).target_of(&entry(Place::DataHome, "i", FileRole::SystemTablespace { index: 0 }));
    assert_eq!(target.unwrap(), tree.path("ssd/ibdata1"));
}
