use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use formats::{Lsn, SpaceId};
use proptest::prelude::*;

use super::super::listing::Care;
use super::*;
use crate::datadir::scan::Skipped;
use crate::datadir::testing::Tree;
use crate::disk::identity::{Identity, Signature, now};

fn roots(tree: &Tree) -> Roots {
    Roots { layout: tree.layout(&[]), skipped: Skipped::default() }
}

type Seen = BTreeMap<PathBuf, (Identity, Option<Signature>)>;

/// Changes in data files have redo, so only their identity is compared.
fn seen(listed: &Listed) -> (PathBuf, (Identity, Option<Signature>)) {
    let signature = (listed.care() != Care::Pages).then_some(listed.look().signature);
    (listed.path(), (listed.look().identity, signature))
}

fn known(catalog: &Catalog) -> Seen {
    catalog.files().iter().filter(|file| file.present).map(|file| seen(&file.listed)).collect()
}

fn there(roots: &Roots) -> Seen {
    listing::list(roots).unwrap().iter().map(seen).collect()
}

/// Files that a listing of changes examines, without those that belong to no database.
fn looked(lister: &mut Lister<'_>) -> Vec<String> {
    let changed = lister.changed().unwrap().expect("everything was listed");
    let mut names = Vec::new();
    lister.all_changed(&changed, &mut |file| names.push(file.name().to_owned())).unwrap();
    names.retain(|name| name.contains('/'));
    names.sort();
    names
}

#[test]
fn only_what_may_have_changed_is_looked_at_again() {
    let tree = Tree::with_engine_files();
    for n in 0..50 {
        tree.file(&format!("data/d/t{n}.ibd"), "pages");
        tree.file(&format!("data/d/t{n}.frm"), "definition");
    }
    tree.file("data/d/m.MYD", "rows");
    tree.file("data/e/db.opt", "");
    let roots = roots(&tree);
    let (mut lister, mut catalog) = (Lister::new(&roots), Catalog::new(now()));
    let todo = lister.refresh(&mut catalog).unwrap();
    assert_eq!((todo.pages.len(), todo.small.len()), (51, 52));
    assert_eq!(looked(&mut lister), ["d/m.MYD"], "it is written through descriptors that stay open");
    tree.file("data/d/t7.frm", "another");
    fs::rename(tree.path("data/d/t8.ibd"), tree.path("data/d/new.ibd")).unwrap();
    fs::remove_file(tree.path("data/d/t9.ibd")).unwrap();
    tree.file("data/rejoin-status.json", "not a database");
    assert_eq!(looked(&mut lister), ["d/m.MYD", "d/new.ibd", "d/t7.frm"]);
}

/// A database with one table in a `DATA DIRECTORY` was listed whole while replication was paused.
#[test]
fn of_a_database_with_files_elsewhere_only_what_may_have_changed_is_looked_at_again() {
    let tree = Tree::with_engine_files();
    for n in 0..50 {
        tree.file(&format!("data/d/t{n}.ibd"), "pages");
    }
    tree.file("outside/d/far.ibd", "pages");
    let far = tree.path("outside/d/far.ibd");
    tree.file("data/d/far.isl", far.to_str().unwrap());
    tree.file("outside/m.MYD", "rows");
    symlink(tree.path("outside/m.MYD"), tree.path("data/d/m.MYD")).unwrap();
    let roots = roots(&tree);
    let (mut lister, mut catalog) = (Lister::new(&roots), Catalog::new(now()));
    lister.refresh(&mut catalog).unwrap();
    let elsewhere = [tree.path("outside/m.MYD"), far.clone()].map(|path| path.to_str().unwrap().to_owned());
    let mut always: Vec<String> =
        ["d/far.isl", "d/m.MYD"].map(str::to_owned).into_iter().chain(elsewhere).collect();
    always.sort();
    assert_eq!(looked(&mut lister), always);
    // Renamed, as the server does it, then dropped.
    tree.file("data/d/new.isl", tree.path("outside/d/new.ibd").to_str().unwrap());
    fs::rename(&far, tree.path("outside/d/new.ibd")).unwrap();
    fs::remove_file(tree.path("data/d/far.isl")).unwrap();
    lister.refresh(&mut catalog).unwrap();
    assert_eq!(known(&catalog), there(&roots));
    fs::remove_file(tree.path("data/d/new.isl")).unwrap();
    fs::remove_file(tree.path("outside/d/new.ibd")).unwrap();
    fs::remove_file(tree.path("data/d/m.MYD")).unwrap();
    lister.refresh(&mut catalog).unwrap();
    assert_eq!(known(&catalog), there(&roots));
    assert!(!catalog.files().iter().any(|file| file.present && file.listed.is_elsewhere()));
}

/// A file that is created, removed or renamed right after a listing, within the same clock tick, is found by the next
/// one. The directory's own times would not show it.
#[test]
fn what_happens_in_the_tick_of_the_listing_is_in_the_next() {
    let tree = Tree::with_engine_files();
    for name in ["a", "b", "c"] {
        tree.file(&format!("data/d/{name}.ibd"), name);
    }
    let roots = roots(&tree);
    let mut same_tick = 0;
    for round in 0..200 {
        let (mut lister, mut catalog) = (Lister::new(&roots), Catalog::new(now()));
        let mtime = || fs::metadata(tree.path("data/d")).unwrap().modified().unwrap();
        let new = tree.path("data/d/new.ibd");
        File::create(&new).unwrap();
        lister.refresh(&mut catalog).unwrap();
        let before = mtime();
        match round % 3 {
            0 => fs::remove_file(&new).unwrap(),
            1 => fs::rename(&new, tree.path("data/d/b.ibd")).unwrap(),
            _ => drop(File::create(tree.path("data/d/newer.ibd")).unwrap()),
        }
        same_tick += u32::from(mtime() == before);
        lister.refresh(&mut catalog).unwrap();
        assert_eq!(known(&catalog), there(&roots), "round {round}");
    }
    assert!(same_tick > 0, "no round was within a tick: nothing was tried");
}

#[test]
fn without_a_watch_everything_is_listed() {
    let tree = Tree::with_engine_files();
    tree.file("data/d/t.ibd", "");
    let roots = roots(&tree);
    let (mut lister, mut catalog) = (Lister::new(&roots), Catalog::new(now()));
    lister.watch = None;
    lister.refresh(&mut catalog).unwrap();
    fs::rename(tree.path("data/d/t.ibd"), tree.path("data/d/u.ibd")).unwrap();
    lister.refresh(&mut catalog).unwrap();
    assert_eq!(known(&catalog), there(&roots));
}

/// IMPORT TABLESPACE writes a first page without redo and closes the file.
#[test]
fn a_first_page_is_forgotten_when_its_file_may_have_been_imported() {
    let tree = Tree::with_engine_files();
    for name in ["a", "b"] {
        tree.file(&format!("data/d/{name}.ibd"), name);
    }
    let roots = roots(&tree);
    for watched in [true, false] {
        let (mut lister, mut catalog) = (Lister::new(&roots), Catalog::new(now()));
        if !watched {
            lister.watch = None;
        }
        lister.refresh(&mut catalog).unwrap();
        let id = |catalog: &Catalog, name: &str| {
            catalog.files().iter().find(|file| file.listed.name() == name).expect("it was listed").id
        };
        let (a, b) = (id(&catalog, "d/a.ibd"), id(&catalog, "d/b.ibd"));
        for id in [a, b] {
            catalog.note_first_page(id, Some((SpaceId(7), Lsn(700))));
        }
        let mut imported = File::options().write(true).open(tree.path("data/d/a.ibd")).unwrap();
        imported.write_all(b"another").unwrap();
        drop(imported);
        lister.refresh(&mut catalog).unwrap();
        assert_eq!(catalog.noted_first_page(a), None);
        assert_eq!(catalog.noted_first_page(b).is_some(), watched, "without a watch nothing is known");
    }
}

const DATABASES: [&str; 4] = ["d", "e", "f", "g"];
const FILES: [&str; 6] = ["t.ibd", "t.frm", "u.ibd", "u.frm", "m.MYD", "m.MYI"];

#[derive(Clone, Debug)]
enum Step {
    Write(usize, usize),
    Append(usize),
    Remove(usize, usize),
    Rename((usize, usize), (usize, usize)),
    Link((usize, usize), (usize, usize)),
    Elsewhere(usize),
    Tablespace(usize, bool),
    MakeDatabase(usize),
    DropDatabase(usize),
    RenameDatabase(usize, usize),
    LinkDatabase(usize, usize),
    Refresh,
}

fn step() -> impl Strategy<Value = Step> {
    let (db, name) = (0..DATABASES.len(), 0..FILES.len());
    let file = (db.clone(), name);
    prop_oneof![
        6 => file.clone().prop_map(|(d, f)| Step::Write(d, f)),
        2 => db.clone().prop_map(Step::Append),
        3 => file.clone().prop_map(|(d, f)| Step::Remove(d, f)),
        4 => (file.clone(), file).prop_map(|(a, b)| Step::Rename(a, b)),
        1 => (db.clone(), db.clone(), any::<bool>()).prop_map(|(a, b, same)| {
            Step::Link((a, 0), (b, if same { 0 } else { 2 }))
        }),
        1 => db.clone().prop_map(Step::Elsewhere),
        2 => (db.clone(), any::<bool>()).prop_map(|(d, made)| Step::Tablespace(d, made)),
        2 => db.clone().prop_map(Step::MakeDatabase),
        1 => db.clone().prop_map(Step::DropDatabase),
        1 => (db.clone(), db.clone()).prop_map(|(a, b)| Step::RenameDatabase(a, b)),
        1 => (db.clone(), db).prop_map(|(a, b)| Step::LinkDatabase(a, b)),
        4 => Just(Step::Refresh),
    ]
}

/// Steps that are not possible are skipped.
fn take(step: &Step, tree: &Tree, open: &mut [Option<File>]) {
    let database = |d: usize| tree.path("data").join(DATABASES[d]);
    let path = |(d, f): (usize, usize)| database(d).join(FILES[f]);
    let remove = |path: &Path| fs::remove_dir_all(path).or_else(|_| fs::remove_file(path));
    match *step {
        Step::Write(d, f) => drop(fs::write(path((d, f)), "written")),
        Step::Append(d) => {
            let file = open[d].take().or_else(|| File::options().append(true).open(path((d, 4))).ok());
            open[d] = file.filter(|mut file| file.write_all(b"more").is_ok());
        }
        Step::Remove(d, f) => drop(fs::remove_file(path((d, f)))),
        Step::Rename(from, to) => {
            // No server renames a table that it has open, or gives a tablespace another file's extension. A hard link
            // with such a name would show changes that have redo.
            open.fill_with(|| None);
            let (from, to) = (path(from), path(to));
            if (from.extension() == Some("ibd".as_ref())) == (to.extension() == Some("ibd".as_ref())) {
                drop(fs::rename(from, to));
            }
        }
        Step::Link(from, to) => drop(fs::hard_link(path(from), path(to))),
        Step::Elsewhere(d) => {
            let at = tree.path("outside").join(DATABASES[d]);
            let made = fs::create_dir_all(&at).and_then(|()| fs::write(at.join("m.MYD"), "outside"));
            drop(made.and_then(|()| symlink(at.join("m.MYD"), path((d, 4)))));
        }
        Step::Tablespace(d, made) => {
            let (file, link) =
                (tree.path("outside").join(DATABASES[d]).join("f.ibd"), database(d).join("f.isl"));
            let _ = (fs::remove_file(&file), fs::remove_file(&link));
            if made && database(d).is_dir() && !database(d).is_symlink() {
                fs::create_dir_all(tree.path("outside").join(DATABASES[d])).unwrap();
                fs::write(&file, "outside").unwrap();
                fs::write(&link, file.to_str().unwrap()).unwrap();
            }
        }
        Step::MakeDatabase(d) => drop(fs::create_dir(database(d))),
        Step::DropDatabase(d) => drop(remove(&database(d))),
        Step::RenameDatabase(a, b) => drop(fs::rename(database(a), database(b))),
        Step::LinkDatabase(a, b) => drop(symlink(database(a), database(b))),
        Step::Refresh => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever happens to files in between, the catalog after a listing is what a first listing finds.
    #[test]
    fn a_listing_of_changes_leads_to_what_is_there(steps in proptest::collection::vec(step(), 1..40)) {
        let tree = Tree::with_engine_files();
        for name in ["d/t.ibd", "d/t.frm", "d/m.MYD", "e/t.ibd", "e/db.opt"] {
            tree.file(&format!("data/{name}"), "first");
        }
        let roots = roots(&tree);
        let (mut lister, mut catalog) = (Lister::new(&roots), Catalog::new(now()));
        let mut open = [const { None }; DATABASES.len()];
        lister.refresh(&mut catalog).unwrap();
        for step in steps.iter().chain([&Step::Refresh]) {
            take(step, &tree, &mut open);
            if matches!(step, Step::Refresh) {
                lister.refresh(&mut catalog).unwrap();
                prop_assert_eq!(known(&catalog), there(&roots));
            }
        }
    }
}
