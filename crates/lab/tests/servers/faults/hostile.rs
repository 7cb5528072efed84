//! The server's user can write whatever it likes into its datadir. Root's verbs act on none of it outside, and leave nothing
//! of root's inside.
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use rejoin_lab::places::User;
use rejoin_lab::{Cluster, Node};
use transfer::flavor::class::Set;
use transfer::flavor::pattern::Pattern;
use transfer::install::plan::{Class, InstallPlan, Keep, Phase, Placed, Purpose, Retired, Sweep, VERSION};

use super::verbs::{VERBS, command, run};

/// Owner, mode and content.
type Seen = (u32, u32, Vec<u8>);

/// A directory that only the user who runs the tests can enter, which is usually root.
struct Victim(PathBuf);

impl Victim {
    fn beside(node: &Node) -> Result<Victim> {
        let dir = node.dir().join("victim");
        fs::DirBuilder::new().mode(0o700).create(&dir)?;
        for sub in ["empty", "old", "stage", ".rejoin", ".rejoin/old"] {
            fs::create_dir(dir.join(sub))?;
        }
        for file in ["a", "b", "old/kept", "stage/1", ".rejoin/old/kept", "t.ibd"] {
            fs::write(dir.join(file), format!("{file} is precious"))?;
        }
        Ok(Victim(dir))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Everything in it.
    fn seen(&self) -> Result<BTreeMap<PathBuf, Seen>> {
        let (mut seen, mut todo) = (BTreeMap::new(), vec![self.0.clone()]);
        while let Some(path) = todo.pop() {
            let meta = fs::symlink_metadata(&path)?;
            let content = if meta.is_dir() { Vec::new() } else { fs::read(&path)? };
            if meta.is_dir() {
                todo.extend(fs::read_dir(&path)?.flatten().map(|entry| entry.path()));
            }
            seen.insert(path, (meta.uid(), meta.mode(), content));
        }
        Ok(seen)
    }
}

/// A record that does nothing yet.
fn plan(node: &Node, phase: Phase) -> InstallPlan {
    InstallPlan {
        version: VERSION,
        purpose: Purpose::Install,
        phase,
        datadir: node.datadir(),
        roots: vec![node.datadir().join("#sql-rejoin")],
        position: "planted:1".to_owned(),
        made: 1,
        keep: Keep::Old,
        retired: vec![],
        placed: vec![],
        patched: vec![],
        kept: vec![],
        kept_patches: vec![],
        unchanged: vec![],
        directories: vec![],
        emptied: vec![],
        sweep: vec![],
        untouched: vec![],
    }
}

/// Puts a file into the directory of records, as the server's user could.
fn plant(node: &Node, name: &str, content: &(impl serde::Serialize + ?Sized)) -> Result<()> {
    for dir in ["#sql-rejoin", ".rejoin", ".rejoin/stage"] {
        fs::create_dir_all(node.datadir().join(dir))?;
    }
    fs::write(node.datadir().join(".rejoin/stage/1-x"), "planted")?;
    fs::write(node.datadir().join("#sql-rejoin").join(name), serde_json::to_vec(content)?)?;
    User::for_servers()?.own(&node.datadir())
}

fn clear(node: &Node) -> Result<()> {
    for dir in ["#sql-rejoin", ".rejoin"].map(|name| node.datadir().join(name)) {
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
    }
    Ok(())
}

/// What is planted, by what it is about. The last two are harmless but for the links beside them.
fn cases(node: &Node, victim: &Victim) -> Vec<(&'static str, &'static str, InstallPlan)> {
    let (aside, placing) = (plan(node, Phase::Aside), plan(node, Phase::Placing));
    let staged = node.datadir().join(".rejoin/stage/1-x");
    let retired = |name: &str| Retired { path: victim.at(name), to: None, class: Class::Table };
    let placed =
        |name: &str| Placed { staged: staged.clone(), target: victim.at(name), class: Class::System(0) };
    vec![
        ("deletes a file", "install.json", InstallPlan { retired: vec![retired("a")], ..aside.clone() }),
        ("deletes a table", "install.json", InstallPlan { retired: vec![retired("t.ibd")], ..aside.clone() }),
        (
            "deletes a directory",
            "install.json",
            InstallPlan { emptied: vec![victim.at("empty")], ..aside.clone() },
        ),
        ("makes a file", "install.json", InstallPlan { placed: vec![placed("new")], ..placing.clone() }),
        ("overwrites a file", "install.json", InstallPlan { placed: vec![placed("b")], ..placing.clone() }),
        (
            "makes a directory",
            "install.json",
            InstallPlan { directories: vec![victim.at("new")], ..placing.clone() },
        ),
        (
            "sweeps a directory",
            "install.json",
            InstallPlan {
                sweep: vec![Sweep {
                    directory: victim.0.clone(),
                    set: Set::Innodb,
                    pattern: Pattern::name("a"),
                }],
                placed: vec![Placed { target: node.datadir().join("ibdata1"), ..placed("") }],
                ..placing.clone()
            },
        ),
        ("is finished elsewhere", "install.json", InstallPlan { roots: vec![victim.0.clone()], ..placing }),
        ("keeps elsewhere", "installed.json", InstallPlan { roots: vec![victim.0.clone()], ..aside.clone() }),
        (
            "keeps in a root",
            "installed.json",
            InstallPlan { roots: vec![victim.at(".rejoin")], ..aside.clone() },
        ),
        ("is deleted elsewhere", "released.json", InstallPlan { roots: vec![victim.0.clone()], ..aside }),
    ]
}

#[test]
fn records_and_links_that_were_planted_change_nothing_outside() -> Result<()> {
    let cluster = Cluster::builder().nodes(1).build()?;
    let node = cluster.node(1);
    let victim = Victim::beside(node)?;
    let before = victim.seen()?;
    let is_untouched = |what: &str| -> Result<()> {
        let after = victim.seen()?;
        let changed: Vec<_> = after.iter().filter(|(path, is)| before.get(*path) != Some(is)).collect();
        let gone: Vec<_> = before.keys().filter(|path| !after.contains_key(*path)).collect();
        ensure!(changed.is_empty() && gone.is_empty(), "{what}: changed {changed:?}, gone {gone:?}");
        Ok(())
    };
    let root = |verb: &str, what: &str| -> Result<(Option<i32>, String)> {
        let ended = run(&cluster, node, verb)?;
        is_untouched(&format!("{what}, {verb}: {ended:?}"))?;
        Ok(ended)
    };
    for (what, name, record) in cases(node, &victim) {
        for verb in VERBS {
            clear(node)?;
            plant(node, name, &record)?;
            let (code, said) = root(verb, what)?;
            let says_why = said.contains("nothing was done") && said.contains(name);
            ensure!(code == Some(5) && says_why, "{what}, {verb} ended with {code:?}: {said}");
        }
    }
    clear(node)?;
    plant(node, "roots.json", &vec![victim.0.clone()])?;
    let (code, said) = root("release", "roots")?;
    ensure!(code == Some(5) && said.contains("roots.json"), "{code:?}: {said}");

    // An operator may make a database a link, so only the permissions of the server's user keep it harmless. (That user may
    // change his own files.)
    if User::for_servers()?.switch {
        let way = node.datadir().join("way");
        symlink(&victim.0, &way)?;
        for (table, phase) in [("t.ibd", Phase::Aside), ("new.ibd", Phase::Placing)] {
            let path = way.join(table);
            let retired = vec![Retired { path: path.clone(), to: None, class: Class::Table }];
            let staged = node.datadir().join(".rejoin/stage/1-x");
            let placed = vec![Placed { staged, target: path, class: Class::Table }];
            clear(node)?;
            plant(node, "install.json", &InstallPlan { retired, placed, ..plan(node, phase) })?;
            let (code, said) = root("finish", "a database that is a link")?;
            ensure!(code == Some(5) && said.contains("Permission denied"), "{code:?}: {said}");
        }
        fs::remove_file(way)?;
    }

    // Names under which something could be written.
    clear(node)?;
    plant(node, "install.json", &plan(node, Phase::Aside))?;
    for name in ["install.json.tmp", "installed.json.tmp"] {
        symlink(victim.at("through-a-link"), node.datadir().join("#sql-rejoin").join(name))?;
    }
    User::for_servers()?.own(&node.datadir())?;
    let (code, said) = root("finish", "a link")?;
    ensure!(code == Some(0) && said.contains("finished: install of planted:1"), "{code:?}: {said}");
    nothing_is_anybody_elses(&node.datadir())?;

    let lock = node.datadir().join("rejoin-lock");
    fs::remove_file(&lock)?;
    symlink(victim.at("locked"), &lock)?;
    for verb in VERBS {
        let (code, said) = root(verb, "the lock")?;
        ensure!(code == Some(5) && said.contains("rejoin-lock"), "{verb} ended with {code:?}: {said}");
    }
    Ok(())
}

/// Nothing has to be given to the owner afterwards.
fn nothing_is_anybody_elses(datadir: &Path) -> Result<()> {
    let uid = datadir.metadata()?.uid();
    let mut todo = vec![datadir.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path)?;
        ensure!(meta.uid() == uid, "{} is of user {}", path.display(), meta.uid());
        if meta.is_dir() {
            todo.extend(fs::read_dir(&path)?.flatten().map(|entry| entry.path()));
        }
    }
    Ok(())
}

/// Whichever comes first does all of it, the other one finds it done.
#[test]
fn two_that_finish_at_once() -> Result<()> {
    const TABLES: usize = 3000;
    let cluster = Cluster::builder().nodes(1).build()?;
    let node = cluster.node(1);
    let names = |n: usize| {
        let staged = node.datadir().join(format!(".rejoin/stage/{n}-x"));
        Placed { staged, target: node.datadir().join(format!("db/t{n}.ibd")), class: Class::Table }
    };
    let placed: Vec<Placed> = (0..TABLES).map(names).collect();
    let record = InstallPlan {
        placed: placed.clone(),
        directories: vec![node.datadir().join("db")],
        ..plan(node, Phase::Placing)
    };
    plant(node, "install.json", &record)?;
    for new in &placed {
        fs::write(&new.staged, new.target.display().to_string())?;
    }
    User::for_servers()?.own(&node.datadir())?;
    let begin = || command(&cluster, node, "finish").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let both = [begin()?, begin()?];
    let mut said = Vec::new();
    for child in both {
        let output = child.wait_with_output().context("rejoin finish")?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        ensure!(output.status.success(), "{}: {text}", output.status);
        said.push(text.trim().to_owned());
    }
    said.sort();
    let nothing = format!("nothing to finish in {}", node.datadir().display());
    assert_eq!(said, ["finished: install of planted:1", &nothing]);
    for Placed { target, .. } in placed {
        assert_eq!(fs::read_to_string(&target)?, target.display().to_string());
    }
    nothing_is_anybody_elses(&node.datadir())
}
