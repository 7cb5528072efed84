//! The licences of everything that is linked into the shipped program. They ask for their texts to come with it.
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// What is shipped.
const SHIPPED: &str = "rejoin-cli";
/// Names of files with licences and notices begin with these.
const FILES: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

/// A list of the packages, and each text once, with the packages it came with.
pub fn all() -> Result<String> {
    let metadata = metadata()?;
    let packages = array(&metadata["packages"])?;
    let linked = linked(&metadata)?;
    let mut out =
        "rejoin is linked with these packages. Their licences follow, each text once.\n\n".to_owned();
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages.iter().filter(|package| linked.contains(text(&package["id"]))) {
        if package["source"].is_null() {
            continue;
        }
        let name = format!("{} {}", text(&package["name"]), text(&package["version"]));
        out.push_str(&format!("{name}: {}\n", package["license"].as_str().unwrap_or("see its text")));
        let manifest = Path::new(text(&package["manifest_path"]));
        for found in texts_beside(manifest.parent().context("a manifest lies in a directory")?)? {
            texts.entry(found).or_default().push(name.clone());
        }
    }
    for (licence, names) in texts {
        out.push_str(&format!("\n{}\n{}\n\n{}\n", "=".repeat(80), names.join(", "), licence.trim_end()));
    }
    Ok(out)
}

fn metadata() -> Result<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let words = ["metadata", "--format-version=1", "--filter-platform=x86_64-unknown-linux-gnu", "--locked"];
    let output = Command::new(cargo).args(words).output().context("cannot run cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Packages that end up in the program: not what only builds or tests it.
fn linked(metadata: &Value) -> Result<BTreeSet<String>> {
    let nodes = array(&metadata["resolve"]["nodes"])?;
    let nodes: BTreeMap<&str, &Value> = nodes.iter().map(|node| (text(&node["id"]), node)).collect();
    let root = array(&metadata["packages"])?.iter().find(|package| package["name"] == SHIPPED);
    let mut todo = vec![text(&root.context("no package rejoin-cli")?["id"])];
    let mut linked = BTreeSet::new();
    while let Some(id) = todo.pop() {
        if !linked.insert(id.to_owned()) {
            continue;
        }
        for dependency in array(&nodes.get(id).context("a package outside the graph")?["deps"])? {
            if array(&dependency["dep_kinds"])?.iter().any(|kind| kind["kind"].is_null()) {
                todo.push(text(&dependency["pkg"]));
            }
        }
    }
    Ok(linked)
}

fn texts_beside(dir: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    let named = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        path.is_file() && FILES.iter().any(|prefix| name.starts_with(prefix))
    };
    paths.retain(|path| named(path));
    Ok(paths.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect())
}

fn array(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().context("cargo metadata has another form than expected")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_is_named_with_its_text_and_what_only_builds_is_not() {
        let all = all().unwrap();
        assert!(
            all.contains("\nrustls 0.23.") && all.contains("\nzstd-sys "),
            "dependencies of dependencies"
        );
        assert!(all.contains("Permission is hereby granted"));
        assert!(
            !all.contains("\nclap_mangen ") && !all.contains("\nproptest ") && !all.contains("\nrejoin-")
        );
    }
}
