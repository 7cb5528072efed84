//! Settings that must match: refused before anything moves, in the same words on both hosts (docs/policy.md).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rejoin_lab::{Cluster, compare, data, process};

#[test]
fn what_does_not_match_is_refused_and_nothing_is_touched() -> Result<()> {
    let cluster = Cluster::builder().build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    data::sysbench_tables(n1, 1, 500)?;
    n2.wipe()?;
    n2.join()?;
    n2.wait_tidy()?;
    n2.stop()?;
    n2.remove_grastate()?;
    let good = std::fs::read_to_string(n2.option_file())?;
    for (line, words) in [
        ("innodb_page_size=8k", "innodb_page_size differs: donor 16384, joiner 8192"),
        ("lower_case_table_names=1", "lower_case_table_names differs: donor 0, joiner 1"),
        (
            "innodb_data_file_path=ibdata1:12M;ibdata2:10M:autoextend",
            "innodb_data_file_path differs: 1 files on the donor, 2 on the joiner",
        ),
        ("innodb_data_file_path=ibdata1:50M", "innodb_data_file_path differs: file 1 is"),
    ] {
        n2.add_options("mysqld", &[line])?;
        let (before, mark) = (n2.files()?, n1.log_mark());
        let log = n2.fail_to_join().context(line)?;
        n1.wait_synced_again(Duration::from_secs(20))?;
        let donor = n1.log_since(mark);
        let said = |log: &str| {
            let line = log.lines().find(|l| l.contains("[ERROR]") && l.contains(words))?;
            line.find(words).map(|at| line[at..].to_owned())
        };
        let joiner_said =
            said(&log).with_context(|| format!("joiner, {line}:\n{}", process::tail(&log, 30)))?;
        let donor_said =
            said(&donor).with_context(|| format!("donor, {line}:\n{}", process::tail(&donor, 30)))?;
        let sentence = |text: &str| text.split(" (").next().unwrap_or_default().trim_end().to_owned();
        assert_eq!(sentence(&joiner_said), sentence(&donor_said), "the same words");
        assert_eq!(n2.files()?, before, "{line}: something was touched");
        ensure!(!donor.contains("held still"), "{line}: the donor's server was stopped for nothing");
        n1.exec(&["UPDATE sbtest.sbtest1 SET k=k+1"])?;
        std::fs::write(n2.option_file(), &good)?;
    }
    // With the settings put right the same node joins.
    n2.join()?;
    compare::assert_equal(n1, n2)
}
