//! `rejoin verify`: whether two datadirs are the same.
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use formats::wsrep::invocation::SstArgs;
use transfer::advisor::verify::{Different, Report, Side, verify};
use transfer::datadir::layout::Layout;
use transfer::human::size;
use transfer::server::options::ServerOptions;

use super::answer::say;

/// Which two datadirs.
#[derive(clap::Args)]
pub struct Options {
    /// Data directory without a running server
    #[arg(long, value_name = "DIR")]
    datadir: PathBuf,
    /// The other data directory, or the socket of the server that runs on it
    #[arg(long, value_name = "DIR|SOCKET")]
    with: PathBuf,
    /// Option file of the first, if it sets other directories
    #[arg(long, value_name = "FILE")]
    defaults_file: Option<PathBuf>,
    /// Option file of the other
    #[arg(long, value_name = "FILE")]
    with_defaults_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print nothing; only the exit code tells the result
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
}

/// Exit code for corrupt pages.
const CORRUPT: u8 = 4;

/// Compares. The exit code is 0 for the same, 1 for different, 4 for corrupt pages.
pub fn run(options: &Options) -> Result<ExitCode> {
    let first = side(&options.datadir, options.defaults_file.as_deref())?;
    let is_socket = std::fs::metadata(&options.with).is_ok_and(|meta| meta.file_type().is_socket());
    let second = match is_socket {
        true => Side::of_server(&options.with)?,
        false => side(&options.with, options.with_defaults_file.as_deref())?,
    };
    let report = verify(&first, &second)?;
    if options.json {
        say(&serde_json::to_string_pretty(&report)?);
    } else if !options.quiet {
        lines(&report).iter().for_each(|line| say(line));
    }
    Ok(ExitCode::from(match (report.corrupt_pages, report.is_same()) {
        (0, true) => 0,
        (0, false) => 1,
        _ => CORRUPT,
    }))
}

fn side(datadir: &Path, defaults_file: Option<&Path>) -> Result<Side> {
    let mut words =
        vec!["--datadir".to_owned(), std::path::absolute(datadir)?.to_string_lossy().into_owned()];
    if let Some(file) = defaults_file {
        words.extend(["--defaults-file".to_owned(), file.to_string_lossy().into_owned()]);
    }
    let args = SstArgs::parse(&words);
    let options = ServerOptions::load(&args)?;
    Ok(Side { layout: Layout::resolve(&args, &options)?, options })
}

fn lines(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    if report.running {
        lines.push(
            "note       a server runs on the second datadir: changes in its memory were not compared"
                .to_owned(),
        );
    }
    lines.extend(report.unseen.iter().map(|what| format!("note       {what}")));
    let only =
        |what: &str, files: &[String]| files.iter().map(|f| format!("{what:<10} {f}")).collect::<Vec<_>>();
    lines.extend(only("only-first", &report.only_first));
    lines.extend(only("only-other", &report.only_second));
    lines.extend(report.different.iter().map(different));
    lines.extend(report.corrupt.iter().map(|text| format!("corrupt    {text}")));
    let named = report.corrupt.len() as u64;
    if report.corrupt_pages > named {
        lines.push(format!("corrupt    and {} more", report.corrupt_pages - named));
    }
    let verdict = match (report.corrupt_pages, report.is_same()) {
        (0, true) if report.running => "same on disk".to_owned(),
        (0, true) => "same".to_owned(),
        (0, false) if report.state_in_redo => {
            "not known to be the same: some changes are in a redo log only".to_owned()
        }
        (0, false) => "different".to_owned(),
        (pages, _) => format!("corrupt: {pages} pages"),
    };
    lines.push(format!("{verdict}; {} files on both, {}", report.files, size(report.bytes)));
    lines
}

fn different(different: &Different) -> String {
    let Different { file, own_life, sizes, pages, headers_only, first } = different;
    let what = if *own_life { "own-life" } else { "different" };
    let mut told = vec![format!("{pages} pages or parts of files")];
    if *headers_only > 0 {
        told.push(format!("{headers_only} of them in checksum and LSN only"));
    }
    if sizes.0 != sizes.1 {
        told.push(format!("lengths {} and {} bytes", sizes.0, sizes.1));
    }
    if !first.is_empty() {
        let first: Vec<String> = first.iter().take(5).map(u64::to_string).collect();
        told.push(format!("first: {}", first.join(" ")));
    }
    format!("{what:<10} {file}: {}", told.join(", "))
}
