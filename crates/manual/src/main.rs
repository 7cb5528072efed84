//! Writes the manual pages and the shell completions of rejoin into a directory: `rejoin-manual DIR`.
//!
//! The pages of section 1 come from the definition of the command line, `rejoin.5` from `docs/options.md`: nothing is
//! written twice. `THIRD-PARTY-LICENCES` is what the linked packages ask for. A program of its own, so that the shipped one does not carry what makes them.
mod licences;
mod markdown;
mod pages;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap_complete::{Shell, generate_to};

fn main() -> Result<()> {
    let dir = std::env::args_os().nth(1).map(PathBuf::from).context("which directory? rejoin-manual DIR")?;
    write(&dir)
}

fn write(dir: &Path) -> Result<()> {
    let (man, completions) = (dir.join("man"), dir.join("completions"));
    for dir in [&man, &completions] {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    for (name, page) in pages::all()? {
        let path = man.join(name);
        std::fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let path = dir.join("THIRD-PARTY-LICENCES");
    std::fs::write(&path, licences::all()?).with_context(|| format!("cannot write {}", path.display()))?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut pages::visible(), "rejoin", &completions)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_offer_what_an_operator_may_type() {
        let dir = std::env::temp_dir().join(format!("rejoin-manual-{}", std::process::id()));
        write(&dir).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.join("completions").join(name)).unwrap();
        for shell in ["rejoin.bash", "_rejoin", "rejoin.fish"] {
            let text = read(shell);
            assert!(text.contains("rollback") && text.contains("datadir"), "{shell}");
            assert!(!text.contains("keep-until-synced"), "{shell}");
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
