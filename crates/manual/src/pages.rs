//! The manual pages: one for the program, one for each verb, one for the name under which the server runs it, and one for
//! the options of the option files.
use anyhow::Result;
use clap::Command;
use clap_mangen::Man;

use crate::markdown;

const OPTIONS: &str = include_str!("../../../docs/options.md");
const SERVER_MODE: &str = include_str!("../../../packaging/wsrep_sst_rejoin.md");

/// File name and text of each.
pub fn all() -> Result<Vec<(String, String)>> {
    let mut command = visible();
    command.build();
    let mut pages = vec![("rejoin.1".to_owned(), page(command.clone(), &see_also(&command))?)];
    verbs(&command, &mut pages)?;
    pages.push((
        "wsrep_sst_rejoin.1".to_owned(),
        written(
            1,
            "wsrep_sst_rejoin",
            "state snapshot transfer for MariaDB Galera Cluster, run by the server",
            SERVER_MODE,
            "rejoin(1), rejoin(5)",
        ),
    ));
    pages.push((
        "rejoin.5".to_owned(),
        written(5, "rejoin", "options under [sst] for state snapshot transfers", OPTIONS, "rejoin(1)"),
    ));
    Ok(pages)
}

/// The command line without what is not meant for operators. The long version names a commit: a page must not change with it.
pub fn visible() -> Command {
    let whole = rejoin_cli::operator::command();
    let verbs: Vec<Command> = whole.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned().collect();
    let mut command = Command::new("rejoin")
        .version(env!("CARGO_PKG_VERSION"))
        .about(whole.get_about().cloned().unwrap_or_default())
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .subcommands(verbs);
    if let Some(long) = whole.get_long_about() {
        command = command.long_about(long.clone());
    }
    command.args(whole.get_arguments().filter(|arg| !arg.is_hide_set()).cloned())
}

fn verbs(of: &Command, pages: &mut Vec<(String, String)>) -> Result<()> {
    for verb in of.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let name = verb.get_display_name().unwrap_or(verb.get_name()).to_owned();
        pages.push((format!("{name}.1"), page(verb.clone(), "rejoin(1), rejoin(5)")?));
        verbs(verb, pages)?;
    }
    Ok(())
}

fn page(command: Command, see_also: &str) -> Result<String> {
    let mut text = Vec::new();
    Man::new(command).source(source()).manual(MANUAL).render(&mut text)?;
    Ok(format!("{}{}", String::from_utf8(text)?, section("SEE ALSO", see_also)))
}

fn see_also(command: &Command) -> String {
    let verbs = command.get_subcommands().map(|verb| format!("rejoin-{}(1)", verb.get_name()));
    let others = ["rejoin(5)", "wsrep_sst_rejoin(1)", "mariadbd(8)"].map(str::to_owned);
    verbs.chain(others).collect::<Vec<_>>().join(", ")
}

const MANUAL: &str = "rejoin";

fn source() -> String {
    format!("rejoin {}", env!("CARGO_PKG_VERSION"))
}

fn written(number: u8, name: &str, about: &str, body: &str, see_also: &str) -> String {
    format!(
        ".TH \"{name}\" \"{number}\" \"\" \"{}\" \"{MANUAL}\"\n.SH NAME\n{name} \\- {}\n.SH DESCRIPTION\n{}{}",
        source(),
        markdown::line(about),
        markdown::to_roff(body),
        section("SEE ALSO", see_also)
    )
}

fn section(heading: &str, text: &str) -> String {
    format!(".SH \"{heading}\"\n{}\n", markdown::line(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> String {
        all().unwrap().into_iter().find(|(file, _)| file == name).expect(name).1
    }

    #[test]
    fn every_verb_has_a_page_and_nothing_else_has() {
        let names: Vec<String> = all().unwrap().into_iter().map(|(name, _)| name).collect();
        for verb in visible().get_subcommands() {
            assert!(names.contains(&format!("rejoin-{}.1", verb.get_name())), "{names:?}");
        }
        assert!(names.contains(&"rejoin-gcache-size.1".to_owned()));
        assert!(!names.iter().any(|name| name.contains("keep-until") || name.contains("help")), "{names:?}");
    }

    #[test]
    fn the_page_of_the_options_has_every_row_of_the_table() {
        let page = named("rejoin.5");
        let rows: Vec<&str> = OPTIONS.lines().filter(|line| line.starts_with("| `")).collect();
        assert!(rows.len() > 20);
        for row in rows {
            let option = row.trim_start_matches("| `").split('`').next().unwrap();
            let tag = format!("\\fB{}\\fR", markdown::escaped(option));
            assert!(page.lines().any(|line| line.starts_with(&tag)), "{option}");
        }
        assert!(!page.contains('`') && !page.contains("]("), "markdown is left in the page");
    }

    #[test]
    fn a_page_says_nothing_that_changes_with_the_commit() {
        assert!(!named("rejoin.1").contains("commit"));
    }
}
