//! What is inside the pages travels as it is: sizes, formats, holes, ciphertext.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, ensure};
use rejoin_lab::{Cluster, Node, compare, sample_schema, sst};

#[test]
fn large_pages() -> Result<()> {
    for size in ["32k", "64k"] {
        let builder = Cluster::builder().mysqld(&format!("innodb_page_size={size}"));
        let cluster = builder.mysqld("innodb_strict_mode=OFF").build()?;
        arrives(&cluster, size)?;
    }
    Ok(())
}

#[test]
fn everything_encrypted() -> Result<()> {
    let cluster =
        Cluster::builder().mysqld("innodb_page_size=8k").mysqld("innodb_strict_mode=OFF").build()?;
    let keys = cluster.dir().join("keys.txt");
    fs::write(&keys, "1;770A8A65DA156D24EE2A093277530142\n2;770A8A65DA156D24EE2A093277530143\n")?;
    for node in cluster.nodes() {
        let filename = format!("file_key_management_filename={}", keys.display());
        node.add_options(
            "mysqld",
            &[
                "plugin_load_add=file_key_management",
                &filename,
                "innodb_encrypt_tables=ON",
                "innodb_encrypt_log=ON",
                "innodb_encryption_threads=2",
                "aria_encrypt_tables=ON",
                "encrypt_binlog=ON",
                "log_bin=secret",
                "log_slave_updates=ON",
            ],
        )?;
    }
    arrives(&cluster, "8k, encrypted")?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    // Last came the blocking snapshot, which cannot read the state from an encrypted file.
    for log in [n1.log_text(), n2.log_since_start()] {
        ensure!(
            log.contains("GTID state") && log.contains("encrypted"),
            "both must say that the state stays:\n{log}"
        );
    }
    for node in [n1, n2] {
        let plain = "SELECT COUNT(*) FROM information_schema.INNODB_TABLESPACES_ENCRYPTION WHERE NAME='zoo/secret' AND CURRENT_KEY_ID=2";
        assert_eq!(node.value(plain)?, "1");
    }
    Ok(())
}

/// The zoo and a page-compressed table on the first node; the second joins with nothing, from either snapshot.
fn arrives(cluster: &Cluster, what: &str) -> Result<()> {
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    sample_schema::create(n1)?;
    let key = if what.contains("encrypted") { "ENCRYPTED=YES ENCRYPTION_KEY_ID=2" } else { "" };
    n1.exec(&[
        "USE zoo",
        &format!("CREATE TABLE zoo.secret (a INT PRIMARY KEY, b TEXT) ENGINE=InnoDB {key}"),
        "INSERT INTO zoo.secret SELECT seq, REPEAT('secret ', 100) FROM seq_1_to_1000",
        "CREATE TABLE zoo.holes (a INT PRIMARY KEY, b TEXT) ENGINE=InnoDB PAGE_COMPRESSED=1",
        "INSERT INTO zoo.holes SELECT seq, REPEAT('compressible ', 150) FROM seq_1_to_8000",
        // Pages that only the redo holds have no holes yet, on either node.
        "FLUSH TABLES zoo.holes FOR EXPORT",
        "UNLOCK TABLES",
    ])?;
    for snapshot in ["online", "blocking"] {
        n1.add_options("sst", &[&format!("snapshot={snapshot}")])?;
        if n2.is_alive() {
            n2.stop()?;
        }
        n2.wipe()?;
        n2.join().with_context(|| format!("{what}, {snapshot}"))?;
        compare::assert_equal(n1, n2)?;
        sst::assert_not_behind(n1, n2)?;
        sst::assert_snapshot(n2, snapshot)?;
        assert_eq!(n2.unexpected_errors(&[]), Vec::<String>::new(), "{what}, {snapshot}");
        let ((length, given), (_, arrived)) = (room(n1)?, room(n2)?);
        ensure!(given < length * 7 / 10, "{what}: the donor's file has no holes: {given} of {length} bytes");
        ensure!(arrived <= given + (64 << 10), "{what}: holes were filled: {given} bytes became {arrived}");
        n2.wait_tidy()?;
    }
    Ok(())
}

/// Length and allocated bytes of the page-compressed table.
fn room(node: &Node) -> Result<(u64, u64)> {
    let meta = node.datadir().join("zoo/holes.ibd").metadata()?;
    Ok((meta.len(), meta.blocks() * 512))
}
