//! The node that an operator's command is about: its option files, its datadir and its server's user.
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use formats::wsrep::credentials::Account;
use formats::wsrep::invocation::SstArgs;

use crate::datadir::layout::Layout;
use crate::datadir::server_on;
use crate::failure::{Failure, Kind};
use crate::server::command_line::arguments_of_server;
use crate::server::compiled_in;
use crate::server::ist_endpoints::IstEndpoints;
use crate::server::options::ServerOptions;
use crate::server::provider_options;
use crate::server::users::user_of_name;
use crate::writesets::ist::relay;

/// The node to check: the arguments that a server would pass to its program.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// `--datadir`.
    pub datadir: Option<PathBuf>,
    /// `--defaults-file`.
    pub defaults_file: Option<PathBuf>,
    /// `--defaults-extra-file`.
    pub defaults_extra_file: Option<PathBuf>,
    /// `--defaults-group-suffix`.
    pub defaults_group_suffix: Option<String>,
    /// The datadir is compiled into the server's program ([`Wanted::with_datadir`]).
    pub compiled_in: bool,
}

impl Wanted {
    /// Adds the server's compiled-in datadir if neither the command line nor an option file names one. Call
    /// it before root becomes the server's user, because the server's program then runs as nobody.
    ///
    /// # Errors
    /// A named option file cannot be read; or no datadir is named and no server program is installed.
    pub fn with_datadir(self) -> Result<Wanted> {
        Ok(self.with_options()?.0)
    }

    /// As [`Wanted::with_datadir`], with the options of its option files, which are read once.
    ///
    /// # Errors
    /// As [`Wanted::with_datadir`].
    pub fn with_options(self) -> Result<(Wanted, ServerOptions)> {
        let options = self.options()?;
        if self.datadir.is_some() || options.server("datadir").is_some_and(|dir| !dir.is_empty()) {
            return Ok((self, options));
        }
        let datadir = compiled_in_datadir(&options)?;
        Ok((Wanted { datadir: Some(datadir), compiled_in: true, ..self }, options))
    }

    /// Returns the datadir of this node and its layout.
    ///
    /// # Errors
    /// The options cannot be read, or are invalid.
    pub fn layout(&self) -> Result<Layout> {
        self.layout_by(&self.options()?)
    }

    /// As [`Wanted::layout`], by options that were read.
    ///
    /// # Errors
    /// The options are invalid.
    pub fn layout_by(&self, options: &ServerOptions) -> Result<Layout> {
        Layout::resolve(&self.args(&[]), options)
    }

    /// Returns the options of its option files.
    ///
    /// # Errors
    /// The options cannot be read.
    pub fn options(&self) -> Result<ServerOptions> {
        Ok(load(self, &[])?.1)
    }

    /// Returns the ring file of the provider's write-set cache, according to the option files.
    ///
    /// # Errors
    /// Like [`Wanted::layout`].
    pub fn cache_file(&self) -> Result<PathBuf> {
        self.cache_file_by(&self.options()?)
    }

    /// As [`Wanted::cache_file`], by options that were read.
    ///
    /// # Errors
    /// The options are invalid.
    pub fn cache_file_by(&self, options: &ServerOptions) -> Result<PathBuf> {
        let provider = provider_options::parse(options.server("wsrep-provider-options").unwrap_or_default());
        Ok(provider_options::cache_file(&provider, &self.layout_by(options)?.datadir))
    }

    /// Returns where IST comes in on this node, according to the arguments of the server that runs on `datadir`, if one is
    /// visible, and to the option files.
    ///
    /// # Errors
    /// In words, why it does not pass through us.
    pub fn ist_endpoints(&self, datadir: &Path) -> Result<IstEndpoints, String> {
        let server = server_on::process_in(datadir).and_then(|server| arguments_of_server(server.pid?));
        let (_, options) = load(self, &server.unwrap_or_default()).map_err(|error| format!("{error:#}"))?;
        relay::endpoints(&options, datadir)
    }

    /// The arguments of a program of that server; the command line of a running server comes last.
    pub(crate) fn args(&self, command_line: &[String]) -> SstArgs {
        let text = |path: &Option<PathBuf>| path.as_ref().map(|p| p.to_string_lossy().into_owned());
        SstArgs {
            datadir: text(&self.datadir),
            defaults_file: text(&self.defaults_file),
            defaults_extra_file: text(&self.defaults_extra_file),
            defaults_group_suffix: self.defaults_group_suffix.clone(),
            mysqld_args: command_line.to_vec(),
            ..SstArgs::default()
        }
    }
}

/// Returns the user that the server of this node runs as: that of the option `user`, otherwise the owner of
/// the datadir.
///
/// # Errors
/// The option files cannot be read, or no datadir is named.
pub fn server_user(wanted: &Wanted) -> Result<Option<(u32, u32)>> {
    let (args, options) = load(wanted, &[])?;
    Ok(user_of(&options, &datadir_of(&args, &options)?))
}

pub(super) fn user_of(options: &ServerOptions, datadir: &Path) -> Option<(u32, u32)> {
    let named = options.server("user").and_then(user_of_name);
    // A server refuses to run as root by default, so a datadir owned by root names no user.
    let owner = || fs::metadata(datadir).ok().map(|m| (m.uid(), m.gid())).filter(|(uid, _)| *uid != 0);
    named.or_else(owner).or_else(|| user_of_name("mysql"))
}

/// Returns the datadir, even if the rest of the layout cannot be determined.
pub(super) fn datadir_of(args: &SstArgs, options: &ServerOptions) -> Result<PathBuf> {
    match args.datadir.as_deref().or_else(|| options.server("datadir")) {
        Some(given) => Ok(std::path::absolute(given)?),
        None => Ok(compiled_in_datadir(options)?),
    }
}

/// The default of the server's program. It differs between distributions and releases, so it is asked for and never assumed.
fn compiled_in_datadir(options: &ServerOptions) -> Result<PathBuf, Failure> {
    compiled_in::datadir(options).ok_or_else(|| {
        let text = "datadir is not set, and no server program is installed that has a default";
        Failure::new(Kind::Configuration, text).hint("give --datadir, or the server's --defaults-file")
    })
}

pub(crate) fn load(wanted: &Wanted, command_line: &[String]) -> Result<(SstArgs, ServerOptions)> {
    let args = wanted.args(command_line);
    let options = ServerOptions::load(&args)?;
    Ok((args, options))
}

/// The account that a donor's program gets: the server's setting, otherwise that of `[sst]`.
pub(crate) fn account(options: &ServerOptions) -> Option<Account> {
    let given = options.server("wsrep-sst-auth").filter(|text| !text.is_empty());
    given.or_else(|| options.sst("wsrep-sst-auth")).and_then(Account::from_pair)
}
