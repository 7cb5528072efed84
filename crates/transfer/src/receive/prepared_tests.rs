use std::collections::BTreeMap;

use super::*;
use crate::datadir::testing::Tree;
use crate::flavor::class::Class;
use crate::flavor::mariadb::MariaDb;
use crate::receive::staging::Patches;

fn received(number: u32, place: Place, path: &str, role: FileRole) -> FileEntry {
    FileEntry { id: FileId(number), place, path: path.to_owned(), size: 4, allocated: 4096, role }
}

/// A staging directory with these files, each with its name's first four bytes.
fn staged(tree: &Tree, files: &[FileEntry]) -> (Staging, Entries) {
    let layout = tree.layout(&[]);
    let staging = Staging::new(&MariaDb, &layout.datadir).unwrap();
    let targets: Vec<_> =
        files.iter().map(|entry| (entry.clone(), layout.target_of(entry).unwrap())).collect();
    for (entry, target) in &targets {
        staging.begin(entry, target).unwrap();
    }
    staging.settle_list(&targets, false, Patches::None, 1).unwrap();
    for entry in files {
        fs::write(staging.path(entry.id).unwrap(), &entry.path.as_bytes()[..4]).unwrap();
    }
    (staging, files.iter().collect())
}

fn files_of_a_backup() -> Vec<FileEntry> {
    vec![
        received(0, Place::DataHome, "ibdata1", FileRole::SystemTablespace { index: 0 }),
        received(1, Place::LogHome, "ib_logfile0", FileRole::Redo),
        received(2, Place::UndoDir, "undo001", FileRole::Undo),
        received(3, Place::Datadir, "shop/old.ibd", FileRole::Table),
        received(4, Place::Datadir, "shop/gone.ibd", FileRole::Table),
        received(5, Place::Datadir, "shop/t.new", FileRole::Backup),
        received(6, Place::Datadir, "backup-my.cnf", FileRole::Backup),
    ]
}

#[test]
fn what_the_program_leaves_takes_the_place_of_what_was_received() {
    let tree = Tree::with_engine_files();
    let layout = tree.layout(&[]);
    let (staging, files) = staged(&tree, &files_of_a_backup());
    let program = |directory: &Path| -> Result<()> {
        assert_eq!(fs::read(directory.join("ibdata1"))?, b"ibda");
        assert_eq!(fs::read(directory.join("backup-my.cnf"))?, b"back");
        fs::write(directory.join("ibdata1"), "prepared")?;
        fs::rename(directory.join("shop/t.new"), directory.join("shop/t.ibd"))?;
        fs::rename(directory.join("shop/old.ibd"), directory.join("shop/renamed.ibd"))?;
        fs::remove_file(directory.join("shop/gone.ibd"))?;
        fs::write(directory.join("xtrabackup_info"), "its own")?;
        fs::write(directory.join("grastate.dat"), "nobody's")?;
        Ok(())
    };
    let prepared = staging.prepare(&files, program, |entry| layout.target_of(entry)).unwrap();
    let by_path: BTreeMap<String, FileEntry> =
        prepared.iter().map(|entry| (entry.path.clone(), entry)).collect();
    let names: Vec<_> = by_path.keys().map(String::as_str).collect();
    assert_eq!(names, ["ib_logfile0", "ibdata1", "shop/renamed.ibd", "shop/t.ibd", "undo001"]);
    let system = &by_path["ibdata1"];
    assert_eq!((system.size, &system.role), (8, &FileRole::SystemTablespace { index: 0 }));

    let placed: BTreeMap<_, _> =
        staging.staged().into_iter().map(|file| (file.target.clone(), file)).collect();
    assert_eq!(placed.len(), 5);
    for (target, content, class) in [
        ("ibdata1", "prepared", Class::System(0)),
        ("ib_logfile0", "ib_l", Class::Redo),
        ("undo001", "undo", Class::Undo),
        ("shop/t.ibd", "shop", Class::Table),
        ("shop/renamed.ibd", "shop", Class::Table),
    ] {
        let file = &placed[&layout.datadir.join(target)];
        assert_eq!(
            (fs::read_to_string(&file.staged).unwrap().as_str(), file.class),
            (content, class),
            "{target}"
        );
        let stage = working_directory(&own_directory(&layout.datadir), "stage");
        assert_eq!(file.staged.parent(), Some(&*stage));
    }
    staging.sync_all().unwrap();
    assert_eq!(
        staging.read_back(1, &crate::cancel::Cancel::new()).unwrap(),
        0,
        "nothing is known of them any more"
    );
    // Nothing else is left in either directory.
    let stage = working_directory(&own_directory(&layout.datadir), "stage");
    assert_eq!(fs::read_dir(stage).unwrap().count(), 5);
    assert!(!working_directory(&own_directory(&layout.datadir), PREPARE).exists());
}

#[test]
fn a_program_that_fails_leaves_no_directory() {
    let tree = Tree::with_engine_files();
    let layout = tree.layout(&[]);
    let (staging, files) = staged(&tree, &files_of_a_backup());
    let error =
        staging.prepare(&files, |_| anyhow::bail!("broken"), |entry| layout.target_of(entry)).unwrap_err();
    assert_eq!(error.to_string(), "broken");
    assert!(!working_directory(&own_directory(&layout.datadir), PREPARE).exists());
    // The next attempt begins.
    drop(staging);
    Staging::new(&MariaDb, &layout.datadir).unwrap();
}

/// Names that a program makes up do not leave the datadir, nor touch what is not the data's.
#[test]
fn a_table_elsewhere_is_found_by_its_link() {
    let (tree, other) = (Tree::with_engine_files(), tempfile::tempdir().unwrap());
    let layout = tree.layout(&[]);
    let (staging, files) = staged(&tree, &files_of_a_backup());
    let path = other.path().join("shop/t.ibd");
    let program = |directory: &Path| -> Result<()> {
        fs::rename(directory.join("shop/t.new"), directory.join("shop/t.ibd"))?;
        fs::write(directory.join("shop/t.isl"), path.to_str().unwrap())?;
        Ok(())
    };
    let prepared = staging.prepare(&files, program, |entry| layout.target_of(entry)).unwrap();
    let table = prepared.iter().find(|entry| entry.place == Place::External).unwrap();
    assert_eq!(Path::new(&table.path), path);
    assert_eq!(table.role, FileRole::TableElsewhere { owner: "shop/t.isl".to_owned() });
    assert_eq!(fs::read(staging.path(table.id).unwrap()).unwrap(), b"shop");
}
