//! Collects facts from files of this node and from members. Read-only.
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use formats::Uuid;

use super::archives::archives;
use super::ask::{Asking, number, of_view};
use super::costs::Base;
use super::facts::{Facts, Group, Known, Origin, Position};
use super::kind::Joiner;
use super::transfer::Here;
use crate::advisor::check::collect;
use crate::advisor::check::program::gets_rows;
use crate::advisor::check::wanted::{Wanted, account, load};
use crate::datadir::layout::Layout;
use crate::datadir::lineage::Lineage;
use crate::datadir::managed;
use crate::datadir::recognise::require_datadir;
use crate::datadir::recovered_position::{InnodbFiles, Recovered, recovered_position};
use crate::datadir::server_on::server_on;
use crate::disk::filesystem::bytes_available;
use crate::failure::{Failure, Kind};
use crate::joiner;
use crate::server::options::ServerOptions;
use crate::server::provider_options::{self, cache_file, is_on};
use crate::settings::Settings;
use crate::writesets::gcache::{Gcache, Report};
use crate::writesets::ist::{rate, relay};

/// Collects for the node that `wanted` names, which must be stopped. `donors` are members to query, each a
/// unix socket or `HOST[:PORT]`; without any, the group is the one that this node's own gcache saw last.
/// `archive` is an archive of write-sets that the donor would use, or a copy of it; archives of members on this host are
/// found, and donors of earlier transfers have reported theirs. `sample` is how long the write rate is measured.
///
/// # Errors
/// The node is running, its options cannot be read, no member responds, or there is no information about the
/// group.
pub fn collect(
    wanted: &Wanted,
    donors: &[String],
    archive: Option<&Path>,
    sample: Duration,
) -> Result<Facts> {
    let (args, options) = load(wanted, &[])?;
    let layout = Layout::resolve(&args, &options)?;
    require_datadir(&layout.datadir)?;
    if let Some(server) = server_on(&layout)? {
        let failure = Failure::new(Kind::Refused, format!("{server} runs on {}", layout.datadir.display()));
        return Err(failure
            .hint("plan is for a node that is down; rejoin check is for one that runs")
            .into());
    }
    let provider = provider_options::parse(options.server("wsrep-provider-options").unwrap_or_default());
    let cache = Gcache::open(&cache_file(&provider, &layout.datadir));
    let old = managed::managed(&layout)?;
    let mut group = match donors {
        [] => seen_last(cache.as_ref().map_err(|e| format!("{e:#}")))?,
        donors => {
            let (account, here) = (account(&options), Here::of(&layout, &old, &options)?);
            Asking { account, here, joiner: Joiner::of(&layout, &options)? }.group(donors, sample)?
        }
    };
    // A member with this node's name is this node, before it stopped.
    let name = options.node_name();
    group.members.retain(|known| known.from == Origin::Asked || known.member.name != name);
    let keeps = provider.get("gcache.recover").is_none_or(|value| is_on(value));
    let gets_rows = gets_rows(&options);
    let lowest = cache.ok().filter(|cache| cache.preamble().history == group.history && keeps);
    Ok(Facts {
        name,
        segment: number(provider.get("gmcast.segment")).unwrap_or(0),
        wanted: options.server("wsrep-sst-donor").unwrap_or_default().to_owned(),
        position: position(&layout)?,
        lowest_cached: lowest.and_then(|cache| cache.range()).map(|(first, _)| first),
        lineage: Lineage::read(&layout.datadir),
        data: old.iter().map(|file| file.allocated).sum(),
        free: bytes_available(&layout.datadir).ok(),
        gets_rows,
        base: base(&options, &layout),
        // A server that runs gets no write-sets from an archive.
        archives: if gets_rows { vec![] } else { archives(&group, archive, &layout.datadir)? },
        rate: rate::remembered(&layout.datadir),
        relay: relay::endpoints(&options, &layout.datadir)
            .and_then(|endpoints| relay::is_readable(&endpoints)),
        group,
    })
}

/// The backup that a start would find: the joiner's program looks at it in the same way.
fn base(options: &ServerOptions, layout: &Layout) -> Option<Result<Base, String>> {
    let settings = match Settings::read(options) {
        Ok(settings) => settings,
        Err(why) => return Some(Err(format!("{why:#}"))),
    };
    let dir = match (settings.base, settings.base_command) {
        (Some(dir), _) => dir,
        (None, Some(_)) if settings.incremental => match joiner::filled_base(&layout.datadir) {
            Some(dir) => dir,
            None => {
                let why = "base-command is run when the node starts, if it has no files to compare";
                return Some(Err(why.to_owned()));
            }
        },
        _ => return None,
    };
    let found = joiner::Backup::find(options, layout, &dir).unwrap_or_else(|error| Err(format!("{error:#}")));
    let described =
        |backup: joiner::Backup| Base { position: backup.position, bytes: backup.bytes(), dir: dir.clone() };
    Some(found.map(described).map_err(|why| format!("{}: {why}", dir.display())))
}

/// The position that a start would pass to the provider.
fn position(layout: &Layout) -> Result<Position> {
    let noted = match collect::grastate(&layout.datadir) {
        None => return Ok(Position::None("there is no grastate.dat".to_owned())),
        Some(Err(why)) => return Ok(Position::None(why)),
        Some(Ok(noted)) => noted,
    };
    if noted.uuid == Uuid::NIL {
        let why = "grastate.dat has no history: the last state transfer failed, or the node never had one";
        return Ok(Position::None(why.to_owned()));
    }
    if noted.seqno.0 >= 0 {
        let (uuid, seqno) = (noted.uuid, noted.seqno);
        return Ok(Position::Noted(formats::wsrep::state_id::StateId { uuid, seqno }));
    }
    Ok(match recovered_position(&InnodbFiles::of(layout)?)? {
        Recovered::Known(found) => Position::Recovered(found.state),
        Recovered::None => Position::None("the data files hold no position".to_owned()),
        Recovered::Unknown(why) => Position::Unknown(why.to_string()),
    })
}

/// The last view change that this node saw.
fn seen_last(cache: Result<&Gcache, String>) -> Result<Group> {
    let unseen = |why: String| {
        let failure =
            Failure::new(Kind::Configuration, format!("there is no information about the group: {why}"));
        failure.hint("name a member: --donor SOCKET or --donor HOST[:PORT]")
    };
    let cache = cache.map_err(unseen)?;
    let report = Report::of(cache)?;
    let last =
        report.changes.last().ok_or_else(|| unseen("this node's gcache holds no view change".to_owned()))?;
    let written = std::fs::metadata(cache.path()).and_then(|meta| meta.modified());
    let age = written.ok().and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default();
    let newest = cache.range().map_or(last.state.seqno, |(_, last)| last);
    let known = |member| Known::not_asked(member, Origin::View("the members were not asked".to_owned()));
    let members = last.members.iter().map(|member| known(of_view(member))).collect();
    Ok(Group { history: last.state.uuid, newest, members, age: Some(age), pace: None })
}
