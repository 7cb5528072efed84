//! The cases in which a transfer is as fast as it can be.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use rejoin_lab::{Node, data, sql};

use super::fixture::{Fixture, builder};
use super::measured::Measured;
use super::{Case, Options, Series};

/// Of the case `tables`.
const MANY: &str = "many";
/// Megabytes of its redo log: that of a server on which nothing is set.
const TABLES_LOG: u64 = 96;
/// One table in so many has redo since the checkpoint.
const TOUCHED: u32 = 3;
/// One table in so many is written to while the joiner is away.
const WRITTEN: u32 = 100;
/// Rows of sysbench in a page of 16 KiB, about.
const ROWS_A_PAGE: u32 = 70;
/// Bytes a second of a link of 1 Gbit/s.
const GIGABIT: u64 = 125_000_000;

/// Few tables: three rows were changed while the joiner was away; then an empty joiner, under load.
pub fn few(options: &Options, series: Series, cases: &[Case], all: &mut Vec<Measured>) -> Result<()> {
    for &megabytes in &options.megabytes {
        let cluster = builder(options, series, options.log)?.build()?;
        let fixture = Fixture::make(options, series, cluster, megabytes, true)?;
        if cases.contains(&Case::Rows) {
            rows(options, &fixture, megabytes, all)?;
        }
        if cases.contains(&Case::Full) {
            full(options, &fixture, megabytes, all)?;
        }
    }
    Ok(())
}

fn rows(options: &Options, fixture: &Fixture<'_>, megabytes: u64, all: &mut Vec<Measured>) -> Result<()> {
    fixture.joiner().wipe()?;
    for (n, method) in fixture.methods().into_iter().enumerate() {
        fixture.make_redo(options.redo)?;
        fixture.give_copy()?;
        fixture.donor().exec(&[&format!(
            "UPDATE sbtest.sbtest1 SET c = 'changed' WHERE id BETWEEN {n}00 + 1 AND {n}00 + 3"
        )])?;
        all.push(fixture.measure(&format!("{megabytes} MB, three rows"), method, None)?);
    }
    Ok(())
}

fn full(options: &Options, fixture: &Fixture<'_>, megabytes: u64, all: &mut Vec<Measured>) -> Result<()> {
    for method in fixture.methods() {
        fixture.make_redo(options.redo)?;
        fixture.joiner().wipe()?;
        let load = fixture.load(2, Duration::from_millis(2))?;
        all.push(fixture.measure(&format!("{megabytes} MB, empty, under load"), method, Some(load))?);
    }
    Ok(())
}

/// Very many tables.
pub fn tables(options: &Options, series: Series, all: &mut Vec<Measured>) -> Result<()> {
    let builder = builder(options, series, TABLES_LOG)?;
    let builder = ["table_open_cache=2000", "table_definition_cache=2000", "open_files_limit=16384"]
        .iter()
        .chain(&["innodb_open_files=2000", "sync_frm=OFF", "innodb_stats_persistent=OFF"])
        .fold(builder, |builder, line| builder.mysqld(line));
    let fixture = Fixture::make(options, series, builder.build()?, 10, false)?;
    data::small_tables(fixture.donor(), MANY, options.tables)?;
    let tables = options.tables;
    for method in fixture.methods() {
        fixture.joiner().move_data_aside()?;
        // What was made, or written for the method before, is on the disk for each of them.
        fixture.donor().checkpoint()?;
        write_to(fixture.donor(), tables, TOUCHED)?;
        all.push(fixture.measure(&format!("{tables} tables, empty"), method, None)?);
        write_to(fixture.donor(), tables, TOUCHED)?;
        thread::sleep(Duration::from_secs(options.age));
        fixture.give_copy()?;
        write_to(fixture.donor(), tables, WRITTEN)?;
        all.push(fixture.measure(&format!("{tables} tables, one in {WRITTEN} written"), method, None)?);
    }
    Ok(())
}

/// Writes a row to one table in `each`, on this node alone.
fn write_to(node: &Node, tables: u32, each: u32) -> Result<()> {
    let mut conn = node.connect()?;
    sql::exec(&mut conn, "SET SESSION wsrep_on=OFF")?;
    (0..tables).step_by(each as usize).try_for_each(|n| {
        sql::exec(
            &mut conn,
            &format!("INSERT INTO {MANY}.t{n} SELECT COALESCE(MAX(id), 0) + 1, 'x' FROM {MANY}.t{n}"),
        )
    })
}

/// A part of all pages differs, at 1 Gbit/s.
pub fn link(options: &Options, series: Series, all: &mut Vec<Measured>) -> Result<()> {
    let cluster = builder(options, series, options.log)?.transfer_network().build()?;
    let fixture = Fixture::make(options, series, cluster, options.link_megabytes, false)?;
    fixture.joiner().wipe()?;
    for (n, method) in fixture.methods().into_iter().enumerate() {
        fixture.make_redo(options.redo)?;
        fixture.donor().shape_transfers(GIGABIT * 100)?;
        fixture.give_copy()?;
        change_pages(fixture.donor(), options.differing, n as u32)?;
        [fixture.donor(), fixture.joiner()].iter().try_for_each(|node| node.shape_transfers(GIGABIT))?;
        let case =
            format!("{} MB, {} % of pages differ, 1 Gbit/s", options.link_megabytes, options.differing);
        all.push(fixture.measure(&case, method, None)?);
    }
    Ok(())
}

/// Changes one row in each of so many percent of the pages.
fn change_pages(node: &Node, percent: u32, offset: u32) -> Result<()> {
    let mut conn = node.connect()?;
    for table in 1..=super::fixture::TABLES {
        let change = format!(
            "UPDATE sbtest.sbtest{table} SET c = REVERSE(c) WHERE id % {ROWS_A_PAGE} = {offset} AND id DIV {ROWS_A_PAGE} % 100 < {percent}"
        );
        sql::exec(&mut conn, &change)?;
    }
    Ok(())
}
