//! What differs from case to case: settings of all nodes, and what else happens on the donor during the join.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use rejoin_lab::places::User;
use rejoin_lab::repeated::Repeated;
use rejoin_lab::{Cluster, Node, sql};

use super::log_report::SnapshotKind;
use super::old_tables;

/// A case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// No binlog.
    Plain,
    /// `log_bin` and `log_slave_updates`.
    Binlog,
    /// Undo tablespaces are filled and cut.
    Undo,
    /// A table of the donor is discarded and imported again and again, by the donor alone.
    Import,
    /// Open temporary tables on the donor.
    Temporary,
    /// Encrypted tables and redo log.
    Encrypted,
    /// The donor's files come from mariadb-backup; with a binlog, from which it takes the GTID state.
    Mariabackup,
    /// The joiner has other pages, so that rows come instead of files.
    Logical,
    /// Both hosts remember many tables, and the donor's clients begin to write to some of them while it gives.
    Remembered,
}

/// What happens on the donor besides, for one round.
pub struct Besides {
    case: Case,
    work: Option<Repeated>,
    truncations: u64,
}

const KEYS: &str = "1;770A8A65DA156D24EE2A093277530142\n";
const UNDO_ROWS: u32 = 3000;
const CUT: &str = "Innodb_undo_truncations";

impl Case {
    pub const ALL: [Self; 9] = [
        Self::Plain,
        Self::Binlog,
        Self::Undo,
        Self::Import,
        Self::Temporary,
        Self::Encrypted,
        Self::Mariabackup,
        Self::Logical,
        Self::Remembered,
    ];

    /// Lines of `[mysqld]`.
    pub fn lines(self) -> &'static [&'static str] {
        match self {
            Self::Plain | Self::Import | Self::Temporary | Self::Encrypted | Self::Remembered => {
                &["skip_log_bin"]
            }
            Self::Binlog | Self::Mariabackup | Self::Logical => &["log_bin=binlog", "log_slave_updates=ON"],
            Self::Undo => &[
                "skip_log_bin",
                "innodb_undo_tablespaces=3",
                "innodb_undo_log_truncate=ON",
                "innodb_max_undo_log_size=10M",
                "innodb_purge_rseg_truncate_frequency=1",
            ],
        }
    }

    /// Lines of `[mysqld]` of the joiner alone.
    pub fn joiner_lines(self) -> &'static [&'static str] {
        match self {
            Self::Logical => &["innodb_page_size=8k"],
            _ => &[],
        }
    }

    /// The kind of snapshot that it is about.
    pub fn is_by(self, snapshot: &SnapshotKind) -> bool {
        match self {
            Self::Mariabackup => *snapshot == SnapshotKind::Mariabackup,
            Self::Logical => matches!(snapshot, SnapshotKind::Logical(_)),
            _ => matches!(snapshot, SnapshotKind::Online | SnapshotKind::Blocking(_)),
        }
    }

    /// Lines of `[sst]`.
    pub fn sst(self) -> &'static [&'static str] {
        match self {
            Self::Mariabackup => &["snapshot=mariabackup"],
            _ => &[],
        }
    }

    /// What the option files need that names places.
    pub fn furnish(self, cluster: &Cluster) -> Result<()> {
        if self != Self::Encrypted {
            return Ok(());
        }
        let keys = cluster.dir().join("keys.txt");
        fs::write(&keys, KEYS)?;
        let name = format!("file_key_management_filename={}", keys.display());
        let on = [
            "plugin_load_add=file_key_management",
            &name,
            "innodb_encrypt_tables=ON",
            "innodb_encrypt_log=ON",
        ];
        cluster.nodes().iter().try_for_each(|node| node.add_options("mysqld", &on))
    }

    /// Tables of this case.
    pub fn create(self, donor: &Node) -> Result<()> {
        match self {
            Self::Undo => donor.exec(&[
                "CREATE TABLE storm.undo (id INT PRIMARY KEY, n INT, pad CHAR(250))",
                &format!("INSERT INTO storm.undo SELECT seq, 0, MD5(seq) FROM storm.seq_1_to_{UNDO_ROWS}"),
            ]),
            Self::Remembered => old_tables::create(donor),
            _ => Ok(()),
        }
    }

    /// Starts it.
    pub fn start(self, donor: &Node) -> Result<Besides> {
        let work = match self {
            Self::Undo => Some(fill_undo(donor)?),
            Self::Import => Some(import(donor)?),
            Self::Temporary => Some(temporary_tables(donor)?),
            Self::Remembered => Some(old_tables::write(donor)?),
            Self::Plain | Self::Binlog | Self::Encrypted | Self::Mariabackup | Self::Logical => None,
        };
        Ok(Besides { case: self, work, truncations: truncations(donor) })
    }
}

impl Besides {
    /// Tells it to stop and does not wait.
    pub fn halt(&self) {
        self.work.iter().for_each(Repeated::halt);
    }

    /// Ends it. Answers what to say of it; an error when the donor's clients lost something.
    pub fn finish(self, donor: &Node) -> Result<Option<String>> {
        let Some(work) = self.work else { return Ok(None) };
        let all = work.stop()?;
        match self.case {
            Case::Temporary => {
                let why = all.last_error.unwrap_or_default();
                ensure!(all.failed == 0, "temporary tables of the donor's clients were lost: {why}");
                Ok(Some(format!("{} changes of temporary tables", all.done)))
            }
            Case::Remembered => {
                let why = all.last_error.unwrap_or_default();
                ensure!(all.done > 0, "nothing was written to old tables while the donor gave: {why}");
                Ok(Some(format!("{} writes to old tables", all.done)))
            }
            Case::Import => Ok(Some(format!("{} imports, {} refused", all.done, all.failed))),
            _ => {
                Ok(Some(format!("{} undo truncations", truncations(donor).saturating_sub(self.truncations))))
            }
        }
    }
}

fn truncations(donor: &Node) -> u64 {
    donor.status(CUT).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn fill_undo(donor: &Node) -> Result<Repeated> {
    let mut n = 0_u32;
    Repeated::start(donor, "undo", Duration::from_millis(150), move |conn| {
        n += 1;
        sql::exec(conn, "BEGIN")?;
        sql::exec(conn, &format!("UPDATE storm.undo SET n = n + 1, pad = REPEAT(MD5(id + {n}), 7)"))?;
        sql::exec(conn, if n.is_multiple_of(4) { "ROLLBACK" } else { "COMMIT" })
    })
}

/// Not replicated, since the others lack the file; the same rows come back, so the table is the same everywhere.
fn import(donor: &Node) -> Result<Repeated> {
    let mut conn = donor.connect()?;
    sql::exec(&mut conn, "CREATE OR REPLACE TABLE storm.imported (id INT PRIMARY KEY, c VARCHAR(200))")?;
    let rows = "SELECT seq, REPEAT(MD5(seq), 6) FROM storm.seq_1_to_3000";
    sql::exec(&mut conn, &format!("INSERT INTO storm.imported {rows}"))?;
    sql::exec(&mut conn, "SET SESSION wsrep_on=OFF")?;
    sql::exec(&mut conn, "FLUSH TABLES storm.imported FOR EXPORT")?;
    let files = Exported {
        from: donor.dir().to_owned(),
        to: donor.datadir().join("storm"),
        user: User::for_servers()?,
    };
    files.save()?;
    sql::exec(&mut conn, "UNLOCK TABLES")?;
    Repeated::start(donor, "import", Duration::from_millis(100), move |conn| {
        sql::exec(conn, "SET SESSION wsrep_on=OFF")?;
        sql::exec(conn, "ALTER TABLE storm.imported DISCARD TABLESPACE")?;
        files.put_back()?;
        sql::exec(conn, "ALTER TABLE storm.imported IMPORT TABLESPACE")
    })
}

struct Exported {
    from: PathBuf,
    to: PathBuf,
    user: User,
}

impl Exported {
    const NAMES: [&'static str; 2] = ["imported.ibd", "imported.cfg"];

    fn save(&self) -> Result<()> {
        Self::NAMES.iter().try_for_each(|name| {
            fs::copy(self.to.join(name), self.from.join(name)).with_context(|| (*name).to_owned()).map(drop)
        })
    }

    fn put_back(&self) -> Result<()> {
        Self::NAMES.iter().try_for_each(|name| {
            let to = self.to.join(name);
            fs::copy(self.from.join(name), &to).with_context(|| (*name).to_owned())?;
            self.user.own(&to)
        })
    }
}

/// A table that the donor was just without when the copy was made is without its rows on the joiner, and rightly so:
/// only the donor imported it again.
pub fn leave_out_discarded(donor: &Node, joiner: &Node) -> Result<bool> {
    let asked = joiner.value("SELECT COUNT(*) FROM storm.imported");
    // ER_TABLESPACE_DISCARDED
    let discarded = asked.is_err_and(|e| format!("{e:#}").contains("1814"));
    if discarded {
        donor.exec(&["DROP TABLE storm.imported"])?;
    }
    Ok(discarded)
}

/// One connection keeps three of them and goes on changing them; if it is lost, so are they.
fn temporary_tables(donor: &Node) -> Result<Repeated> {
    let mut made = false;
    Repeated::start(donor, "temporary", Duration::from_millis(20), move |conn| {
        for engine in ["InnoDB", "Aria", "MyISAM"] {
            if !made {
                let columns = "id INT AUTO_INCREMENT PRIMARY KEY, c VARCHAR(200)";
                sql::exec(
                    conn,
                    &format!("CREATE TEMPORARY TABLE storm.own_{engine} ({columns}) ENGINE={engine}"),
                )?;
            }
            let row = "(c) VALUES (REPEAT(MD5(RAND()), 6))";
            sql::exec(conn, &format!("INSERT INTO storm.own_{engine} {row}"))?;
        }
        made = true;
        Ok(())
    })
}
