//! Records the commit that the program is built from: `REJOIN_COMMIT` if it is set, otherwise what git
//! reports for this working tree. A tarball has neither and builds without a commit.
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=REJOIN_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    let given = std::env::var("REJOIN_COMMIT").ok().filter(|commit| !commit.is_empty());
    if let Some(commit) = given.or_else(commit_of_the_working_tree) {
        println!("cargo::rustc-env=REJOIN_BUILT_FROM={commit}");
    }
}

fn commit_of_the_working_tree() -> Option<String> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?.parent()?.canonicalize().ok()?;
    // A tarball may have been unpacked inside an unrelated repository, whose commit means nothing here.
    let top = PathBuf::from(git(&workspace, &["rev-parse", "--show-toplevel"])?);
    if top.canonicalize().ok()? != workspace {
        return None;
    }
    // Every commit and checkout appends a line to this file.
    let log = workspace.join(git(&workspace, &["rev-parse", "--git-path", "logs/HEAD"])?);
    if log.exists() {
        println!("cargo::rerun-if-changed={}", log.display());
    }
    git(&workspace, &["rev-parse", "--short=12", "HEAD"])
}

fn git(workspace: &Path, words: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(workspace).args(words).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
