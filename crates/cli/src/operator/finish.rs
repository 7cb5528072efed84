//! `rejoin finish`: completes an interrupted install now instead of at the next start.
use anyhow::Result;
use serde_json::json;
use transfer::install::files::Disk;
use transfer::install::in_place;
use transfer::install::run;
use transfer::server::options::ServerOptions;

use super::alone::{Alone, Common};

/// Which node, and whether an incomplete datadir may start.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Let the server start on a datadir that a transfer in place left incomplete
    ///
    /// The server then receives its data from the cluster. For systemd, whose recovery step would fail on the
    /// incomplete datadir. Use it only for a node that joins: a server that starts without a cluster would
    /// come up without data. The option has no effect when systemd is about to start a new cluster with this
    /// node.
    #[arg(long)]
    let_join: bool,
}

/// Finishes an interrupted install or rollback, and reports if there is none.
pub fn run(options: &Options) -> Result<()> {
    let alone = Alone::on(&options.common.node, "finish")?;
    let (found, text) = if let Some(finished) = run::finish_interrupted(&Disk, &alone.datadir)? {
        ("finished", format!("finished: {} of {}", finished.purpose, finished.position))
    } else if in_place::was_begun(&Disk, &alone.datadir)? {
        ("in-place-unfinished", in_place_did_not_finish(&alone, options.let_join)?)
    } else {
        ("nothing", format!("nothing to finish in {}", alone.datadir.display()))
    };
    options.common.answer.say(&text, &json!({"found": found, "text": text}));
    Ok(())
}

fn in_place_did_not_finish(alone: &Alone, let_join: bool) -> Result<String> {
    let datadir = &alone.datadir;
    // galera_new_cluster sets this for the unit.
    let new_cluster = std::env::var("_WSREP_NEW_CLUSTER").is_ok_and(|value| !value.is_empty());
    let what = "a transfer in place did not finish: only a state transfer can complete the datadir";
    let alone = starts_alone(&alone.options)?;
    Ok(if let Some(option) = alone.filter(|_| let_join) {
        format!(
            "{what}; with {option} this node would start without its cluster, so no server may start on it. Correct the option \
             (--defaults-file names another option file)"
        )
    } else if let_join && !new_cluster && in_place::let_join(&Disk, datadir)? {
        format!("{what}; the server may start now, but only as a member of its cluster, never alone")
    } else if let_join {
        format!("{what}; a new cluster must not be bootstrapped from this node, so no server may start on it")
    } else {
        format!(
            "{what}; no server may start alone on it: start this node as a member of its cluster (under systemd after \
             rejoin finish --let-join --datadir {})",
            datadir.display()
        )
    })
}

/// Returns the option that makes a server start without its cluster, whatever else its command line says.
fn starts_alone(options: &ServerOptions) -> Result<Option<&'static str>> {
    let address = options.server("wsrep-cluster-address").map(str::trim);
    let provider = options.server("wsrep-provider").map(str::trim);
    Ok(if options.server_bool("wsrep-on")? == Some(false) {
        Some("wsrep_on=OFF")
    } else if address.is_some_and(|address| ["", "gcomm://"].contains(&address)) {
        Some("a wsrep_cluster_address without members")
    } else if provider.is_some_and(|provider| provider.is_empty() || provider.eq_ignore_ascii_case("none")) {
        Some("wsrep_provider=none")
    } else {
        None
    })
}
