//! Tests on a datadir that the installed server created.
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use protocol::inventory::{FileRole, Place};

use super::engines::EnginePolicy;
use super::managed::{Managed, managed};
use super::own_position::{position_in_files, server_using};
use super::scan::scan;
use super::testing::Tree;

const TABLES: &str = "
create database `d-b`;
use d-b;
create table i (a int primary key) engine=innodb;
create table p (a int primary key) engine=innodb partition by hash(a) partitions 3;
create table f (a int primary key, t text, fulltext(t)) engine=innodb;
create table e (a int primary key) engine=innodb data directory='EXT';
create table m (a int) engine=myisam;
create table mm (a int) engine=merge union=(m);
create table a (a int) engine=aria;
create table c (a int not null) engine=csv;
create table h (a int) engine=memory;
create table b (a int) engine=blackhole;
create table z (a int) engine=archive;
create sequence s;
set sql_mode='';
create table x (a int) engine=myisam data directory='EXT' index directory='EXT';
";

fn user() -> String {
    let out = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

fn words(tree: &Tree) -> Vec<String> {
    let at = |name: &str| tree.path(name).to_str().unwrap().to_owned();
    vec![
        format!("--innodb-log-group-home-dir={}", at("redo")),
        "--innodb-undo-directory=../undo".to_owned(),
        "--innodb-data-file-path=first:4M;second:8M:autoextend".to_owned(),
        "--innodb-log-file-size=4M".to_owned(),
        "--innodb-undo-tablespaces=2".to_owned(),
    ]
}

/// System tables, then one table of each engine.
fn make(tree: &Tree) {
    let common = [format!("--datadir={}", tree.path("data").display()), format!("--user={}", user())];
    let install = Command::new("mariadb-install-db")
        .args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"])
        .args(&common)
        .args(words(tree))
        .output()
        .unwrap();
    assert!(install.status.success(), "{}", String::from_utf8_lossy(&install.stderr));
    let sbin = Path::new("/usr/sbin/mariadbd");
    let program = if sbin.exists() { sbin } else { Path::new("mariadbd") };
    let mut server = Command::new(program)
        .args(["--no-defaults", "--bootstrap", "--wsrep-on=0", "--symbolic-links=1"])
        .args(["--plugin-load-add=ha_archive", "--plugin-load-add=ha_blackhole"])
        .args(&common)
        .args(words(tree))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The server holds its locks while it waits for statements.
    let given = words(tree);
    let layout = tree.layout(&given.iter().map(String::as_str).collect::<Vec<_>>());
    let mut holder = None;
    for _ in 0..1000 {
        holder = server_using(&layout).unwrap();
        if holder.is_some() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(holder.and_then(|holder| holder.pid), Some(server.id()), "a server that runs is seen");
    let sql = TABLES.replace("EXT", tree.path("ext").to_str().unwrap()).replace("use d-b", "use `d-b`");
    server.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
    let out = server.wait_with_output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

fn all_files(dir: &Path, into: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => all_files(&entry.path(), into),
            false => {
                into.insert(entry.path());
            }
        }
    }
}

#[test]
fn everything_a_server_makes_is_understood() {
    let tree = Tree::new();
    for dir in ["redo", "undo", "ext"] {
        fs::create_dir(tree.path(dir)).unwrap();
    }
    make(&tree);
    let given = words(&tree);
    let layout = tree.layout(&given.iter().map(String::as_str).collect::<Vec<_>>());
    let scan = scan(&layout, &EnginePolicy::default()).unwrap();
    assert!(scan.refusals.is_empty() && scan.warnings.is_empty(), "{:?} {:?}", scan.refusals, scan.warnings);
    assert_eq!(scan.left_out, [], "nothing unknown");

    let by_role =
        |wanted: fn(&FileRole) -> bool| scan.files.iter().filter(|file| wanted(&file.entry.role)).count();
    assert_eq!(by_role(|role| matches!(role, FileRole::SystemTablespace { .. })), 2);
    assert_eq!(by_role(|role| *role == FileRole::Undo), 2);
    assert_eq!(by_role(|role| *role == FileRole::Redo), 1);
    assert_eq!(by_role(|role| matches!(role, FileRole::Link { .. })), 2, "MyISAM DATA and INDEX DIRECTORY");
    assert_eq!(by_role(|role| matches!(role, FileRole::TableElsewhere { .. })), 3, "and the InnoDB one");
    for file in &scan.files {
        let target = layout.target_of(&file.entry).unwrap();
        // `..` in a setting stays in the path.
        assert_eq!(
            target.parent().map(fs::canonicalize).unwrap().unwrap(),
            file.path.parent().map(fs::canonicalize).unwrap().unwrap()
        );
        assert!(file.entry.check().is_ok());
    }

    let mut there = BTreeSet::new();
    for dir in ["data", "redo", "undo", "ext"] {
        all_files(&tree.path(dir), &mut there);
    }
    let sent: BTreeSet<PathBuf> = scan.files.iter().map(|file| real(&file.path)).collect();
    let not_sent: Vec<_> =
        there.difference(&sent).map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert!(
        not_sent.iter().all(|name| name.starts_with("ddl_recovery") || name.ends_with(".err")),
        "{not_sent:?}"
    );
    assert_eq!(scan.files.iter().filter(|file| file.entry.place == Place::External).count(), 3);

    let managed = managed(&layout).unwrap();
    let databases = managed.iter().filter(|file| file.what == Managed::DatabaseDirectory).count();
    assert_eq!(databases, 4, "mysql, performance_schema, sys, d-b");
    assert_eq!(position_in_files(&layout).unwrap(), None, "made without a cluster");
    assert_eq!(server_using(&layout).unwrap(), None);
}

/// Resolves the directory but not the name: a link is a file of its own.
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path.parent().unwrap()).unwrap().join(path.file_name().unwrap())
}
