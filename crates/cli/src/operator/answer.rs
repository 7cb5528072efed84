//! The output of a verb on stdout: text, JSON or nothing.
use std::io::Write as _;

use serde_json::Value;

/// The form of the output.
#[derive(clap::Args)]
pub struct Answer {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print nothing; only the exit code tells the result
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
}

impl Answer {
    /// Whether JSON is wanted.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints the result in the form that was asked for.
    pub fn say(&self, text: &str, json: &Value) {
        match (self.json, self.quiet) {
            (true, _) => say(&format!("{json:#}")),
            (false, true) => {}
            (false, false) => say(text),
        }
    }
}

/// Prints a line for the operator. A reader may close its end early (`| head`).
pub fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
