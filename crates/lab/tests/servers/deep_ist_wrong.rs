//! What deep IST's comparison is worth: an archive that is sound by all its checksums and says something else than what
//! happened makes a node that differs, and that is seen.
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use formats::Seqno;
use formats::archive::{BlockKind, push_entry};
use formats::galera::gcache::Action;
use mysql::Conn;
use rejoin_lab::outage::{Outage, builder};
use rejoin_lab::{compare, sql};
use transfer::writesets::archive::{Archive, Block, Writer};
use transfer::writesets::store::{StoredAction, WriteSetStore};

/// Rows that both nodes write to once, at the same time, and nobody ever again.
const CONTESTED: u32 = 400;
const TABLE: &str = "contested";

/// Both nodes set each row in the same moment: one of the two fails certification, as a rule.
fn contest(outage: &Outage) -> Result<()> {
    let together = Barrier::new(2);
    let set = |mut conn: Conn| {
        for row in 1..=CONTESTED {
            together.wait();
            // That of the other one may be first.
            let update = format!("UPDATE sbtest.{TABLE} SET who=@@wsrep_node_name WHERE id={row}");
            let _ = sql::exec(&mut conn, &update);
        }
    };
    let (first, second) = (outage.cluster.node(1).connect()?, outage.cluster.node(2).connect()?);
    std::thread::scope(|scope| {
        scope.spawn(|| set(second));
        set(first);
    });
    Ok(())
}

/// All that an archive holds from a seqno on.
fn actions(dir: &Path, from: i64) -> Result<Vec<StoredAction>> {
    let archive = Archive::open(dir)?;
    let (_, last) = archive.range().context("an empty archive")?;
    let mut all = Vec::new();
    archive.read(Seqno(from), last, &mut |action| {
        all.push(action);
        Ok(true)
    })?;
    Ok(all)
}

/// Whether a write-set is one of the contest.
fn is_contested(action: &StoredAction) -> bool {
    action.action == Action::WriteSet
        && action.bytes.windows(TABLE.len()).any(|bytes| bytes == TABLE.as_bytes())
}

/// An archive of these, owned as the directory beside it.
fn write(dir: PathBuf, history: formats::Uuid, actions: &[StoredAction]) -> Result<PathBuf> {
    fs::create_dir(&dir)?;
    let mut writer = Writer::open(&dir)?;
    for some in actions.chunks(100) {
        let (Some(first), Some(last)) = (some.first(), some.last()) else { break };
        let mut body = Vec::new();
        some.iter().for_each(|a| push_entry(&mut body, a.action, a.skipped, &a.bytes));
        let (first, last) = (first.seqno, last.seqno);
        writer.append(&Block { history, kind: BlockKind::Actions, first, last, body })?;
    }
    writer.close()?;
    for entry in fs::read_dir(&dir)? {
        fs::set_permissions(entry?.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    }
    fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(dir)
}

/// The third node returns by the archive in `dir`. What is wrong with it then, if anything is.
fn returns_by(outage: &Outage, dir: &Path) -> Result<Option<String>> {
    let (n1, n3) = (outage.cluster.node(1), outage.cluster.node(3));
    // The last one counts.
    n1.add_options("sst", &[&format!("archive={}", dir.display())])?;
    let mark = n1.log_mark();
    n3.begin(&[])?;
    let joined = n3.wait_synced(Duration::from_secs(90));
    outage.came_by_write_sets(n3, mark)?;
    match joined {
        Err(error) => Ok(Some(format!("{error:#}"))),
        Ok(_) => Ok(compare::assert_equal(n1, n3).err().map(|error| format!("{error:#}"))),
    }
}

/// The group does not notice, and no object shows it.
#[test]
fn ddl_that_failed_on_one_node_alone_is_seen() -> Result<()> {
    let mut outage = Outage::begin(builder(1).build()?)?;
    let (n1, n3) = (outage.cluster.node(1), outage.cluster.node(3));
    n3.join()?;
    let create = "CREATE OR REPLACE TABLE storm.alone (a INT PRIMARY KEY)";
    // One that fails on all.
    n1.exec(&[create])?;
    n1.exec(&["RENAME TABLE storm.alone TO storm.part0"]).expect_err("storm.part0 is there");
    outage.every_object_is_equal()?;
    ensure!(outage.all_are_equal()? > 0, "no failed DDL was seen");

    n3.exec(&["SET SESSION wsrep_on=OFF", "DROP TABLE storm.alone"])?;
    n1.exec(&["ALTER TABLE storm.alone COMMENT='there'", create])?;
    outage.every_object_is_equal()?;
    let wrong = format!("{:#}", outage.all_are_equal().expect_err("nobody saw it"));
    let says = "n1 and n3: DDL failed on some nodes only: of 1 and 2 statements that failed, number 1 from the last one";
    ensure!(wrong.contains(says) && wrong.contains("'storm.alone' doesn't exist"), "{wrong}");
    outage.stop_archiver()
}

#[test]
fn a_flipped_verdict_and_a_lost_write_set_are_seen() -> Result<()> {
    let mut outage = Outage::begin(builder(1).build()?)?;
    let n1 = outage.cluster.node(1);
    n1.exec(&[
        &format!("CREATE TABLE sbtest.{TABLE} (id INT PRIMARY KEY, who VARCHAR(20))"),
        &format!("INSERT INTO sbtest.{TABLE} SELECT seq, 'nobody' FROM sbtest.seq_1_to_{CONTESTED}"),
    ])?;
    // The third node has the table.
    outage.away()[0].join()?;
    outage.goes_on()?;
    contest(&outage)?;
    outage.write_beyond(None, || Ok(()))?;
    outage.wait_archived()?;
    let own = outage.archive();
    let n3 = &outage.away()[0];
    let before = n3.snapshot("before")?;

    let history = Archive::open(&own)?.history();
    let mut all = actions(&own, outage.position + 1)?;
    // All of them: one alone may be applied beside the one that it lost to, and before it.
    let refused = |action: &StoredAction| is_contested(action) && action.skipped;
    let flipped: Vec<usize> = (0..all.len()).filter(|at| refused(&all[*at])).collect();
    ensure!(!flipped.is_empty(), "no write-set of the contest failed certification");
    flipped.iter().for_each(|at| all[*at].skipped = false);
    let archive = write(own.with_file_name("flipped"), history, &all)?;
    let wrong = returns_by(&outage, &archive)?.context("a flipped verdict was not seen")?;
    ensure!(wrong.contains(TABLE) || wrong.contains("Inconsisten"), "{wrong}");
    flipped.iter().for_each(|at| all[*at].skipped = true);

    outage.away()[0].kill();
    outage.away()[0].restore(&before)?;
    let lost = all.iter().rposition(|action| is_contested(action) && !action.skipped);
    let lost = lost.context("no write-set of the contest was applied")?;
    all[lost].skipped = true;
    let archive = write(own.with_file_name("lost"), history, &all)?;
    let wrong = returns_by(&outage, &archive)?.context("a lost write-set was not seen")?;
    ensure!(wrong.contains(TABLE), "{wrong}");
    all[lost].skipped = false;

    // The same without either: the rewritten archive is not what made them differ.
    outage.away()[0].kill();
    outage.away()[0].restore(&before)?;
    let archive = write(own.with_file_name("honest"), history, &all)?;
    let began = Instant::now();
    let wrong = returns_by(&outage, &archive)?;
    ensure!(wrong.is_none(), "{wrong:?} after {:?}", began.elapsed());
    outage.stop_archiver()
}
