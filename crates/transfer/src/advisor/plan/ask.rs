//! Queries members about themselves and the group.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use formats::Seqno;
use formats::galera::conf_change::{self, ConfChange, MemberState};
use formats::wsrep::address::ListenAddress;
use formats::wsrep::credentials::Account;

use super::choice::Member;
use super::facts::{Group, Known, Origin, Pace};
use super::kind::{Joiner, TransferKind};
use super::transfer::{Estimate, Here};
use crate::failure::{Failure, Kind};
use crate::server::provider_options::{self, cache_file, is_on};
use crate::snapshot::logical::locked::Hold;
use crate::sql::{Answer, Session};
use crate::sql::{Listens, Login};
use crate::writesets::archive::{default_dir, is_archive};
use crate::writesets::gcache::{Gcache, Report};

/// How long one response may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The default client port.
const CLIENT_PORT: u16 = 3306;
/// The rates of a server that has run for less time reflect only its start.
const MEAN_AFTER_S: f64 = 600.0;

/// The state of one member, and what it knows of the group.
struct Said {
    uuid: String,
    member: Member,
    status: BTreeMap<String, String>,
    others: Vec<(String, String, String)>,
    cache: PathBuf,
    /// Its archive, if it is on this host.
    archive: Option<PathBuf>,
    pace: Pace,
    sends: Result<Estimate, String>,
    kind: Option<TransferKind>,
    hold: Option<Hold>,
}

impl Said {
    fn known(self) -> Known {
        let Said { member, sends, kind, hold, archive, .. } = self;
        Known { member, from: Origin::Asked, sends, kind, hold, archive }
    }
}

/// How members are queried.
pub(super) struct Asking {
    /// The account; without one the operating system's user.
    pub account: Option<Account>,
    /// The data to compare their files with.
    pub here: Here,
    /// What this node can take.
    pub joiner: Joiner,
}

impl Asking {
    /// Returns the group as these members see it now.
    pub fn group(&self, donors: &[String], sample: Duration) -> Result<Group> {
        let mut said: Vec<Said> = Vec::new();
        for donor in donors {
            let one = self.query(&listens(donor)?, sample).map_err(|why| {
                Failure::new(Kind::Configuration, format!("no response from member {donor}: {why}"))
                    .hint("that member must accept the account in wsrep_sst_auth of this node's option files; an SST does not need it")
            })?;
            said.push(one);
        }
        let first = said.first().context("no member is named")?;
        let history = first.status.get("wsrep_cluster_state_uuid").and_then(|text| text.parse().ok());
        let history = history.context("that server is not in a cluster")?;
        // Write-sets that a member has received but not yet applied count too.
        let received = |one: &Said| -> Option<i64> {
            let queued = number(one.status.get("wsrep_local_recv_queue")).unwrap_or(0);
            Some(number::<i64>(one.status.get("wsrep_last_committed"))? + queued)
        };
        let newest = said.iter().filter_map(received).max().map(Seqno);
        let newest = newest.context("that server reports no position")?;
        let pace = Some(first.pace);
        Ok(Group { history, newest, members: self.members(said)?, age: None, pace })
    }

    /// Returns all members in the group's order, which is that of their ids. A member that was not named is
    /// queried at its client address; otherwise the last view change describes it.
    fn members(&self, mut said: Vec<Said>) -> Result<Vec<Known>> {
        let mut all = said.first().map(|first| first.others.clone()).unwrap_or_default();
        all.sort();
        if all.is_empty() {
            let text = "the member's list of members cannot be read (mysql.wsrep_cluster_members)";
            return Err(Failure::new(Kind::Refused, text)
                .hint("the account needs SELECT on that table")
                .into());
        }
        let view = said.iter().find_map(|one| last_view(&one.cache));
        let mut known = Vec::new();
        for (uuid, name, address) in all {
            if let Some(at) = said.iter().position(|one| one.uuid == uuid) {
                known.push(said.swap_remove(at).known());
                continue;
            }
            known.push(match self.query_over_network(&address) {
                Ok(one) if one.uuid == uuid => one.known(),
                Ok(one) => unasked(&uuid, &name, view.as_ref(), format!("{address} is {}", one.member.name)),
                Err(why) => unasked(&uuid, &name, view.as_ref(), why),
            });
        }
        Ok(known)
    }

    fn query_over_network(&self, address: &str) -> Result<Said, String> {
        let account = self.account.as_ref().filter(|account| !account.user.is_empty());
        account.ok_or("no account is configured")?;
        let at = ListenAddress::parse(address).map_err(|e| e.to_string())?;
        let port = at.port.filter(|port| *port != 0).ok_or("it does not announce its client address")?;
        self.query(&Listens::Network(at.host, port), Duration::ZERO)
    }

    fn query(&self, at: &Listens, sample: Duration) -> Result<Said, String> {
        let login = Login { at: at.clone(), account: self.account.clone() };
        let mut session = Session::open(&login, ANSWER_WITHIN).map_err(|why| why.to_string())?;
        self.ask(at, &mut session, sample).map_err(|e| e.to_string())
    }

    fn ask(&self, at: &Listens, session: &mut Session, sample: Duration) -> Answer<Said> {
        let variables = session.variables()?;
        let (began, before) = (Instant::now(), session.statuses()?);
        std::thread::sleep(sample);
        let status = session.statuses()?;
        let pace = pace(&before, &status, began.elapsed().as_secs_f64());
        let of = |map: &BTreeMap<String, String>, name: &str| map.get(name).cloned().unwrap_or_default();
        let provider = provider_options::parse(&of(&variables, "wsrep_provider_options"));
        let member = Member {
            name: of(&variables, "wsrep_node_name"),
            segment: number(provider.get("gmcast.segment")).unwrap_or(0),
            state: state(&of(&status, "wsrep_local_state")),
            stateless: provider.get("gcs.stateless").is_some_and(|value| is_on(value)),
            lowest_cached: number(status.get("wsrep_local_cached_downto")).filter(|at| *at > 0).map(Seqno),
        };
        let datadir = PathBuf::from(of(&variables, "datadir"));
        let cache = cache_file(&provider, &datadir);
        let archive = Some(default_dir(&datadir)).filter(|dir| is_socket(at) && is_archive(dir));
        let others = session.members()?;
        let (kind, hold) = self.joiner.takes(at, session, &variables).ok().unzip();
        let sends = match &kind {
            Some(TransferKind::Rows(_)) => Estimate::of_rows(session)?,
            _ => self.here.estimate(at, session, &variables)?,
        };
        Ok(Said {
            uuid: of(&status, "wsrep_gcomm_uuid"),
            member,
            status,
            others,
            cache,
            archive,
            pace,
            sends,
            kind,
            hold: hold.flatten(),
        })
    }
}

fn is_socket(at: &Listens) -> bool {
    matches!(at, Listens::Socket(_))
}

/// A path means a socket.
fn listens(text: &str) -> Result<Listens> {
    if text.contains('/') {
        return Ok(Listens::Socket(PathBuf::from(text)));
    }
    let at = ListenAddress::parse(text).with_context(|| format!("--donor {text:?}"))?;
    Ok(Listens::Network(at.host, at.port.unwrap_or(CLIENT_PORT)))
}

fn unasked(uuid: &str, name: &str, view: Option<&ConfChange>, why: String) -> Known {
    let seen = view.and_then(|view| view.members.iter().find(|member| member.uuid.to_string() == uuid));
    match seen {
        Some(seen) => Known::not_asked(of_view(seen), Origin::View(why)),
        None => {
            let member = Member {
                name: name.to_owned(),
                segment: 0,
                state: MemberState::Synced,
                stateless: false,
                lowest_cached: None,
            };
            Known::not_asked(member, Origin::Nothing(why))
        }
    }
}

/// The last view change in the cache of a member on this host whose files we may read.
fn last_view(cache: &Path) -> Option<ConfChange> {
    let cache = Gcache::open(cache).ok()?;
    Report::of(&cache).ok()?.changes.pop()
}

/// `wsrep_local_state` has the server's numbers, not the provider's.
fn state(number: &str) -> MemberState {
    match number {
        "1" => MemberState::Joiner,
        "2" => MemberState::Donor,
        "3" => MemberState::Joined,
        "4" => MemberState::Synced,
        _ => MemberState::NonPrimary,
    }
}

fn pace(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>, seconds: f64) -> Pace {
    let sum = |status: &BTreeMap<String, String>, names: [&str; 2]| -> f64 {
        names.iter().filter_map(|name| number::<f64>(status.get(*name))).sum()
    };
    let sets = |status| sum(status, ["wsrep_replicated", "wsrep_received"]);
    let bytes = sum(after, ["wsrep_replicated_bytes", "wsrep_received_bytes"]);
    let committed = |status: &BTreeMap<String, String>| number::<f64>(status.get("wsrep_last_committed"));
    let now = committed(after).zip(committed(before)).map_or(0.0, |(after, before)| after - before);
    let uptime = number::<f64>(after.get("Uptime")).filter(|seconds| *seconds >= MEAN_AFTER_S);
    let mean = uptime.map_or(0.0, |uptime| sets(after) / uptime);
    Pace {
        per_second: (now / seconds.max(0.001)).max(mean),
        bytes_each: if sets(after) > 0.0 { bytes / sets(after) } else { 0.0 },
    }
}

pub(super) fn number<T: std::str::FromStr>(text: Option<&String>) -> Option<T> {
    text.and_then(|text| text.parse().ok())
}

/// A view change has no segment; most groups have only one.
pub(super) fn of_view(member: &conf_change::Member) -> Member {
    Member {
        name: member.name.clone(),
        segment: 0,
        // A member that was joining then has arrived since, or is gone.
        state: MemberState::Synced,
        stateless: false,
        lowest_cached: member.lowest_cached,
    }
}
