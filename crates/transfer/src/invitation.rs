//! The joiner's `ready` text: how the donor finds the joiner, and what proves that the text reached it through the group.
//!
//! `rejoin:SECRET.PIN@HOST:PORT/rejoin/1` where the server keeps the part before `@` out of the process list
//! (MariaDB, MySQL-wsrep); `HOST:PORT/rejoin/1/SECRET/PIN` for Percona XtraDB Cluster, which allows no `@`.
use anyhow::{Context, Result};
use formats::wsrep::address::{ListenAddress, ReadyText};
use formats::wsrep::credentials::Account;
use formats::wsrep::invocation::SstArgs;

use crate::failure::{Failure, Kind};
use crate::job::Job;
use crate::peer::{Dialer, Invitation};

/// Marks the text as ours, in the place where the shell methods have their module name.
const MODULE: &str = "rejoin";
/// Version of this text's layout.
const LAYOUT: &str = "1";

/// A joiner, as its text describes it.
pub struct Invited {
    /// Host to dial, without brackets.
    pub host: String,
    /// Port to dial.
    pub port: u16,
    /// Secret and pin.
    pub invitation: Invitation,
}

impl Invited {
    /// A dialer for this joiner.
    pub fn dialer(self, job: &Job) -> Result<Dialer> {
        Dialer::new(&self.host, self.port, self.invitation, job.terms(), &job.cancel)
    }
}

/// The text a joiner prints after `ready`.
pub fn write(args: &SstArgs, address: &ListenAddress, port: u16, invitation: &Invitation) -> Result<String> {
    let (user, password) = invitation.to_auth();
    let mut text = ReadyText {
        auth: None,
        host: address.host.clone(),
        port,
        module: MODULE.to_owned(),
        fields: vec![LAYOUT.to_owned()],
    };
    if allows_auth(args) {
        text.auth = Some((user, password));
    } else {
        text.fields.extend(password.split('.').map(str::to_owned));
    }
    text.to_text().context("the address to announce cannot be used")
}

/// Reads the text as the donor's server passes it: the AUTH part apart from the rest.
pub fn read(args: &SstArgs, remote: Option<&Account>) -> Result<Invited> {
    let address = args.address.as_deref().unwrap_or("");
    let text = ReadyText::parse(address).with_context(|| format!("the server gave --address {address:?}"))?;
    if text.module != MODULE {
        let what = format!("the joiner at {address} did not ask for a transfer by rejoin");
        return Err(Failure::new(Kind::Refused, what).hint("run the same rejoin on all nodes").into());
    }
    let invitation = match (remote, text.fields.as_slice()) {
        (Some(account), _) => Invitation::parse(&account.user, account.password.reveal())?,
        (None, [_, secret, pin, ..]) => Invitation::parse("rejoin", &format!("{secret}.{pin}"))?,
        (None, _) => {
            return Err(Failure::new(Kind::Configuration, "the joiner's request carries no secret").into());
        }
    };
    Ok(Invited { host: text.host, port: text.port, invitation })
}

/// Percona XtraDB Cluster's server passes `--basedir` and refuses an `@` in the text.
fn allows_auth(args: &SstArgs) -> bool {
    !args.unknown.iter().any(|word| word == "--basedir" || word.starts_with("--basedir="))
}
