//! `rejoin check`: problems that the next transfer of this node would have.
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use transfer::advisor::check::collect::collect;
use transfer::advisor::check::{Finding, Level, judge};

use super::answer::say;
use super::which::{Which, become_the_servers_user};

/// How long the write rate of a running server is measured.
const SAMPLE: Duration = Duration::from_secs(1);

/// Which server, and the form of the output.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    node: Which,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print only notes, warnings and errors
    #[arg(long, short)]
    quiet: bool,
}

/// Runs the checks. The exit code is 0 if nothing is wrong (there may be notes), 1 for warnings, 2 for
/// errors.
pub fn run(options: &Options) -> Result<ExitCode> {
    let wanted = options.node.wanted()?;
    become_the_servers_user(&wanted)?;
    let findings = judge(&collect(&wanted, SAMPLE)?);
    let worst = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
    if options.json {
        say(&format!("{:#}", json!({"worst": worst, "findings": findings})));
    } else {
        let shown = findings.iter().filter(|finding| !options.quiet || finding.level > Level::Ok);
        shown.for_each(|finding| say(&line(finding)));
    }
    Ok(ExitCode::from(match worst {
        Level::Ok | Level::Note => 0,
        Level::Warning => 1,
        Level::Error => 2,
    }))
}

fn line(finding: &Finding) -> String {
    let Finding { level, subject, text, fix } = finding;
    let fix = fix.as_ref().map_or(String::new(), |fix| format!(" (hint: {fix})"));
    format!("{:<8} {subject:<10} {text}{fix}", level.name())
}
