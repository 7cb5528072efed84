//! Settings that must match: refused before anything moves, in the same words on both hosts (docs/policy.md).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rejoin_lab::{Cluster, compare, data, process};

#[test]
fn what_does_not_match_is_refused_and_nothing_is_touched() -> Result<()> {
    // With snapshot=auto rows would come where files cannot (tests/logical.rs).
    let cluster = Cluster::builder().sst_of(1, "snapshot=online").build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    // The donor has keys, but nothing is encrypted yet: that is no reason to refuse a joiner.
    let keys = cluster.dir().join("keys.txt");
    std::fs::write(&keys, "1;770A8A65DA156D24EE2A093277530142\n")?;
    let filename = format!("file_key_management_filename={}", keys.display());
    let plugin = ["plugin_load_add=file_key_management", &filename];
    n1.add_options("mysqld", &plugin)?;
    n1.bootstrap()?;
    data::sysbench_tables(n1, 1, 500)?;
    n2.wipe()?;
    n2.join()?;
    n2.wait_tidy()?;
    n2.stop()?;
    n2.remove_grastate()?;
    let aria = [
        "SET GLOBAL aria_encrypt_tables=ON",
        "CREATE TABLE sbtest.hidden (a INT) ENGINE=Aria",
        "SET GLOBAL aria_encrypt_tables=OFF",
    ];
    let innodb = [
        "DROP TABLE sbtest.hidden",
        "CREATE TABLE sbtest.secret (a INT PRIMARY KEY) ENCRYPTED=YES",
        "INSERT INTO sbtest.secret VALUES (1)",
    ];
    let good = std::fs::read_to_string(n2.option_file())?;
    for (line, words) in [
        (
            "# no plugin for Aria",
            "the donor has encrypted data (sbtest/hidden.MAI) and the joiner's options load no key management",
        ),
        (
            "# no plugin",
            "the donor has encrypted data (sbtest/secret.ibd) and the joiner's options load no key management",
        ),
        ("innodb_page_size=8k", "innodb_page_size differs: donor 16384, joiner 8192"),
        ("lower_case_table_names=1", "lower_case_table_names differs: donor 0, joiner 1"),
        (
            "innodb_data_file_path=ibdata1:12M;ibdata2:10M:autoextend",
            "innodb_data_file_path differs: 1 files on the donor, 2 on the joiner",
        ),
        ("innodb_data_file_path=ibdata1:50M", "innodb_data_file_path differs: file 1 is"),
        // An option of 13.0, which the servers here ignore.
        ("loose_innodb_log_archive=ON", "innodb_log_archive=ON on the joiner"),
    ] {
        match line {
            "# no plugin for Aria" => n1.exec(&aria)?,
            "# no plugin" => n1.exec(&innodb)?,
            _ => (),
        }
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
        ensure!(!donor.contains("blocked writes for"), "{line}: the donor's server was stopped for nothing");
        n1.exec(&["UPDATE sbtest.sbtest1 SET k=k+1"])?;
        std::fs::write(n2.option_file(), &good)?;
    }
    // With the settings put right the same node joins.
    n2.add_options("mysqld", &plugin)?;
    n2.join()?;
    compare::assert_equal(n1, n2)
}
