//! Records of several shapes, as both hosts of a transfer leave them.
use report::record::{
    Attempt, Bytes, Method, OK, Pause, Peer, Phase, Plan, Positions, Record, SCHEMA, Sample, Settings, Table,
};

pub const MIB: u64 = 1 << 20;
/// Names that would be markup.
pub const HOSTILE: &str = "shop.<script>alert(1)</script>";
pub const HOSTILE_REASON: &str = "<img src=x onerror=alert(1)> \"quoted\" & 'so on'";
/// By how much the donor's clock is behind.
pub const SKEW_MS: u64 = 3200;

/// A transfer in numbers: when it began, and how long the phases of its joiner took.
pub struct Shape {
    pub number: u64,
    pub connect_ms: u64,
    pub move_ms: u64,
    pub store_ms: u64,
    pub install_ms: u64,
    pub sent: u64,
    pub full: bool,
    pub wait: Option<(&'static str, u64)>,
    pub failure: Option<&'static str>,
}

pub const PLAIN: Shape = Shape {
    number: 1,
    connect_ms: 600,
    move_ms: 2400,
    store_ms: 500,
    install_ms: 300,
    sent: 61 * MIB,
    full: false,
    wait: None,
    failure: None,
};

const TOTAL: u64 = 1210 * MIB;

impl Shape {
    fn began_ms(&self) -> u64 {
        1_790_000_000_000 + self.number * 3_600_000
    }

    /// The joiner's record.
    pub fn joiner(&self) -> Record {
        let mut record = self.common("joiner", "n2", "n1");
        let mut phases = vec![
            ("starting", 40),
            ("waiting for the donor", self.connect_ms / 2),
            ("checking settings and free space", 30),
            ("waiting for the donor to begin", self.connect_ms / 2),
            ("receiving", self.move_ms),
        ];
        match self.failure {
            None => phases.extend([
                ("copying unchanged bytes", self.store_ms / 3),
                ("verifying the staged files", self.store_ms / 3 * 2),
                ("installing", self.install_ms),
                ("done", 1),
            ]),
            Some(_) => phases.push(("failed; waiting up to 24.5 s for the group to expel the donor", 2500)),
        }
        if let Some(reason) = self.failure {
            record.outcome = Some(format!("the donor gave up: {reason}"));
        }
        put(&mut record, &phases, 0);
        if let Some(plan) = &mut record.plan {
            (plan.sent_in_parts, plan.sampled_blocks, plan.redo) = (None, None, None);
        }
        record
    }

    /// The donor's record. Its clock is behind.
    pub fn donor(&self) -> Record {
        let mut record = self.common("donor", "n1", "n2");
        let phases = [
            ("starting", 20),
            ("contacting the joiner", 60),
            ("listing files", self.connect_ms / 2),
            ("sending", self.move_ms),
            ("waiting for the joiner to store everything", self.store_ms),
        ];
        let phases = if self.failure.is_some() { &phases[..4] } else { &phases[..] };
        put(&mut record, phases, self.connect_ms / 2);
        let ended_ms = self.began_ms() + self.connect_ms + self.move_ms - 100;
        record.pauses = vec![Pause { what: "replication".into(), ended_ms, took_us: 18_830 }];
        record.redo_rounds = Some(1);
        let back = |ms: &mut u64| *ms -= SKEW_MS;
        [&mut record.began_ms, &mut record.written_ms].into_iter().for_each(back);
        [&mut record.ended_ms, &mut record.connected_ms].into_iter().flatten().for_each(back);
        record.phases.iter_mut().chain(&mut record.waits).for_each(|phase| {
            back(&mut phase.began_ms);
            back(&mut phase.ended_ms);
        });
        record.pauses.iter_mut().for_each(|pause| back(&mut pause.ended_ms));
        record
    }

    fn common(&self, role: &str, node: &str, peer: &str) -> Record {
        let had = TOTAL - self.sent - 20 * MIB;
        let reused = if self.full { 0 } else { had / 10 * 9 };
        let sent = if self.full { TOTAL - 20 * MIB } else { self.sent };
        let words = match self.full {
            true => {
                "plan: full, 1.2 GiB to send: none of 96 sampled blocks matches; redo: 3.1 MiB to send, recovery in about 1 s"
            }
            false => {
                "plan: incremental, about 70.0 MiB of 1.2 GiB to send, at most 48.0 MiB where parts of pages are sent (90 of 96 \
                 sampled blocks match); redo: 3.1 MiB to send, recovery in about 1 s"
            }
        };
        let plan = Plan {
            words: words.to_owned(),
            full: self.full,
            total: TOTAL,
            sent: Some(if self.full { TOTAL } else { 70 * MIB }),
            sent_in_parts: (!self.full).then_some(48 * MIB),
            sent_at_least: (!self.full).then_some(40 * MIB),
            sampled_blocks: Some(96),
            equal_blocks: Some(if self.full { 0 } else { 90 }),
            redo: Some(3 * MIB),
            redo_rounds: Some(0),
            recovery_ms: Some(900),
            ..Plan::default()
        };
        let rebuilt = if self.full { 0 } else { had - reused };
        Record {
            schema: SCHEMA,
            program: "rejoin 0.1.0".to_owned(),
            id: Some(format!("{:032x}", self.number)),
            role: role.to_owned(),
            node: node.to_owned(),
            peer: Some(Peer {
                name: Some(peer.to_owned()).filter(|_| role == "joiner"),
                address: "10.0.0.7:4444".to_owned(),
                program: "rejoin 0.1.0".to_owned(),
            }),
            outcome: Some(self.failure.unwrap_or(OK).to_owned()),
            method: Some(Method::Files),
            attempts: vec![Attempt { snapshot: "online".into(), ..Attempt::default() }],
            position: Positions {
                before: Some("2f0eaefd-0000-11f0-a0a0-000000000000:3100".to_owned())
                    .filter(|_| role == "joiner"),
                after: Some("2f0eaefd-0000-11f0-a0a0-000000000000:3408".to_owned()),
            },
            plan: Some(plan),
            bytes: Bytes {
                total: TOTAL,
                sent,
                reused,
                rebuilt,
                zero: 20 * MIB,
                redo: 3 * MIB,
                network: sent / 2 + MIB,
                write_sets: 0,
                read: TOTAL,
                remembered: 0,
            },
            tables: tables(sent, reused, rebuilt),
            other_tables: Some(Table { name: "(all other tables)".into(), reused: MIB, ..Table::default() }),
            settings: Settings { threads: 4, rlimit: None, incremental: true },
            ..Record::default()
        }
    }
}

/// Puts phases on the record one after another, and the samples to them.
fn put(record: &mut Record, phases: &[(&str, u64)], after_ms: u64) {
    let number = u64::from_str_radix(record.id.as_deref().unwrap_or("0"), 16).unwrap();
    let shape = shape(number);
    record.began_ms = shape.began_ms() + after_ms;
    record.connected_ms = Some(shape.began_ms() + shape.connect_ms / 2 + 90);
    let mut at = record.began_ms;
    for (name, ms) in phases {
        record.phases.push(Phase { name: (*name).to_owned(), began_ms: at, ended_ms: at + ms });
        if let Some((wait, ms)) = shape.wait.filter(|_| ["sending", "receiving"].contains(name)) {
            record.waits.push(Phase { name: wait.to_owned(), began_ms: at + 2000, ended_ms: at + 2000 + ms });
        }
        at += ms;
    }
    (record.ended_ms, record.written_ms) = (Some(at), at);
    samples(record, shape.wait.map_or(0, |(_, ms)| ms));
}

fn samples(record: &mut Record, wait_ms: u64) {
    let moving =
        record.phases.iter().find(|phase| ["sending", "receiving"].contains(&phase.name.as_str())).unwrap();
    let (from, took) = (moving.began_ms - record.began_ms, moving.ms());
    let step = (record.ms() / 400).max(100);
    for ms in (0..record.ms()).step_by(step as usize) {
        // Nothing moves while it waits, and the speed varies a little.
        let (since, busy) = (ms.saturating_sub(from), (took - wait_ms).max(1));
        let since = since.min(2000) + since.saturating_sub(2000 + wait_ms);
        let share = (since as f64 / busy as f64).min(1.0);
        let wave = share + 0.03 * (share * 37.0).sin() * share * (1.0 - share);
        let of = |bytes: u64| (bytes as f64 * wave) as u64;
        record.samples.push(Sample { ms, network: of(record.bytes.network), done: of(record.bytes.total) });
    }
}

fn tables(sent: u64, reused: u64, rebuilt: u64) -> Vec<Table> {
    let names = [
        "shop.orders",
        "shop.order_items",
        HOSTILE,
        "shop.customers",
        "sbtest.sbtest1",
        "sbtest.sbtest2",
        "(system tablespace)",
        "(undo tablespaces)",
        "crm.a_table_with_a_name_that_goes_on_for_sixty_four_characters_or_so",
        "crm.notes",
        "mysql.innodb_index_stats",
        "shop.carts",
        "shop.sessions",
        "shop.audit",
        "mysql.gtid_slave_pos",
        "mysql.user",
    ];
    let part = |bytes: u64, at: usize| bytes >> (at + 1).min(40);
    let of = |(at, name): (usize, &&str)| Table {
        name: (*name).to_owned(),
        // What is sent is not spread as the rest is.
        sent: part(sent, (at + 2) % names.len()),
        reused: part(reused, at),
        rebuilt: part(rebuilt, at),
        zero: part(20 * MIB, at),
    };
    names.iter().enumerate().map(of).collect()
}

/// The transfers of the test, by number.
pub fn shape(number: u64) -> Shape {
    let holder = "waiting for the consistency point: session 41 (app@10.0.0.9, idle for 31 s) holds a lock on shop.orders";
    match number {
        2 => Shape { number, move_ms: 21_000, sent: TOTAL - 20 * MIB, full: true, store_ms: 2600, ..PLAIN },
        3 => Shape { number, move_ms: 33_900, wait: Some((holder, 31_400)), ..PLAIN },
        4 => Shape { number, move_ms: 1700, failure: Some(HOSTILE_REASON), ..PLAIN },
        _ => Shape { number, ..PLAIN },
    }
}

/// A node to which IST was enough, and one whose program was killed.
pub fn others() -> [Record; 2] {
    let mut ist = shape(5).joiner();
    (ist.method, ist.plan, ist.attempts) = (Some(Method::Ist), None, Vec::new());
    (ist.bytes, ist.tables, ist.other_tables, ist.samples) = Default::default();
    ist.phases.truncate(2);
    let end = ist.phases[1].ended_ms;
    (ist.ended_ms, ist.written_ms) = (Some(end), end);
    let mut killed = shape(6).joiner();
    killed.phases.truncate(5);
    (killed.outcome, killed.ended_ms, killed.written_ms) = (None, None, killed.phases[4].ended_ms);
    [ist, killed]
}
