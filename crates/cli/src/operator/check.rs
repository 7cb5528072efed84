//! `rejoin check`: what would go wrong in the next transfer of this node.
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use node::check::collect::collect;
use node::check::{Finding, Level, judge};
use serde_json::json;

use super::say;
use super::which::{Which, as_the_servers_user};

/// How long a running server's writing is measured.
const SAMPLE: Duration = Duration::from_secs(1);

/// Which server, and what is printed.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    node: Which,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print only what is not ok
    #[arg(long)]
    quiet: bool,
}

/// Checks and answers with the exit code: 0 nothing wrong (notes may be there), 1 warnings, 2 errors.
pub fn run(options: &Options) -> Result<ExitCode> {
    let wanted = options.node.wanted();
    if let Some(code) = as_the_servers_user(&wanted)? {
        return Ok(code);
    }
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
