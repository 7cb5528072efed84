use super::*;
use crate::datadir::engines::EnginePolicy;
use crate::datadir::scan::scan;
use crate::datadir::testing::Tree;
use proptest::prelude::*;
use std::path::Path;

fn listed(tree: &Tree, layout: &Layout) -> Vec<(String, Managed)> {
    let base = tree.path("");
    let name = |path: &Path| path.strip_prefix(&base).unwrap_or(path).to_str().unwrap().to_owned();
    let mut files: Vec<_> =
        managed(layout).unwrap().iter().map(|file| (name(&file.path), file.what)).collect();
    files.sort_by(|a, b| a.0.cmp(&b.0));
    files
}

fn only(list: &[(String, Managed)], what: &Managed) -> Vec<String> {
    list.iter().filter(|(_, is)| is == what).map(|(name, _)| name.clone()).collect()
}

#[test]
fn set_tables_and_what_must_go() {
    let tree = Tree::with_engine_files();
    let remove = [
        "ddl_recovery-backup.log",
        "ddl_recovery.log",
        "ib_buffer_pool.incomplete",
        "ib_logfile101",
        "ibtmp1",
        "master.info",
        "mybin.000001",
        "mybin.index",
        "mybin.state",
        "rel-west.000003",
        "rel.000001",
        "rel.index",
        "relay-log.info",
        "tc.log",
    ];
    let kept = [
        "grastate.dat",
        "gvwstate.dat",
        "galera.cache",
        "gcache.page.000000",
        "k.pem",
        "n.err",
        "n.log",
        "sst_in_progress",
        "sst_retry_count",
        "notes",
        "lost+found/x.ibd",
        ".snap/x.ibd",
        "backup/x.gz",
        "db/notes",
    ];
    let tables = ["db/t.frm", "db/t.ibd", "mysql/user.MAD"];
    for name in remove.iter().chain(&kept).chain(&tables).chain(&["undo001", "ib_logfile1", "db/#sql-x.MYD"])
    {
        tree.file(&format!("data/{name}"), "x");
    }
    let list = listed(&tree, &tree.layout(&["--log-bin=mybin", "--relay-log=rel"]));
    let data = |names: &[&str]| -> Vec<String> { names.iter().map(|name| format!("data/{name}")).collect() };
    assert_eq!(only(&list, &Managed::Table), data(&tables));
    let set = ["aria_log.00000001", "aria_log_control", "ib_logfile0", "ib_logfile1", "ibdata1", "undo001"];
    assert_eq!(only(&list, &Managed::SystemSet), data(&set));
    let mut gone = data(&remove);
    gone.insert(0, "data/db/#sql-x.MYD".to_owned());
    assert_eq!(only(&list, &Managed::RemoveOnly), gone);
    assert_eq!(only(&list, &Managed::DatabaseDirectory), data(&["db", "mysql"]));
}

/// A server with `innodb_log_archive=ON` keeps its redo in these: beside new pages they would be another state's.
#[test]
fn archived_redo_logs_are_of_the_set_that_is_replaced() {
    let tree = Tree::with_engine_files();
    for name in ["ib_0000000000003000.log", "ib_0000000001003000.log", "ib_notes.log"] {
        tree.file(&format!("data/{name}"), "x");
    }
    let list = listed(&tree, &tree.layout(&[]));
    let set = only(&list, &Managed::SystemSet);
    assert!(set.contains(&"data/ib_0000000000003000.log".to_owned()), "{set:?}");
    assert!(set.contains(&"data/ib_0000000001003000.log".to_owned()), "{set:?}");
    assert!(!list.iter().any(|(name, _)| name.contains("notes")), "{list:?}");
}

#[test]
fn an_empty_joiner_has_nothing_and_directories_need_not_exist() {
    let tree = Tree::new();
    let words =
        ["--innodb-log-group-home-dir=DIR/none", "--innodb-data-home-dir=DIR/no/where", "--log-bin=DIR/bl/b"];
    assert_eq!(listed(&tree, &tree.layout(&words)), []);
}

#[test]
fn cpat_keeps_tables_but_nothing_that_would_act() {
    let tree = Tree::with_engine_files();
    for name in
        ["db/t.ibd", "own/t.ibd", "own/db.opt", "tc.log", "ddl_recovery.log", "master.info", "notes.log"]
    {
        tree.file(&format!("data/{name}"), "x");
    }
    let layout = tree.try_layout(&[], r"cpat=.*\.log$\|.*/own\|.*\.info\|.*ibdata1").unwrap();
    let files = managed(&layout).unwrap();
    let has = |name: &str| files.iter().any(|file| file.path == layout.datadir.join(name));
    assert!(has("db/t.ibd") && !has("own/t.ibd") && !has("master.info"), "{files:?}");
    let mut overruled: Vec<_> =
        files.iter().filter(|file| file.keep_overruled).map(|file| file.path).collect();
    overruled.sort();
    assert_eq!(
        overruled,
        [tree.path("data/ddl_recovery.log"), tree.path("data/ibdata1"), tree.path("data/tc.log")]
    );
}

#[test]
fn files_outside_are_own_copies_or_foreign() {
    let donor = Tree::with_engine_files();
    let ext = donor.path("ext/db");
    for table in ["t", "u", "v"] {
        let target = ext.join(format!("{table}.ibd"));
        donor.file(&format!("ext/db/{table}.ibd"), "x");
        donor.file(&format!("data/db/{table}.isl"), target.to_str().unwrap());
    }
    let scanned = scan(&donor.layout(&[]), &EnginePolicy::default()).unwrap();
    let entries: Vec<_> = scanned.files.into_iter().map(|file| file.entry).collect();
    // The joiner is on the same machine: it has t, has never had u, and v does not exist.
    std::fs::remove_file(ext.join("v.ibd")).unwrap();
    let joiner = Tree::with_engine_files();
    joiner.file("data/db/t.isl", ext.join("t.ibd").to_str().unwrap());
    let layout = joiner.layout(&[]);
    let files = managed(&layout).unwrap();
    assert!(files.iter().any(|file| file.path == ext.join("t.ibd")
        && file.what == Managed::TableElsewhere { owner: "db/t.isl".to_owned() }));
    let foreign = foreign_files_at_targets(&entries, &files);
    assert_eq!(foreign.len(), 1, "{foreign:?}");
    assert!(
        foreign[0].text.contains("u.ibd exists") && foreign[0].text.contains("db/u.isl"),
        "{}",
        foreign[0].text
    );
}

#[test]
fn a_file_behind_a_link_is_listed_by_its_own_path() {
    let tree = Tree::with_engine_files();
    std::fs::rename(tree.path("data/ib_logfile0"), tree.path("redo")).unwrap();
    tree.link("data/ib_logfile0", tree.path("redo"));
    let list = listed(&tree, &tree.layout(&[]));
    assert!(list.contains(&("redo".to_owned(), Managed::SystemSet)), "{list:?}");
    assert!(!list.iter().any(|(name, _)| name == "data/ib_logfile0"), "the operator's link stays");
}

fn file_names() -> impl Strategy<Value = String> {
    prop_oneof![
        "(db|mysql|a1)/(#sql-)?[a-c]{1,2}(#P#p0)?\\.(frm|ibd|isl|MYD|MYI|MAD|CSV|TRG|par|opt|BAK|cfg)",
        "(ibdata|ib_logfile|undo00|ibtmp|ib_logfile10)[0-2]",
        "(tc|ddl_recovery|n1|slow)\\.log",
        "(grastate|gvwstate)\\.dat|galera\\.cache|gcache\\.page\\.00000[0-3]",
        "(mybin|rel|rel-w|other)\\.(00000[0-9]|index|state)",
        "(master|relay-log|multi-master)(-w)?\\.info",
        "[a-z]{1,4}\\.(pem|pid|err|txt)",
        "aria_log(_control|\\.0000000[12])",
        "(lost\\+found|\\.hid|#rocksdb)/x\\.ibd",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Donor and joiner use the same tree: every file that is sent is replaced, no kept file is listed, and
    /// every file of the tree is either listed or one of those that are never touched.
    #[test]
    fn managed_is_the_complement_of_kept(names in prop::collection::btree_set(file_names(), 0..40)) {
        let tree = Tree::with_engine_files();
        for name in &names {
            tree.file(&format!("data/{name}"), "");
        }
        let layout = tree.layout(&["--log-bin=mybin", "--relay-log=rel"]);
        let list = managed(&layout).unwrap();
        let paths: HashSet<_> = list.iter().map(|file| file.path.clone()).collect();
        prop_assert_eq!(paths.len(), list.len(), "no path twice");
        let scanned = scan(&layout, &EnginePolicy::default()).unwrap();
        for file in &scanned.files {
            prop_assert!(paths.contains(&file.path), "sent but not managed: {:?}", file.path);
            prop_assert_eq!(layout.target_of(&file.entry).unwrap(), file.path.clone());
        }
        for left in &scanned.left_out {
            prop_assert!(!paths.contains(&left.path), "left out and managed: {:?}", left.path);
        }
        for name in &names {
            let kept = ["grastate", "gvwstate", "galera.", "gcache.", "lost+found", ".hid", "#rocksdb", "n1.", "slow.", "other."]
                .iter()
                .any(|start| name.starts_with(start))
                || [".pem", ".pid", ".err", ".txt", ".BAK", "a.opt"].iter().any(|end| name.ends_with(end));
            let path = tree.path(&format!("data/{name}"));
            let told = scanned.left_out.iter().any(|left| path.starts_with(&left.path));
            if kept {
                prop_assert!(!paths.contains(&path), "kept but managed: {name}");
            } else {
                prop_assert!(paths.contains(&path) || told, "neither managed nor told: {name}");
            }
        }
    }
}
