//! `lab figures --grid`: what the program chooses by itself beside the fixed choices, by link and by how many pages differ, all
//! within a given time.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use rejoin_lab::page_cache;

use super::fixture::Fixture;
use super::trial::{self, Contender, Trial, Trials};
use super::{Options, one_turn};
use crate::commands::bench::machine;
use crate::commands::link::LinkOptions;

mod record;

use record::{CellRecord, MethodRecord, Results, table};

/// Of each pair of nodes, one after the other: pages that differ, of 1.
const PAGES: [f64; 4] = [0.01, 0.1, 0.4, 1.0];
/// Those that are compared where none are named.
const CONTENDERS: [Contender; 5] =
    [Contender::Rejoin, Contender::Parts, Contender::Compressed, Contender::Plain, Contender::Full];
/// More turns say nothing new.
const MOST_TURNS: usize = 9;
/// A donor remembers files that it left alone for two minutes, which are some turns of a cell and not its first ones.
const EVERY_TURN_READS: &str = "remember-fingerprints=0";

/// What to measure of the grid.
#[derive(Args, Clone)]
pub struct GridOptions {
    /// The program's own choice beside each fixed one, at 100 Mbit/s with a round trip of 40 ms, 1 and 10 Gbit/s and loopback, with
    /// 1, 10, 40 and 100 % of the pages differing. Needs root and /dev/net/tun.
    #[arg(long, conflicts_with_all = ["megabytes", "churn", "changed", "link", "loaded", "pairs", "repeat", "rand_type"])]
    grid: bool,
    /// How many minutes the grid takes: methods take turns at each place of it as long as there is time, and each has at least
    /// one turn.
    #[arg(long, default_value_t = 35, requires = "grid")]
    minutes: u32,
    /// Megabytes of sysbench tables for each of the grid's links.
    #[arg(long, value_delimiter = ',', default_value = "200,600,1000,1000", requires = "grid")]
    grid_megabytes: Vec<u64>,
    /// Writes what the grid measured to this file too, as JSON (its keys: docs/figures.md).
    #[arg(long, requires = "grid")]
    json: Option<PathBuf>,
}

impl GridOptions {
    pub fn is_asked(&self) -> bool {
        self.grid
    }
}

/// A link, and the data that passes it.
struct Place {
    name: &'static str,
    link: LinkOptions,
    megabytes: u64,
}

/// Runs it. What was measured before a failure is shown and written as well.
pub fn run(options: &Options) -> Result<()> {
    let places = places(&options.grid.grid_megabytes)?;
    let contenders = if options.method.is_empty() { &CONTENDERS[..] } else { &options.method[..] };
    // A run takes long: a file that cannot be written is found out now.
    if let Some(path) = &options.grid.json {
        fs::write(path, "").with_context(|| path.display().to_string())?;
    }
    let machine = machine::line()?;
    println!("{machine}.\n");
    let mut cells = Vec::new();
    let measured = measure(options, &places, contenders, &mut cells);
    if !cells.is_empty() {
        println!("\n{}", table(&cells));
        if let Some(path) = &options.grid.json {
            let text = serde_json::to_string_pretty(&Results::new(machine, cells)).context("as JSON")?;
            fs::write(path, text + "\n").with_context(|| path.display().to_string())?;
        }
    }
    measured
}

fn places(megabytes: &[u64]) -> Result<Vec<Place>> {
    let links = [
        ("100 Mbit/s, 40 ms", LinkOptions::of(Some(12.5), Some(40))),
        ("1 Gbit/s", LinkOptions::of(Some(125.0), None)),
        ("10 Gbit/s", LinkOptions::of(Some(1250.0), None)),
        ("loopback", LinkOptions::of(None, None)),
    ];
    ensure!(
        megabytes.len() == links.len(),
        "--grid-megabytes has a number for each of {} links",
        links.len()
    );
    let places = links.into_iter().zip(megabytes);
    Ok(places.map(|((name, link), megabytes)| Place { name, link, megabytes: *megabytes }).collect())
}

fn measure(
    options: &Options,
    places: &[Place],
    contenders: &[Contender],
    cells: &mut Vec<CellRecord>,
) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(60) * options.grid.minutes;
    for (n, place) in places.iter().enumerate() {
        let end = first_part(Instant::now(), end, places.len() - n);
        let (link, megabytes) = (place.link.clone(), place.megabytes);
        let mut options = Options { link, megabytes, ..options.clone() };
        options.sst.push(EVERY_TURN_READS.to_owned());
        println!("{}: making nodes with {megabytes} MB ...", place.name);
        let fixture = Fixture::make(&options)?;
        fixture.leave().context("the joiner leaves")?;
        let mut before = 0.0;
        for (n, &pages) in PAGES.iter().enumerate() {
            let end = first_part(Instant::now(), end, PAGES.len() - n);
            fixture.change_pages(before, pages)?;
            before = pages;
            let what = format!("{}, {:.0} % of the pages", place.name, pages * 100.0);
            let all = turns(&fixture, contenders, end, &what).with_context(|| what.clone())?;
            cells.push(cell(place, &fixture, pages, &all)?);
        }
        if let Some(path) = fixture.path() {
            println!("{}", path.report()?);
        }
    }
    Ok(())
}

/// The end of the first of so many equal parts of what is left of the time.
fn first_part(now: Instant, end: Instant, parts: usize) -> Instant {
    now + end.saturating_duration_since(now) / parts as u32
}

/// Turns as long as one more is done before the end.
fn turns(fixture: &Fixture, contenders: &[Contender], end: Instant, what: &str) -> Result<Vec<Trials>> {
    let mut all = Trials::none_of(contenders);
    for turn in 1..=MOST_TURNS {
        let began = Instant::now();
        one_turn(fixture, contenders, false, &mut all)?;
        let last = all.iter().filter_map(|trials| trials.0.last());
        let seconds = |trial: &Trial| format!("{} {:.1} s", trial.contender.name(), trial.to_synced());
        println!("  {what}, turn {turn}: {}", last.map(seconds).collect::<Vec<_>>().join("; "));
        if Instant::now() + began.elapsed() > end {
            break;
        }
    }
    Ok(all)
}

fn cell(place: &Place, fixture: &Fixture, pages: f64, all: &[Trials]) -> Result<CellRecord> {
    let link = place.link.link()?;
    let own = trial::own_choice(all);
    Ok(CellRecord {
        link: place.name,
        link_bytes_per_second: link.map(|link| link.rate),
        link_round_trip_seconds: link.and_then(|link| Some(link.round_trip?.as_secs_f64())),
        data_bytes: page_cache::bytes_on_disk(&page_cache::data_files(&fixture.donor().datadir())?),
        pages_asked: pages,
        pages_differing: fixture.pages()?.differing(),
        methods: all.iter().filter_map(MethodRecord::of).collect(),
        synced_of_best_fixed: own.map(|[synced, _]| synced),
        transfer_of_best_fixed: own.map(|[_, transfer]| transfer),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing;

    #[test]
    fn time_that_one_part_leaves_goes_to_the_others() {
        let now = Instant::now();
        let minutes = |n: u64| now + Duration::from_secs(60 * n);
        assert_eq!(first_part(now, minutes(40), 4), minutes(10));
        assert_eq!(first_part(minutes(4), minutes(40), 3), minutes(16));
        assert_eq!(first_part(minutes(50), minutes(40), 1), minutes(50));
    }

    #[test]
    fn the_grid_has_its_own_sizes_and_links() {
        let parse = testing::options::<Options>;
        let asked = |args: &[&str]| parse(args).map(|options| options.grid.is_asked());
        assert!(!asked(&[]).unwrap() && asked(&["--grid", "--minutes", "5"]).unwrap());
        for refused in [&["--minutes", "5"][..], &["--json", "x"], &["--grid", "--link", "12"]] {
            assert!(asked(refused).is_err(), "{refused:?}");
        }
        let grid = parse(&["--grid"]).unwrap().grid;
        let places = places(&grid.grid_megabytes).unwrap();
        let rates = places.iter().map(|place| place.link.link().unwrap().map(|link| link.rate / 125_000));
        assert_eq!(rates.collect::<Vec<_>>(), [Some(100), Some(1000), Some(10_000), None]);
        assert!(super::places(&[200]).is_err());
    }
}
