//! A panic in a thread that only this kind of transfer has: it ends at once, both hosts say so, and nothing is held afterwards. For
//! other threads: `faults/panics.rs`.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rejoin_lab::{Cluster, data};

use super::fixture::{Failure, PASSWORD, builder, fails_and_keeps_its_data, let_in, stand_alone};

/// The server runs the program up to three times, which panics each time; then both servers do their part, and one starts again.
const ENDS_WITHIN: Duration = Duration::from_secs(40);

/// From now on the server runs a program that panics (`transfer::threads::Thread::panic_on_purpose`).
fn panics_in(cluster: &Cluster, thread: &str) -> Result<()> {
    let program = cluster.program_dir().join("wsrep_sst_mysqldump");
    fs::remove_file(&program)?;
    let rejoin = cluster.program_dir().join("rejoin");
    let script = format!(
        "#!/bin/bash\nexport REJOIN_PANIC_IN='{thread}'\nexec -a wsrep_sst_mysqldump '{}' \"$@\"\n",
        rejoin.display()
    );
    fs::write(&program, script)?;
    Ok(fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?)
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "only a debug build panics on purpose")]
fn a_panic_beside_the_joiners_server_ends_the_transfer() -> Result<()> {
    let cluster = builder().build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    let_in(n1, PASSWORD, "ALL PRIVILEGES")?;
    data::sysbench_tables(n1, 2, 2000)?;
    n1.exec(&["CREATE TABLE sbtest.plain (a INT PRIMARY KEY) ENGINE=MyISAM"])?;
    stand_alone(n2)?;
    let_in(n2, PASSWORD, "ALL PRIVILEGES")?;
    for (thread, name, is_reported) in [
        ("sql listener", "sql listener", false),
        ("sql connection", "sql connection", false),
        // The second connection is made when tables are locked and databases have been made for what comes; later ones work.
        ("sql connection:0:2", "sql connection", true),
    ] {
        panics_in(&cluster, thread)?;
        let reason = format!("internal error: thread `{name}` panicked at crates/transfer/src/threads.rs:");
        let failure = Failure { donor: &reason, joiner: "Operation canceled", is_reported };
        let began = Instant::now();
        fails_and_keeps_its_data(n1, n2, &failure).context(thread)?;
        ensure!(began.elapsed() < ENDS_WITHIN, "{thread}: {:?}", began.elapsed());
    }
    Ok(())
}
