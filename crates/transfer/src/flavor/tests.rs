//! A second flavor fits: one without a second engine, and with other names.
use std::fs;

use super::mariadb::MariaDb;
use super::*;
use crate::datadir::engines::EnginePolicy;
use crate::datadir::managed::managed;
use crate::datadir::own_position::server_using;
use crate::datadir::scan;
use crate::datadir::testing::Tree;
use crate::install::files::Disk;
use crate::install::plan::{Inputs, Keep, OldKind, Placed, Sweep, plan};
use crate::install::rollback::rollback;
use crate::install::roots::{Roots, remember};
use crate::install::run::install;
use crate::joiner::old_files;

/// A server whose only engine is InnoDB, with one redo log of another name.
#[derive(Debug)]
struct OnlyInnodb;

impl Flavor for OnlyInnodb {
    fn programs(&self) -> &'static [&'static str] {
        &["otherd"]
    }

    fn landmarks(&self) -> &'static [&'static str] {
        &["ibdata1", "redo.1"]
    }

    fn numbered(&self, place: Place, name: &str) -> Option<Numbered> {
        let is_redo = place == Place::LogHome && Pattern::numbered("redo.").matches(name);
        is_redo.then_some(Numbered::Data(FileRole::Redo))
    }

    fn in_datadir(&self, name: &str) -> InDatadir {
        if name.starts_with("redo.") { InDatadir::LeftOut("redo elsewhere") } else { InDatadir::Unknown }
    }

    fn in_database(&self, name: &str) -> Option<TableFile> {
        name.ends_with(".ibd").then_some(TableFile::Tablespace)
    }

    fn is_database(&self, directory: &str) -> bool {
        MariaDb.is_database(directory)
    }

    fn class(&self, role: &FileRole, _: &Path) -> Class {
        match role {
            FileRole::SystemTablespace { index } => Class::System(*index),
            FileRole::Redo => Class::Redo,
            _ => Class::Table,
        }
    }

    fn made_at_start(&self) -> Vec<(Place, Set, Pattern)> {
        vec![(Place::LogHome, Set::Innodb, Pattern::numbered("redo."))]
    }

    fn redo_log(&self) -> &'static str {
        "redo.1"
    }

    fn second_engine(&self) -> Option<&'static SecondEngine> {
        None
    }
}

#[test]
fn a_flavor_without_a_second_engine_is_listed_installed_and_rolled_back() {
    let tree = Tree::new();
    for name in ["ibdata1", "redo.1", "shop/orders.ibd", "shop/orders.MAI", "aria_log_control"] {
        tree.file(&format!("data/{name}"), "old");
    }
    let mut layout = tree.layout(&[]);
    (layout.flavor, layout.second_log_dir) = (&OnlyInnodb, None);
    assert_eq!(layout.second_control(), None);
    assert_eq!(server_using(&layout).unwrap(), None);

    let sent = scan::scan(&layout, &EnginePolicy::default()).unwrap();
    assert!(scan::missing(&layout, &sent.files).is_empty());
    let mut names: Vec<&str> = sent.files.iter().map(|file| file.entry.path.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["ibdata1", "redo.1", "shop/orders.ibd"]);

    let datadir = layout.datadir.clone();
    let old: Vec<(_, OldKind)> = old_files(&managed(&layout).unwrap());
    let roots = Roots::choose(&Disk, &datadir, old.iter().map(|(path, _)| path.as_path())).unwrap();
    remember(&Disk, &datadir, roots.all()).unwrap();
    let stage = datadir.join(".rejoin/stage");
    fs::create_dir_all(&stage).unwrap();
    let staged = sent.files.iter().map(|file| {
        let (staged, target) =
            (stage.join(file.entry.id.0.to_string()), layout.target_of(&file.entry).unwrap());
        fs::write(&staged, "new").unwrap();
        Placed { staged, class: layout.flavor.class(&file.entry.role, &target), target }
    });
    let sweep = layout.flavor.made_at_start().into_iter().map(|(place, set, pattern)| Sweep {
        directory: layout.directory(place).unwrap().to_owned(),
        set,
        pattern,
    });
    let plan = plan(Inputs {
        datadir: &datadir,
        managed: &old,
        staged: staged.collect(),
        unchanged: vec![],
        patched: &[],
        roots: &roots,
        keep: Keep::Old,
        earlier: None,
        sweep: &sweep.collect::<Vec<_>>(),
        position: "11111111-1111-1111-1111-111111111111:7",
        made: 1,
    });
    install(&Disk, plan.unwrap()).unwrap();
    let content = |name: &str| fs::read_to_string(datadir.join(name)).unwrap();
    assert!(names.iter().all(|name| content(name) == "new"));
    // Files that this flavor's server does not have are nobody's: they stay.
    assert_eq!((content("shop/orders.MAI").as_str(), content("aria_log_control").as_str()), ("old", "old"));

    let now = old_files(&managed(&layout).unwrap());
    rollback(&Disk, &datadir, &now, |_| Ok(None), 2).unwrap();
    assert!(names.iter().all(|name| content(name) == "old"));
}
