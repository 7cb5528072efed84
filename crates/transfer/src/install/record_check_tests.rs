use std::os::unix::fs::symlink;

use super::*;
use crate::datadir::testing::Tree;
use crate::flavor::class::{Class, Set};
use crate::flavor::pattern::Pattern;
use crate::install::plan::{
    Keep, Kept, KeptPatch, Patched, Phase, Placed, Purpose, Retired, Sweep, Unchanged, VERSION,
};

/// A datadir with a redo log elsewhere, a database behind a link, and a root on what could be another
/// filesystem.
struct Fixture(Tree);

impl Fixture {
    fn new() -> Fixture {
        let tree = Tree::with_engine_files();
        for dir in [
            "data/#sql-rejoin/old",
            "data/.rejoin/stage",
            "data/db",
            "log",
            "far/linked",
            "far/.rejoin/old",
            "ssd/db",
        ] {
            fs::create_dir_all(tree.path(dir)).unwrap();
        }
        symlink(tree.path("far/linked"), tree.path("data/linked")).unwrap();
        Fixture(tree)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path(path)
    }

    /// A plan that a transfer of this node could have written.
    fn plan(&self) -> InstallPlan {
        let at = |path: &str| self.at(path);
        let table = |path: &str, n: u8| Retired {
            path: at(path),
            to: Some(at(&format!("data/#sql-rejoin/old/7-{n}"))),
            class: Class::Table,
        };
        InstallPlan {
            version: VERSION,
            purpose: Purpose::Install,
            phase: Phase::Aside,
            datadir: at("data"),
            roots: vec![at("data/#sql-rejoin"), at("far/.rejoin")],
            position: "u:1".to_owned(),
            made: 7,
            keep: Keep::Old,
            retired: vec![
                table("data/db/t.ibd", 1),
                table("data/db/e.isl", 2),
                Retired { path: at("ssd/db/e.ibd"), to: None, class: Class::Table },
                Retired {
                    path: at("data/linked/x.ibd"),
                    to: Some(at("far/.rejoin/old/7-3")),
                    class: Class::Table,
                },
            ],
            placed: vec![
                Placed {
                    staged: at("data/.rejoin/stage/1-a"),
                    target: at("log/ib_logfile0"),
                    class: Class::Redo,
                },
                Placed {
                    staged: at("data/.rejoin/stage/2-b"),
                    target: at("data/ibdata1"),
                    class: Class::System(0),
                },
                Placed {
                    staged: at("data/#sql-rejoin/grastate.dat"),
                    target: at("data/grastate.dat"),
                    class: Class::Table,
                },
            ],
            patched: vec![Patched {
                table: at("data/db/p.ibd"),
                patch: at("data/.rejoin/stage/3-c"),
                back: Some(at("data/.rejoin/stage/3-c.back")),
                kept: Some(at("data/#sql-rejoin/old/7-back-0")),
            }],
            kept: vec![Kept {
                path: at("data/db/t.ibd"),
                copy: at("data/#sql-rejoin/old/7-1"),
                class: Class::Table,
            }],
            kept_patches: vec![KeptPatch {
                table: at("data/db/p.ibd"),
                patch: at("data/#sql-rejoin/old/7-back-0"),
            }],
            unchanged: vec![Unchanged { path: at("data/db/s.ibd"), size: 1, changed: 2 }],
            directories: vec![at("data/db")],
            emptied: vec![at("data/gone")],
            sweep: vec![Sweep {
                directory: at("log"),
                set: Set::Innodb,
                pattern: Pattern::numbered("ib_logfile"),
            }],
            untouched: vec![at("data/db/s.ibd")],
        }
    }

    fn check(&self, name: &str, record: &impl serde::Serialize) -> Result<()> {
        let path = self.at("data/#sql-rejoin").join(name);
        fs::write(&path, serde_json::to_vec(record).unwrap()).unwrap();
        let log = format!("--innodb-log-group-home-dir={}", self.at("log").display());
        let checked = check(&self.at("data"), || Ok(self.0.layout(&[&log])));
        fs::remove_file(path).unwrap();
        checked
    }
}

#[test]
fn what_a_transfer_wrote_is_taken() {
    let fixture = Fixture::new();
    let fine = fixture.plan();
    for name in [INSTALL, INSTALLED, RELEASED] {
        fixture.check(name, &fine).unwrap();
    }
    fixture.check(ROOTS, &fine.roots).unwrap();
    // The link of a table elsewhere may stay unchanged, belong to another engine, or have another name.
    let mut plan = fixture.plan();
    fs::write(fixture.at("data/db/f.isl"), "").unwrap();
    symlink(fixture.at("ssd/m.MYD"), fixture.at("data/db/m.MYD")).unwrap();
    symlink(fixture.at("ssd/of-an-operator"), fixture.at("data/db/o.ibd")).unwrap();
    for path in ["ssd/db/f.ibd", "ssd/m.MYD", "data/db/o.ibd", "ssd/of-an-operator"] {
        plan.retired.push(Retired { path: fixture.at(path), to: None, class: Class::Table });
    }
    // A root that does not exist yet, beside such a table and in a database.
    plan.roots.extend([fixture.at("ssd/.rejoin"), fixture.at("data/db/.rejoin")]);
    fixture.check(INSTALL, &plan).unwrap();
    check(&fixture.at("data"), || panic!("no record needs a layout")).unwrap();
}

/// Each of these paths, anywhere in a record, is refused.
#[test]
fn nothing_outside_and_nothing_of_ours_is_taken() {
    type Put = fn(&mut InstallPlan, PathBuf);
    let places: [(&str, Put); 11] = [
        ("retired", |plan, path| plan.retired[0].path = path),
        ("to", |plan, path| plan.retired[0].to = Some(path)),
        ("staged", |plan, path| plan.placed[0].staged = path),
        ("target", |plan, path| plan.placed[0].target = path),
        ("patched", |plan, path| plan.patched[0].table = path),
        ("back", |plan, path| plan.patched[0].back = Some(path)),
        ("kept", |plan, path| plan.kept[0].copy = path),
        ("kept patch", |plan, path| plan.kept_patches[0].patch = path),
        ("directory", |plan, path| plan.directories[0] = path),
        ("swept", |plan, path| plan.sweep[0].directory = path),
        ("root", |plan, path| plan.roots[1] = path),
    ];
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.at("victim/.rejoin/old")).unwrap();
    symlink(fixture.at("victim"), fixture.at("far/way")).unwrap();
    symlink(fixture.at("victim"), fixture.at("data/db/way")).unwrap();
    let bad = [
        "victim/file",
        "victim",
        "data/../victim/x.ibd",
        "data/db/../../victim/t.ibd",
        "data/.rejoin/stage/../../../victim/t",
        "data/#sql-rejoin/install.json",
        "data/rejoin-lock",
        "far/way/.rejoin",
        "victim/db/none.ibd",
        "data/db/way/t.ibd",
    ];
    for (place, put) in places {
        for path in bad {
            let mut plan = fixture.plan();
            put(&mut plan, fixture.at(path));
            let error = fixture.check(INSTALL, &plan).expect_err(&format!("{place} {path}")).to_string();
            assert!(error.contains("/install.json names ") && error.contains("nothing was done"), "{error}");
        }
        let mut plan = fixture.plan();
        put(&mut plan, "db/t.ibd".into());
        fixture.check(INSTALL, &plan).expect_err("a relative path");
    }
}

/// The node's directories were reconfigured after an install. The old record blocks no start, only its own
/// rollback.
#[test]
fn a_finished_install_outlives_the_configuration() {
    let fixture = Fixture::new();
    let mut plan = fixture.plan();
    plan.retired.push(Retired { path: fixture.at("former/bin.1"), to: None, class: Class::Table });
    plan.roots.push(fixture.at("former/.rejoin"));
    for name in [INSTALLED, RELEASED] {
        fixture.check(name, &plan).unwrap();
    }
    fixture.check(INSTALL, &plan).unwrap_err();
    fs::write(fixture.at("data/#sql-rejoin/installed.json"), serde_json::to_vec(&plan).unwrap()).unwrap();
    let log = format!("--innodb-log-group-home-dir={}", fixture.at("log").display());
    let error = check_undo(&fixture.at("data"), &fixture.0.layout(&[&log])).unwrap_err().to_string();
    assert!(error.contains("/installed.json names ") && error.contains("former"), "{error}");
    fs::remove_file(fixture.at("data/#sql-rejoin/installed.json")).unwrap();
    plan.retired[0].to = Some(fixture.at("former/file"));
    fixture.check(INSTALLED, &plan).unwrap_err();
}

/// A node that has not been Synced since its last install keeps what that one replaced, also if its binary log was switched off
/// meanwhile: that keeps no transfer from coming, only a rollback with these options.
#[test]
fn what_an_earlier_install_kept_may_come_from_a_former_directory() {
    let fixture = Fixture::new();
    let mut plan = fixture.plan();
    plan.kept[0].path = fixture.at("former/bin.state");
    fixture.check(INSTALL, &plan).unwrap();
    plan.purpose = Purpose::Rollback;
    fixture.check(INSTALL, &plan).unwrap_err();
    plan.purpose = Purpose::Install;
    fs::write(fixture.at("data/#sql-rejoin/installed.json"), serde_json::to_vec(&plan).unwrap()).unwrap();
    let log = format!("--innodb-log-group-home-dir={}", fixture.at("log").display());
    let error = check_undo(&fixture.at("data"), &fixture.0.layout(&[&log])).unwrap_err().to_string();
    assert!(error.contains("/installed.json names ") && error.contains("former"), "{error}");
}

#[test]
fn links_in_the_way_are_refused() {
    let fixture = Fixture::new();
    let fine = fixture.plan();
    fs::create_dir_all(fixture.at("victim/old")).unwrap();
    let refused = |what: &str| {
        let error = fixture.check(ROOTS, &fine.roots).expect_err(what).to_string();
        assert!(
            error.contains("link") || error.contains("not a directory") || error.contains("not a regular"),
            "{error}"
        );
    };
    fs::remove_dir(fixture.at("far/.rejoin/old")).unwrap();
    symlink(fixture.at("victim/old"), fixture.at("far/.rejoin/old")).unwrap();
    refused("the directory of kept files");
    fs::remove_file(fixture.at("far/.rejoin/old")).unwrap();
    symlink(fixture.at("victim/old"), fixture.at("far/.rejoin/server")).unwrap();
    refused("the directory of a private server");
    fs::remove_file(fixture.at("far/.rejoin/server")).unwrap();
    symlink(fixture.at("victim/installed.json"), fixture.at("data/#sql-rejoin/installed.json")).unwrap();
    refused("a record");
    fs::remove_file(fixture.at("data/#sql-rejoin/installed.json")).unwrap();
    fixture.check(ROOTS, &fine.roots).unwrap();
    fs::remove_dir_all(fixture.at("data/.rejoin")).unwrap();
    symlink(fixture.at("victim"), fixture.at("data/.rejoin")).unwrap();
    refused("the directory of staged files");
}
