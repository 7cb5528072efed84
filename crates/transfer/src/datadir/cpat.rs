//! `[sst] cpat`: the regular expression of files that a joiner keeps, in the syntax of `find -regex`.
//!
//! The shell methods run `find DATADIR -mindepth 1 -prune -regex CPAT -o -exec rm -rf`: the expression must
//! match the whole path of a name directly in the datadir, and a matching directory is kept with its content.
//! In practice operators write `.*/name`; a path that begins with `./` is tried as well, for those who tested
//! their expression with `find . -regex`.
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use regex_lite::Regex;

use crate::failure::{Failure, Kind};

/// A compiled `cpat`.
#[derive(Clone, Debug)]
pub struct KeepPattern {
    regex: Regex,
    datadir: PathBuf,
}

impl KeepPattern {
    /// Compiles the expression for files under `datadir`.
    ///
    /// # Errors
    /// A configuration failure naming the expression if it is not supported.
    pub fn new(expression: &str, datadir: &Path) -> Result<KeepPattern> {
        let bad = |why: String| {
            Failure::new(Kind::Configuration, format!("[sst] cpat={expression:?} cannot be used: {why}")).hint(
                "cpat takes the syntax of find -regex (emacs): \\| for alternatives, \\( \\) for groups, . * + ? [ ]",
            )
        };
        let translated = translate(expression).map_err(|why| anyhow!(bad(why)))?;
        let regex = Regex::new(&format!("^(?s:{translated})$")).map_err(|e| anyhow!(bad(e.to_string())))?;
        Ok(KeepPattern { regex, datadir: datadir.to_path_buf() })
    }

    /// Whether the pattern keeps this file: it matches the file, or a directory between the datadir and the
    /// file. Files outside the datadir are matched by their own path alone.
    pub fn keeps(&self, path: &Path) -> bool {
        let Ok(inner) = path.strip_prefix(&self.datadir) else { return self.matches(path) };
        let mut absolute = self.datadir.clone();
        let mut relative = PathBuf::from(".");
        inner.components().any(|part| {
            absolute.push(part);
            relative.push(part);
            self.matches(&absolute) || self.matches(&relative)
        })
    }

    fn matches(&self, path: &Path) -> bool {
        path.to_str().is_some_and(|text| self.regex.is_match(text))
    }
}

/// Translates Emacs syntax (GNU `RE_SYNTAX_EMACS`) to that of the `regex` family.
fn translate(expression: &str) -> Result<String, String> {
    let mut out = String::with_capacity(expression.len() + 8);
    let mut chars = expression.chars().peekable();
    // At the start of a branch `*`, `+` and `?` are ordinary characters.
    let mut at_start = true;
    while let Some(c) = chars.next() {
        let started = std::mem::replace(&mut at_start, false);
        match c {
            '\\' => match chars.next() {
                None => return Err("it ends in a backslash".to_owned()),
                Some(opener @ ('|' | '(')) => {
                    out.push_str(if opener == '|' { "|" } else { "(?:" });
                    at_start = true;
                }
                Some(')') => out.push(')'),
                Some('`') => out.push('^'),
                Some('\'') => out.push('$'),
                Some(class @ ('w' | 'W' | 'b' | 'B')) => out.extend(['\\', class]),
                Some(back @ '1'..='9') => return Err(format!("back-reference \\{back} is not supported")),
                Some(other) => push_literal(&mut out, other),
            },
            '*' | '+' | '?' if started => push_literal(&mut out, c),
            '.' | '*' | '+' | '?' => out.push(c),
            // An anchor counts only at the ends of a branch; elsewhere it is an ordinary character. The whole
            // path must match anyway.
            '^' if started => at_start = true,
            '$' if ends_branch(chars.clone()) => {}
            '[' => push_bracket(&mut out, &mut chars)?,
            other => push_literal(&mut out, other),
        }
    }
    Ok(out)
}

fn ends_branch(mut rest: impl Iterator<Item = char>) -> bool {
    match rest.next() {
        None => true,
        Some('\\') => matches!(rest.next(), Some('|' | ')')),
        Some(_) => false,
    }
}

fn push_literal(out: &mut String, c: char) {
    if c.is_ascii_punctuation() {
        out.push('\\');
    }
    out.push(c);
}

/// Translates a bracket expression: a `]` right after the opening is an ordinary character, and so is a
/// backslash.
fn push_bracket(
    out: &mut String,
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
) -> Result<(), String> {
    out.push('[');
    if chars.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    if chars.next_if_eq(&']').is_some() {
        out.push_str("\\]");
    }
    for c in chars.by_ref() {
        match c {
            ']' => {
                out.push(']');
                return Ok(());
            }
            '\\' | '[' | '&' | '~' | '^' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    Err("a [ without its ]".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// The default of the shell methods (wsrep_sst_mariabackup of 10.11).
    const DEFAULT: &str = r".*\.pem$\|.*galera\.cache$\|.*sst_in_progress$\|.*\.sst$\|.*gvwstate\.dat$\|.*grastate\.dat$\|.*\.err$\|.*\.log$\|.*RPM_UPGRADE_MARKER$\|.*RPM_UPGRADE_HISTORY$";

    fn keeps(cpat: &str, path: &str) -> bool {
        KeepPattern::new(cpat, Path::new("/d")).unwrap().keeps(Path::new(path))
    }

    #[test]
    fn the_default_of_the_shell_methods() {
        for name in ["ca.pem", "galera.cache", "grastate.dat", "n1.err", "slow.log", ".sst", ".sst/ibdata1"] {
            assert!(keeps(DEFAULT, &format!("/d/{name}")), "{name}");
        }
        for name in ["ibdata1", "grastateXdat", "ca.pem.old", "db/t.ibd"] {
            assert!(!keeps(DEFAULT, &format!("/d/{name}")), "{name}");
        }
    }

    #[test]
    fn both_forms_of_path_and_whole_directories() {
        assert!(keeps("./own/.*", "/d/own/x"));
        assert!(keeps("/d/own", "/d/own/x/y.ibd"));
        assert!(!keeps("own", "/d/own"), "the whole path must match");
        assert!(keeps("/elsewhere/k.*", "/elsewhere/keep"));
    }

    #[test]
    fn what_cannot_be_followed_is_named() {
        for bad in [r"a\(b", r"\(a\)\1", "[ab", "a\\"] {
            let error = KeepPattern::new(bad, Path::new("/d")).unwrap_err();
            assert!(error.to_string().contains("[sst] cpat"), "{error}");
        }
    }

    #[test]
    fn agrees_with_find() {
        let dir = tempfile::tempdir().unwrap();
        let names = [
            "a.pem", "axpem", "b+c", "bbc", "x(y)", "xy", "a|b", "k{2}", "kk", "]", "w^", "w$", "*s",
            "n1.err", "a-b",
        ];
        for name in names {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let patterns = [
            r".*\.pem",
            r".*/b+c",
            r".*/b\+c",
            r".*/x(y)",
            r".*/\(xy\|kk\)",
            r".*/a|b",
            r".*/k{2}",
            r".*/[]]",
            r".*/w[$^]",
            r".*/[^a-m]*",
            r".*/.*\$",
            r".*/.*$",
            r".*/.?b+c?",
            r"^.*/kk$",
            r".*/a[-x].*",
            r".*/\*s",
            r".*/[a-z0-9]+\.err\|.*/]",
            r".*/\w+",
            r"\`.*/kk\'",
        ];
        for pattern in patterns {
            let out = Command::new("find")
                .args([dir.path().to_str().unwrap(), "-mindepth", "1", "-regex", pattern, "-printf", "%f\n"])
                .output()
                .unwrap();
            let mut theirs: Vec<_> =
                String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect();
            theirs.sort();
            let keep = KeepPattern::new(pattern, dir.path()).unwrap();
            let mut ours: Vec<_> =
                names.iter().filter(|n| keep.keeps(&dir.path().join(n))).map(|n| (*n).to_owned()).collect();
            ours.sort();
            assert_eq!(ours, theirs, "{pattern}");
        }
    }
}
