//! `rejoin plan`: how a node that is down would come back.
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use node::failure::{Failure, Kind};
use node::plan::choice::Rule;
use node::plan::collect::collect;
use node::plan::facts::{Facts, Known, Origin, Position};
use node::plan::predict::{Prediction, Speeds, Way, predict};
use node::plan::transfer::Estimate;
use node::words::{size, span};
use serde_json::{Value, json};

use super::say;
use super::which::{UNKNOWN, Which, as_the_servers_user};

/// How long a member's writing is measured.
const SAMPLE: Duration = Duration::from_secs(1);

/// Which node, and whom to ask.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    node: Which,
    /// A member to ask, by its socket or address; may be given for each. Without any, the group is what this node saw last
    #[arg(long, value_name = "SOCKET|HOST[:PORT]")]
    donor: Vec<String>,
    /// Write-sets a second that this node applies, to weigh an IST against an SST
    #[arg(long, value_name = "NUMBER")]
    apply_rate: Option<f64>,
    /// Bytes a second that a transfer gets here (100M), to weigh an IST against an SST
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    transfer_rate: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn bytes(text: &str) -> Result<u64, String> {
    let size = formats::mariadb::option_file::parse_size(text);
    size.filter(|size| *size > 0).ok_or_else(|| format!("{text:?} is no size: 100M, 1G"))
}

/// Predicts, and answers with the exit code: 0 by IST (or nothing is missing), 1 by SST, 2 nobody gives.
pub fn run(options: &Options) -> Result<ExitCode> {
    if options.apply_rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
        bail!(Failure::new(Kind::Configuration, "--apply-rate is no positive number"));
    }
    let wanted = options.node.wanted();
    if let Some(code) = as_the_servers_user(&wanted)? {
        return Ok(code);
    }
    let facts = collect(&wanted, &options.donor, SAMPLE)?;
    let transfer = options.transfer_rate.map(|rate| rate as f64);
    let prediction = predict(&facts, Speeds { apply: options.apply_rate, transfer });
    if options.json {
        say(&format!("{:#}", as_json(&facts, &prediction)));
    } else {
        lines(&facts, &prediction).iter().for_each(|(what, text)| say(&format!("{what:<10} {text}")));
    }
    Ok(ExitCode::from(match (&facts.position, &prediction.way) {
        (Position::Unknown(_), _) => UNKNOWN,
        (_, Way::Ist { .. } | Way::NothingMissing) => 0,
        (_, Way::Sst { .. }) => 1,
        (_, Way::Waits | Way::Refused) => 2,
    }))
}

fn lines(facts: &Facts, prediction: &Prediction) -> Vec<(&'static str, String)> {
    let group = &facts.group;
    let from = match group.age {
        None => "asked just now".to_owned(),
        Some(age) => format!("as this node last saw it, {} ago", span(age)),
    };
    let mut lines = vec![
        ("position", position(&facts.position)),
        ("group", format!("{}:{}, {from}", group.history, group.newest)),
    ];
    lines.extend(group.members.iter().map(|known| ("member", member(known, group.newest.0))));
    lines.push(("way", way(facts, prediction)));
    if let Some(sends) = &prediction.sends {
        lines.push(("sends", sent(sends)));
    }
    if let Some(missing) = prediction.missing {
        let bytes = prediction.missing_bytes.map(|bytes| format!(", about {}", size(bytes)));
        lines.push(("missing", format!("{missing} write-sets{}", bytes.unwrap_or_default())));
    }
    if let (Some(lasts), Some(pace)) = (prediction.lasts_at_least, group.pace) {
        let text = match pace.per_second {
            rate if rate > 0.0 => {
                let until = clock(SystemTime::now() + lasts);
                format!("at least {} more (until {until}), at {rate:.1} write-sets a second", span(lasts))
            }
            _ => "as long as nothing is written".to_owned(),
        };
        lines.push(("lasts", text));
    }
    lines.extend(prediction.advice.iter().map(|text| ("advice", text.clone())));
    lines
}

/// The time of day, as the server's logs could have it.
fn clock(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    format!("{:02}:{:02} UTC", seconds / 3600 % 24, seconds / 60 % 60)
}

fn position(position: &Position) -> String {
    match position {
        Position::Noted(state) => format!("{state}, from grastate.dat"),
        Position::Recovered(state) => format!("{state}, as InnoDB will recover it"),
        Position::None(why) => format!("none: {why}"),
        Position::Unknown(why) => format!("unknown: {why}"),
    }
}

fn member(known: &Known, newest: i64) -> String {
    let member = &known.member;
    let history = match member.lowest_cached {
        Some(lowest) => format!("has write-sets from {lowest} ({} of them)", newest - lowest.0 + 1),
        None => "has no write-sets".to_owned(),
    };
    let stateless = if member.stateless { ", stateless" } else { "" };
    let from = match &known.from {
        Origin::Asked => String::new(),
        Origin::View(why) => format!(" (at the last view change; {why})"),
        Origin::Nothing(why) => format!(" (not known; {why})"),
    };
    format!("{} {}{stateless}, segment {}, {history}{from}", member.name, member.state, member.segment)
}

fn way(facts: &Facts, prediction: &Prediction) -> String {
    match &prediction.way {
        Way::NothingMissing => "nothing is missing: no state transfer".to_owned(),
        Way::Ist { donor, rule, from } => {
            format!("IST from {donor}, write-sets from {from} on: {}", reason(*rule))
        }
        Way::Sst { donor, rule } => {
            format!("SST from {donor}: {}; here are {} of data", reason(*rule), size(facts.data))
        }
        Way::Waits => "waits: whoever could give is busy, this node will ask again every second".to_owned(),
        Way::Refused => "none: nobody gives, this node's server will end; see wsrep_sst_donor".to_owned(),
    }
}

fn sent(sends: &Result<Estimate, String>) -> String {
    match sends {
        Ok(Estimate { all, about: Some(about), why }) => {
            format!("about {} of {} with rejoin, before compression ({why})", size(*about), size(*all))
        }
        Ok(Estimate { all, about: None, why }) => format!("at most {} with rejoin ({why})", size(*all)),
        Err(why) => format!("with rejoin what differs; how much is not known: {why}"),
    }
}

fn reason(rule: Rule) -> &'static str {
    match rule {
        Rule::HasItAndNamed => {
            "of those named in wsrep_sst_donor that have what is missing it reaches back least"
        }
        Rule::HasItInSegment => "of those in this segment that have what is missing it reaches back least",
        Rule::HasItElsewhere => {
            "nobody in this segment has what is missing; of the others it reaches back least"
        }
        Rule::Named => "wsrep_sst_donor names it",
        Rule::FirstInSegment => "the first in this segment that is Synced",
        Rule::LastElsewhere => "nobody else is in this segment; the last elsewhere that is Synced",
    }
}

fn as_json(facts: &Facts, prediction: &Prediction) -> Value {
    let state = facts.position.state();
    let (kind, donor, rule) = match &prediction.way {
        Way::NothingMissing => ("nothing-missing", None, None),
        Way::Ist { donor, rule, .. } => ("ist", Some(donor), Some(rule)),
        Way::Sst { donor, rule } => ("sst", Some(donor), Some(rule)),
        Way::Waits => ("waits", None, None),
        Way::Refused => ("refused", None, None),
    };
    let members = facts.group.members.iter().map(|known| {
        json!({
            "name": known.member.name,
            "state": known.member.state.to_string(),
            "segment": known.member.segment,
            "stateless": known.member.stateless,
            "lowest_cached": known.member.lowest_cached.map(|lowest| lowest.0),
            "asked": known.from == Origin::Asked,
        })
    });
    json!({
        "position": state.map(|state| state.to_string()),
        "position_from": match facts.position {
            Position::Noted(_) => "grastate.dat",
            Position::Recovered(_) => "innodb",
            Position::None(_) => "none",
            Position::Unknown(_) => "unknown",
        },
        "history": facts.group.history.to_string(),
        "newest": facts.group.newest.0,
        "age_s": facts.group.age.map(|age| age.as_secs()),
        "members": members.collect::<Vec<_>>(),
        "way": kind,
        "donor": donor,
        "rule": rule,
        "safe": prediction.safe.0,
        "sends": prediction.sends.as_ref().map(|sends| match sends {
            Ok(Estimate { all, about, why }) => json!({"bytes": about, "at_most_bytes": all, "why": why}),
            Err(why) => json!({"bytes": null, "at_most_bytes": null, "why": why}),
        }),
        "missing": prediction.missing,
        "missing_bytes": prediction.missing_bytes,
        "lasts_at_least_s": prediction.lasts_at_least.map(|lasts| lasts.as_secs()),
        "data_bytes": facts.data,
        "advice": prediction.advice,
    })
}
