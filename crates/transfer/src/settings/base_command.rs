//! `base-command`: a program of the operator's.
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::failure::{Failure, Kind};
use crate::server::options::ServerOptions;

/// How long the operator's program may take to fill a base: a night's backup of some terabytes.
const BASE_COMMAND_TIMEOUT_S: u64 = 4 * 3600;

/// The operator's program that fills a directory with a base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseCommand {
    program: PathBuf,
    arguments: Vec<String>,
    /// How long it may take; `None` = without limit.
    pub limit: Option<Duration>,
}

impl BaseCommand {
    /// `base-command` with `base-command-timeout`, if it is set.
    pub(super) fn read(options: &ServerOptions) -> Result<Option<BaseCommand>> {
        let Some(text) = options.sst("base-command").filter(|text| !text.trim().is_empty()) else {
            return Ok(None);
        };
        let limit = options.sst_duration_s("base-command-timeout")?.unwrap_or(BASE_COMMAND_TIMEOUT_S);
        let limit = (limit > 0).then(|| Duration::from_secs(limit));
        Ok(Some(BaseCommand::parse(text, limit)?))
    }

    /// Splits it into words at blanks, and nowhere else: no shell reads it.
    ///
    /// # Errors
    /// A configuration failure: the program has no absolute path.
    pub fn parse(text: &str, limit: Option<Duration>) -> Result<BaseCommand, Failure> {
        let mut words = text.split_whitespace().map(str::to_owned);
        match words.next() {
            Some(program) if program.starts_with('/') => {
                Ok(BaseCommand { program: program.into(), arguments: words.collect(), limit })
            }
            _ => {
                let text =
                    format!("[sst] base-command={text} does not begin with the absolute path of a program");
                let hint = "name the program and its arguments, separated by blanks; a script begins with its interpreter (#!/bin/sh)";
                Err(Failure::new(Kind::Configuration, text).hint(hint))
            }
        }
    }

    /// The program.
    pub fn program(&self) -> &std::path::Path {
        &self.program
    }

    /// The words after it. The directory to fill follows them.
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }
}
