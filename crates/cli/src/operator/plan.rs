//! `rejoin plan`: how a node that is down would come back.
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use transfer::advisor::plan::choice::Rule;
use transfer::advisor::plan::collect::collect;
use transfer::advisor::plan::costs::Cost;
use transfer::advisor::plan::deep_ist::{DeepIst, Reaches};
use transfer::advisor::plan::demand::Room;
use transfer::advisor::plan::facts::{Facts, Known, Origin, Position};
use transfer::advisor::plan::kind::TransferKind;
use transfer::advisor::plan::predict::{Prediction, Speeds, Way, predict};
use transfer::advisor::plan::snapshot::Predicted;
use transfer::advisor::plan::transfer::Estimate;
use transfer::failure::{Failure, Kind};
use transfer::human::{size, span};
use transfer::server::ist_endpoints::IST_OPTIONS_HINT;

use super::answer::Answer;
use super::plan_json::as_json;
use super::which::{UNKNOWN, Which, become_the_servers_user};

/// How long the write rate of a member is measured.
const SAMPLE: Duration = Duration::from_secs(1);

/// Which node, and which members to ask.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    node: Which,
    /// Member to ask: its socket or address; may be given more than once
    ///
    /// Without it, the last state of the group that this node saw is used.
    #[arg(long, value_name = "SOCKET|HOST[:PORT]")]
    donor: Vec<String>,
    /// Archive of write-sets of the donor, or a copy of it; default: that of a
    /// member on this host, or what members reported earlier
    #[arg(long, value_name = "DIR")]
    archive: Option<PathBuf>,
    /// Write-sets per second that this node applies, to compare IST with SST
    #[arg(long, value_name = "NUMBER")]
    apply_rate: Option<f64>,
    /// Bytes per second of a transfer (100M), to compare IST with SST
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    transfer_rate: Option<u64>,
    #[command(flatten)]
    answer: Answer,
}

fn bytes(text: &str) -> Result<u64, String> {
    let size = formats::mariadb::option_file::parse_size(text);
    size.filter(|size| *size > 0).ok_or_else(|| format!("{text:?} is not a size such as 100M or 1G"))
}

/// Predicts. The exit code is 0 for IST (or nothing missing), 1 for SST, 2 if the server would end or wait, 3
/// for not known.
pub fn run(options: &Options) -> Result<ExitCode> {
    if options.apply_rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
        bail!(Failure::new(Kind::Configuration, "--apply-rate must be a positive number"));
    }
    let wanted = options.node.wanted()?;
    become_the_servers_user(&wanted)?;
    let facts = collect(&wanted, &options.donor, options.archive.as_deref(), SAMPLE)?;
    let transfer = options.transfer_rate.map(|rate| rate as f64);
    let prediction = predict(&facts, Speeds { apply: options.apply_rate, transfer });
    let lines = lines(&facts, &prediction);
    let lines: Vec<String> = lines.iter().map(|(what, text)| format!("{what:<10} {text}")).collect();
    options.answer.say(&lines.join("\n"), &as_json(&facts, &prediction));
    Ok(ExitCode::from(match (&facts.position, &prediction.way) {
        (Position::Unknown(_), _) => UNKNOWN,
        // An old state of the group tells neither what is missing now nor which members are there to send it.
        _ if facts.group.age.is_some() => UNKNOWN,
        (_, Way::Ist { .. } | Way::NothingMissing) => 0,
        (_, Way::Sst { .. }) => 1,
        (_, Way::Waits | Way::Refused | Way::Ahead { .. }) => 2,
    }))
}

fn lines(facts: &Facts, prediction: &Prediction) -> Vec<(&'static str, String)> {
    let group = &facts.group;
    let from = match group.age {
        None => "asked just now".to_owned(),
        Some(age) => format!("as this node last saw it {} ago", span(age)),
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
    lines.extend(prediction.kind.as_ref().map(|kind| ("kind", kind_of(kind, prediction))));
    lines.extend(prediction.hold.as_ref().map(|hold| ("locks", hold.in_words())));
    lines.extend(prediction.room.map(|room| ("room", room_for(room))));
    if matches!(prediction.way, Way::Sst { .. }) {
        lines.extend(facts.archives.iter().map(|archive| ("archive", archive.in_words())));
    }
    if let Some(deep) = &prediction.deep_ist {
        lines.push(("deep IST", deep_ist(deep)));
    }
    if let (Some(Err(why)), Way::Sst { .. }) = (&facts.base, &prediction.way) {
        lines.push(("base", format!("no start of a deep IST: {why}")));
    }
    if prediction.costs.len() > 1 {
        lines.push(("cheapest", prediction.costs.iter().map(cost).collect::<Vec<_>>().join("; ")));
    }
    if let Some(missing) = prediction.missing {
        let bytes = prediction.missing_bytes.map(|bytes| format!(", about {}", size(bytes)));
        lines.push(("missing", format!("{missing} write-sets{}", bytes.unwrap_or_default())));
    }
    if let (Some(lasts), Some(pace)) = (prediction.lasts_at_least, group.pace) {
        let text = match pace.per_second {
            rate if rate > 0.0 => {
                let until = clock(SystemTime::now() + lasts);
                format!("at least {} more (until {until}), at {rate:.1} write-sets per second", span(lasts))
            }
            _ => "until something is written".to_owned(),
        };
        lines.push(("lasts", text));
    }
    lines.extend(prediction.advice.iter().map(|text| ("advice", text.clone())));
    lines
}

/// Formats a time of day as in the server's logs.
fn clock(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    format!("{:02}:{:02} UTC", seconds / 3600 % 24, seconds / 60 % 60)
}

fn position(position: &Position) -> String {
    match position {
        Position::Noted(state) => format!("{state}, from grastate.dat"),
        Position::Recovered(state) => format!("{state}, to which InnoDB will recover"),
        Position::None(why) => format!("none: {why}"),
        Position::Unknown(why) => format!("unknown: {why}"),
    }
}

fn member(known: &Known, newest: i64) -> String {
    let member = &known.member;
    let history = match member.lowest_cached {
        Some(lowest) => format!("has the write-sets from {lowest} on ({} of them)", newest - lowest.0 + 1),
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
    let way = way_by(facts, prediction);
    match facts.group.age {
        None => way,
        Some(_) if prediction.way == Way::NothingMissing => {
            "not known: no member was asked (use --donor)".to_owned()
        }
        Some(_) => {
            format!("not known: no member was asked (use --donor); in the group's last known state: {way}")
        }
    }
}

fn way_by(facts: &Facts, prediction: &Prediction) -> String {
    match &prediction.way {
        Way::NothingMissing => "nothing is missing: no state transfer".to_owned(),
        Way::Ahead { by } => format!(
            "none: this node is {by} write-sets ahead of the group, which was bootstrapped from an older node; its server \
             would end with \"Reversing history\""
        ),
        Way::Ist { donor, rule, from } => {
            format!("IST from {donor}, write-sets from {from} on: {}", reason(*rule))
        }
        Way::Sst { donor, rule } => {
            format!("SST from {donor}: {}; this node has {} of data", reason(*rule), size(facts.data))
        }
        Way::Waits => "waits: every possible donor is busy; this node will ask again every second".to_owned(),
        Way::Refused => {
            "none: no member can be the donor, so this node's server will end; see wsrep_sst_donor".to_owned()
        }
    }
}

fn sent(sends: &Result<Estimate, String>) -> String {
    match sends {
        Ok(Estimate { about: Some(_), why, .. }) => format!("with rejoin, before compression: {why}"),
        Ok(Estimate { all, about: None, why, .. }) => format!("at most {} with rejoin ({why})", size(*all)),
        Err(why) => format!("with rejoin, only what differs; the size is not known: {why}"),
    }
}

/// The snapshot, why it is not the online one, and what it does to the donor.
fn kind_of(kind: &TransferKind, prediction: &Prediction) -> String {
    let pause = prediction.pause.map(|pause| format!(": {}", pause.in_words())).unwrap_or_default();
    match kind {
        TransferKind::Files(Predicted { kind, why }) if why.is_empty() => {
            format!("files of the {} snapshot{pause}", kind.name())
        }
        TransferKind::Files(Predicted { kind, why }) => {
            format!("files of the {} snapshot ({why}){pause}", kind.name())
        }
        TransferKind::Rows(why) => format!("logical: rows instead of files ({why})"),
        TransferKind::Nothing(why) => format!("none: the transfer will be refused ({why})"),
    }
}

fn room_for(room: Room) -> String {
    let Room { needed, whole, free } = room;
    let (most, note) = if whole { ("", ", whatever of it is here already") } else { ("at most ", "") };
    format!(
        "{most}{} beside this node's data{note}; {} are free on the filesystem of its datadir",
        size(needed),
        size(free)
    )
}

/// The donor decides by the same estimate, unless `ist` under its `[sst]` says otherwise.
fn deep_ist(deep: &DeepIst) -> String {
    let has = if deep.reaches() == Reaches::Yes { "has" } else { "may have" };
    if let Some(why) = &deep.closed {
        return format!("the archive {has} what is missing, but {why} (hint: {IST_OPTIONS_HINT})");
    }
    let kept = match deep.reaches() {
        Reaches::No | Reaches::Yes => "",
        Reaches::IfItStayed => ", if the archive has kept as many write-sets as it had",
        Reaches::IfItGrew => ", if the archive has kept more write-sets than it had",
    };
    let instead = format!("{}{kept}", instead(deep));
    let from = deep.base.as_ref().map_or(String::new(), |base| {
        format!(
            " from {} at {}, {} of which are installed first",
            base.dir.display(),
            base.position,
            size(base.bytes)
        )
    });
    match &deep.ways {
        Some(ways) => format!("{instead}{from}: {}", ways.in_words()),
        None => format!("{instead}{from}: {} write-sets, about {}", deep.write_sets, size(deep.bytes)),
    }
}

fn instead(deep: &DeepIst) -> &'static str {
    match &deep.ways {
        Some(ways) if ways.replay_is_cheaper() => "instead, with ist=auto on the donor",
        Some(_) => "possible with ist=always on the donor; with ist=auto files are sent, which costs less",
        None => "possible",
    }
}

fn cost(cost: &Cost) -> String {
    let Cost { back, takes, of } = cost;
    let takes =
        takes.map_or("not known before it begins".to_owned(), |takes| format!("about {}", span(takes)));
    format!("{}: {takes} ({of})", back.name())
}

fn reason(rule: Rule) -> &'static str {
    match rule {
        Rule::HasItAndNamed => {
            "named in wsrep_sst_donor and has the missing write-sets; of such members its cache reaches back least"
        }
        Rule::HasItInSegment => {
            "in this segment and has the missing write-sets; of such members its cache reaches back least"
        }
        Rule::HasItElsewhere => {
            "no member of this segment has the missing write-sets; of the others its cache reaches back least"
        }
        Rule::Named => "wsrep_sst_donor names it",
        Rule::FirstInSegment => "the first Synced member of this segment",
        Rule::LastElsewhere => "no other member is in this segment; the last Synced one elsewhere",
    }
}
