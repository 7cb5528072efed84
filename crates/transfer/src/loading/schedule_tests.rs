use std::collections::BTreeMap;

use proptest::prelude::*;
use protocol::logical::{Rows, SystemTable, VERSION};

use super::*;

#[path = "schedule_again_tests.rs"]
mod again;

const INNODB: &str = "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB DEFAULT CHARSET=latin1";
const MYISAM: &str = "CREATE TABLE `t` (\n  `a` int\n) ENGINE=MyISAM DEFAULT CHARSET=latin1";

/// A table as a donor reads it.
#[derive(Clone, Debug)]
struct Plan {
    /// Parts of its rows, each of which has one row.
    parts: usize,
    innodb: bool,
    /// It is read before the snapshot's definitions are sent.
    early: bool,
    /// The donor says when its rows end.
    said: bool,
}

fn table(name: &str, parts: usize, create: &str) -> Table {
    let prefix = prefix("d", name);
    let parts = (0..parts).map(|part| format!("{prefix}/{part}-0")).collect::<Vec<_>>();
    let rows = Rows { bytes: parts.len() as u64, count: parts.len() as u64, parts, ..Rows::default() };
    Table {
        database: "d".to_owned(),
        name: name.to_owned(),
        create: create.as_bytes().to_vec(),
        content: Content::Rows(rows),
    }
}

/// The table before it is read.
fn unread(table: &Table) -> Table {
    let Content::Rows(rows) = &table.content else { return table.clone() };
    Table { content: Content::Rows(Rows { count: 0, parts: Vec::new(), ..rows.clone() }), ..table.clone() }
}

fn parts_of(table: &Table) -> Vec<String> {
    match &table.content {
        Content::Rows(rows) => rows.parts.clone(),
        _ => Vec::new(),
    }
}

fn contents(tables: Vec<Table>) -> Contents {
    let list = Rows { parts: vec!["list/0".to_owned()], ..Rows::default() };
    let system = vec![SystemTable { name: "plugin".to_owned(), of_program: false, rows: list }];
    Contents { version: VERSION, system, tables, ..Contents::default() }
}

/// A snapshot as the donor sends it: its parts in the order of their numbers, and its last word.
fn snapshot(of: usize, plans: &[Plan]) -> (Vec<Arrived>, Contents) {
    let create = |plan: &Plan| if plan.innodb { INNODB } else { MYISAM };
    let whole = plans.iter().enumerate().map(|(at, plan)| table(&format!("t{at}"), plan.parts, create(plan)));
    let merge = Table { content: Content::Nothing, ..table("merge", 0, MYISAM) };
    let whole: Vec<Table> = whole.chain([merge]).collect();
    let first = whole.iter().enumerate().map(|(at, table)| match plans.get(at) {
        Some(plan) if !plan.early => unread(table),
        _ => table.clone(),
    });
    let rows = |path: String| {
        let staged = PathBuf::from(format!("{of}:{path}"));
        Arrived::Rows(path, staged)
    };
    let mut parts = vec![Arrived::Definitions(Box::new(contents(first.collect()))), rows("list/0".into())];
    for (plan, table) in plans.iter().zip(&whole) {
        parts.extend(parts_of(table).into_iter().map(rows));
        if plan.said && !plan.early {
            parts.push(Arrived::Table(table.clone()));
        }
    }
    (parts, contents(whole))
}

/// What threads have done for one snapshot.
#[derive(Debug, Default)]
struct Done {
    made: BTreeMap<String, usize>,
    loaded: BTreeMap<PathBuf, usize>,
    finished: BTreeMap<String, u64>,
    running: Vec<Step>,
}

impl Done {
    fn begin(&mut self, step: Step) {
        match &step {
            Step::Make(_, table) => {
                assert!(self.made.insert(table.name.clone(), 0).is_none(), "{} is made twice", table.name);
                let others =
                    table.name == "merge" && self.running.iter().any(|step| matches!(step, Step::Make(..)));
                assert!(!others, "a table is made while others that it may name are");
            }
            Step::Load(_, table, parts, _) => {
                assert_eq!(self.made.get(&table.name), Some(&1), "{} is not made yet", table.name);
                assert!(!parts.is_empty());
                for part in parts {
                    assert!(self.loaded.insert(part.clone(), 0).is_none(), "{part:?} is loaded twice");
                }
            }
            Step::Finish(_, table, rows, _) => {
                assert!(self.finished.insert(table.name.clone(), *rows).is_none(), "finished twice");
                let count = parts_of(table).len();
                let mine = |path: &PathBuf| {
                    parts_of(table).iter().any(|part| path.to_string_lossy().ends_with(part))
                };
                let ended = self.loaded.iter().filter(|(path, times)| **times == 1 && mine(path)).count();
                assert_eq!((ended, *rows), (count, count as u64), "{} is not loaded", table.name);
            }
        }
        self.running.push(step);
    }

    fn end(&mut self, at: usize, schedule: &mut Schedule) {
        let step = self.running.swap_remove(at % self.running.len());
        match step {
            Step::Make(at, table) => {
                self.made.insert(table.name.clone(), 1);
                schedule.made(at, vec![b"ADD KEY".to_vec()]);
            }
            Step::Load(at, _, parts, _) => {
                schedule.loaded(at, parts.len(), parts.len() as u64);
                self.loaded.extend(parts.into_iter().map(|part| (part, 1)));
            }
            Step::Finish(at, ..) => schedule.finished(at),
        }
    }
}

fn plan() -> impl Strategy<Value = Plan> {
    (0usize..40, any::<[bool; 3]>()).prop_map(|(parts, [innodb, early, said])| Plan {
        parts,
        innodb,
        early,
        said,
    })
}

proptest! {
    /// Whatever the order in which parts arrive and threads work, and however often the donor begins again: everything of the last
    /// snapshot is loaded once, and nothing else is loaded beside it.
    #[test]
    fn the_last_snapshot_is_loaded_once(
        snapshots in prop::collection::vec(prop::collection::vec(plan(), 0..4), 1..4),
        cut in prop::collection::vec(0usize..60, 4),
        jitter in prop::collection::vec(0usize..30, 1..50),
        choices in prop::collection::vec(0usize..8, 1..200),
        threads in 1usize..5,
    ) {
        let (mut sent, mut first, mut last) = (Vec::new(), 0, Contents::default());
        for (of, plans) in snapshots.iter().enumerate() {
            let (mut parts, contents) = snapshot(of, plans);
            if of + 1 < snapshots.len() {
                // It ends somewhere, because the donor begins again.
                parts.truncate(1 + cut[of]);
            }
            (first, last) = (sent.len(), contents);
            sent.extend(parts);
        }
        let mut sent: Vec<(usize, Arrived)> = sent.into_iter().enumerate().collect();
        sent.sort_by_key(|(number, _)| number + jitter[number % jitter.len()]);
        let (mut schedule, mut done) = (Schedule::new(threads), Done::default());
        // Each of the three things happens again and again.
        let choices = choices.into_iter().chain([0, 3, 6]).cycle();
        let (mut sent, mut choices, mut current) = (sent.into_iter(), choices, None);
        let mut complete = false;
        loop {
            let choice = choices.next().unwrap();
            if schedule.snapshot().map(|(number, _)| number) != current {
                current = schedule.snapshot().map(|(number, _)| number);
                done = Done::default();
            }
            match choice {
                0..=2 if !complete => match sent.next() {
                    Some((number, part)) => schedule.arrived(FileId(number as u32), part).unwrap(),
                    None => {
                        schedule.is_complete(&last, FileId(first as u32)).unwrap();
                        complete = true;
                    }
                },
                3..=5 if done.running.len() < threads => match schedule.next() {
                    Next::Step(step) => done.begin(step),
                    Next::Wait => prop_assert!(!complete || !done.running.is_empty(), "nothing goes on"),
                    Next::Done => break,
                },
                _ if !done.running.is_empty() => done.end(choice, &mut schedule),
                _ => {}
            }
        }
        prop_assert!(complete && done.running.is_empty());
        prop_assert_eq!(current, Some(FileId(first as u32)));
        let of = snapshots.len() - 1;
        let parts = last.tables.iter().flat_map(parts_of);
        let expected: BTreeMap<PathBuf, usize> = parts.map(|part| (format!("{of}:{part}").into(), 1)).collect();
        prop_assert_eq!(schedule.rows(), expected.len() as u64);
        prop_assert_eq!(done.loaded, expected);
        let finished: BTreeMap<String, u64> =
            last.tables.iter().map(|table| (table.name.clone(), parts_of(table).len() as u64)).collect();
        prop_assert_eq!(done.finished, finished);
    }
}

/// A schedule to which these parts have arrived in the order of their numbers.
fn after(parts: Vec<Arrived>) -> Schedule {
    let mut schedule = Schedule::new(2);
    for (number, part) in parts.into_iter().enumerate() {
        schedule.arrived(FileId(number as u32), part).unwrap();
    }
    schedule
}

fn plans(parts: &[usize]) -> Vec<Plan> {
    parts.iter().map(|parts| Plan { parts: *parts, innodb: true, early: false, said: true }).collect()
}

/// What is begun next.
fn next(schedule: &mut Schedule) -> String {
    match schedule.next() {
        Next::Done => "done".to_owned(),
        Next::Wait => "wait".to_owned(),
        Next::Step(Step::Make(at, table)) => {
            schedule.made(at, Vec::new());
            format!("make {}", table.name)
        }
        Next::Step(Step::Load(at, table, parts, _)) => {
            schedule.loaded(at, parts.len(), parts.len() as u64);
            format!("load {} of {}", parts.len(), table.name)
        }
        Next::Step(Step::Finish(at, table, ..)) => {
            schedule.finished(at);
            format!("finish {}", table.name)
        }
    }
}

#[test]
fn what_is_here_is_loaded_and_keys_are_made_before_everything_has_arrived() {
    let (mut parts, last) = snapshot(0, &plans(&[20, 2]));
    let rest = parts.split_off(4);
    let mut schedule = after(parts);
    // Two parts of the first table are here: they are not waited for until there are more.
    let begun: Vec<String> = (0..5).map(|_| next(&mut schedule)).collect();
    assert_eq!(begun, ["make t0", "load 2 of t0", "make t1", "make merge", "finish merge"]);
    assert_eq!(next(&mut schedule), "wait");
    let mut rest = rest.into_iter().enumerate().map(|(at, part)| (FileId(4 + at as u32), part));
    // The other rows of the first table, and the word that these are all.
    for (number, part) in rest.by_ref().take(19) {
        schedule.arrived(number, part).unwrap();
    }
    let begun: Vec<String> = (0..6).map(|_| next(&mut schedule)).collect();
    assert_eq!(
        begun,
        ["load 4 of t0", "load 4 of t0", "load 4 of t0", "load 4 of t0", "load 2 of t0", "finish t0"]
    );
    rest.for_each(|(number, part)| schedule.arrived(number, part).unwrap());
    assert_eq!([next(&mut schedule), next(&mut schedule)], ["load 2 of t1", "finish t1"]);
    // The donor may still begin again.
    assert_eq!(next(&mut schedule), "wait");
    schedule.is_complete(&last, FileId(0)).unwrap();
    assert_eq!(next(&mut schedule), "done");
}

#[test]
fn another_engine_gets_all_its_rows_at_once() {
    let of = |said| Plan { parts: 50, innodb: false, early: false, said };
    for plan in [of(true), of(false), Plan { early: true, ..of(false) }] {
        let (mut parts, last) = snapshot(0, std::slice::from_ref(&plan));
        let behind = parts.split_off(40);
        let mut schedule = after(parts);
        let begun = [next(&mut schedule), next(&mut schedule), next(&mut schedule), next(&mut schedule)];
        assert_eq!(begun, ["make t0", "make merge", "finish merge", "wait"], "{plan:?}");
        for (at, part) in behind.into_iter().enumerate() {
            schedule.arrived(FileId(40 + at as u32), part).unwrap();
        }
        assert_eq!(next(&mut schedule) == "wait", !plan.said && !plan.early, "{plan:?}");
        schedule.is_complete(&last, FileId(0)).unwrap();
    }
}

#[test]
fn a_part_waits_for_those_before_it() {
    let (parts, _) = snapshot(0, &plans(&[3]));
    let mut schedule = Schedule::new(1);
    let mut parts: Vec<_> = parts.into_iter().enumerate().collect();
    let (number, definitions) = parts.remove(0);
    for (number, part) in parts {
        schedule.arrived(FileId(number as u32), part).unwrap();
    }
    assert_eq!(next(&mut schedule), "wait");
    assert!(schedule.snapshot().is_none() && schedule.system(&["list/0".to_owned()]).is_none());
    schedule.arrived(FileId(number as u32), definitions).unwrap();
    assert_eq!(schedule.system(&["list/0".to_owned()]), Some(vec![PathBuf::from("0:list/0")]));
    assert_eq!([next(&mut schedule), next(&mut schedule)], ["make t0", "load 3 of t0"]);
}

#[test]
fn a_donor_that_describes_nothing_beforehand_is_loaded_at_the_end() {
    let (parts, last) = snapshot(0, &plans(&[3]));
    let rows = parts.into_iter().filter(|part| matches!(part, Arrived::Rows(..)));
    let mut schedule = after(rows.collect());
    assert_eq!(next(&mut schedule), "wait");
    schedule.is_complete(&last, FileId(0)).unwrap();
    let begun: Vec<String> = (0..6).map(|_| next(&mut schedule)).collect();
    assert_eq!(begun, ["make t0", "load 3 of t0", "finish t0", "make merge", "finish merge", "done"]);
}

#[test]
fn a_table_may_turn_out_to_have_no_tablespace() {
    let (parts, mut last) = snapshot(0, &[Plan { parts: 0, innodb: true, early: false, said: false }]);
    last.tables[0].content = Content::Discarded;
    let mut schedule = after(parts);
    schedule.is_complete(&last, FileId(0)).unwrap();
    while let Next::Step(step) = schedule.next() {
        match step {
            Step::Make(at, table) => {
                assert_eq!(table.content, last.tables[usize::from(table.name == "merge")].content);
                schedule.made(at, Vec::new());
            }
            Step::Finish(at, ..) => schedule.finished(at),
            Step::Load(..) => panic!("rows of nothing"),
        }
    }
    assert_eq!(next(&mut schedule), "done");
}

#[test]
fn contradictions_are_refused() {
    let sent = || snapshot(0, &plans(&[3, 2]));
    let refused = |parts: Vec<Arrived>, last: &Contents, first: u32| {
        let mut schedule = Schedule::new(2);
        let mut parts = parts.into_iter().enumerate();
        let arrived = parts.try_for_each(|(number, part)| schedule.arrived(FileId(number as u32), part));
        arrived.and_then(|()| schedule.is_complete(last, FileId(first))).unwrap_err().text
    };
    let (mut parts, last) = sent();
    parts.remove(3);
    let why = refused(parts, &last, 0);
    assert!(why.contains("never sent the part") && why.contains("d.t0"), "{why}");
    let (mut parts, last) = sent();
    parts.remove(1);
    assert!(refused(parts, &last, 0).contains("never sent the part \"list/0\""));
    let (parts, last) = sent();
    assert!(refused(parts, &last, 1).contains("earlier snapshot"));
    let (parts, mut last) = sent();
    last.tables[0].create = MYISAM.as_bytes().to_vec();
    assert!(refused(parts, &last, 0).contains("described d.t0 in two ways"));
    let (parts, mut last) = sent();
    last.tables.swap_remove(0);
    assert!(refused(parts, &last, 0).contains("before its rows"));
    let (parts, mut last) = sent();
    last.tables[0] = last.tables[1].clone();
    assert!(refused(parts, &last, 0).contains("described d.t1 twice"));
    let (mut parts, last) = sent();
    parts.push(Arrived::Rows(format!("{}/9-0", prefix("d", "t1")), PathBuf::from("x")));
    assert!(refused(parts, &last, 0).contains("after the last ones"));
    let (mut parts, last) = sent();
    parts.push(Arrived::Rows("list/0".to_owned(), PathBuf::from("x")));
    assert!(refused(parts, &last, 0).contains("two parts"));
    let mut schedule = after(sent().0);
    let again = schedule.arrived(FileId(2), Arrived::Rows("list/1".to_owned(), PathBuf::from("x")));
    assert!(again.unwrap_err().text.contains("part number 2 twice"));
}
