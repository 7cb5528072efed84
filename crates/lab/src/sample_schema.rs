//! One of everything a datadir may hold.
//!
//! Galera replicates DDL and the rows of InnoDB tables only: what is made here has to be made on the donor before the
//! joiner joins, and the joiner must have all of it afterwards.

use std::path::Path;

use anyhow::{Context, Result};

use crate::node::Node;
use crate::sql::{self, quote};

/// Makes the whole zoo on `node`.
pub fn create(node: &Node) -> Result<()> {
    let mut conn = node.connect()?;
    // Part of the package, but not loaded everywhere.
    let archive = sql::exec(&mut conn, "INSTALL SONAME 'ha_archive'");
    for statement in STATEMENTS {
        let needs_archive = statement.contains("ENGINE=ARCHIVE") || statement.contains("zoo.archive");
        if !(needs_archive && archive.is_err()) {
            sql::exec(&mut conn, statement)?;
        }
    }
    odd_names(&mut conn)
}

/// Values of every type, to the byte, in further tables of the zoo.
pub fn add_values(node: &Node) -> Result<()> {
    node.exec(&[
        "SET SESSION sql_mode=''",
        "CREATE TABLE zoo.numbers (a INT PRIMARY KEY, f FLOAT, d DOUBLE, f2 FLOAT(7,4), n DECIMAL(40,20), b1 BIT(1), b64 BIT(64), u BIGINT UNSIGNED)",
        "INSERT INTO zoo.numbers VALUES (1, 0.1, 0.1, 0.12345, 1.5, b'1', ~0, ~0), (2, 16777217, 1e308, -1.5, -99999999999999999999.99999999999999999999, b'0', 9, 0), \
         (3, 3.4028234e38, 4.9e-324, 0, 0, NULL, 0x5C090A00, 1), (4, -0.0, -0.0, NULL, NULL, b'1', 10, 9)",
        "CREATE TABLE zoo.texts (a INT PRIMARY KEY, b BINARY(5), v VARBINARY(50), l LONGBLOB, c CHAR(5), s VARCHAR(20) CHARACTER SET sjis, \
         k VARCHAR(20) CHARACTER SET koi8r, u4 VARCHAR(20) CHARACTER SET utf32, e ENUM('a','b',''), e2 ENUM('1','2'), st SET('x','y'), j JSON)",
        "INSERT INTO zoo.texts VALUES (1, 0x0000, 0x5C6E0A09000D1A5C, 0x00FF, 'x  ', _utf8mb4'表示能力', _utf8mb4'привет', _utf8mb4'a😀', '', '2', 'x,y', '{\"a\": \"\\\\n\"}'), \
         (2, NULL, '', '', '', '', '', '', 'b', 'no such value', '', NULL), (3, '\\\\N', '\\\\N', '\\\\N', '\\\\N', '\\\\', '\\t', '\\n', 'a', '1', 'y', '[]')",
        "CREATE TABLE zoo.times (a INT PRIMARY KEY, d DATE, t TIME(6), dt DATETIME(3), ts TIMESTAMP(6) NULL, y YEAR)",
        "INSERT INTO zoo.times VALUES (1, '0000-00-00', '-838:59:59', '0000-00-00', '2001-02-03 04:05:06.789012', 0), (2, '2024-00-10', '00:00:00.000001', '2024-01-01 00:00:00.999', NULL, 2155)",
        "SET SESSION sql_mode='ALLOW_INVALID_DATES'",
        "INSERT INTO zoo.times VALUES (3, '2023-02-31', NULL, '2023-02-31 10:00:00', '1970-01-01 12:00:00', 1901)",
        "SET SESSION sql_mode=DEFAULT",
        "CREATE TABLE zoo.shapes (a INT PRIMARY KEY, g GEOMETRY, p POLYGON, u UUID, i6 INET6, i4 INET4)",
        "INSERT INTO zoo.shapes VALUES (1, ST_GeomFromText('LINESTRING(0 0,1e300 -1.5)', 4326), ST_GeomFromText('POLYGON((0 0,9 0,9 9,0 0))'), \
         '00000000-0000-1000-8000-00000000000a', '::ffff:1.2.3.4', '255.0.10.9'), (2, NULL, NULL, NULL, NULL, NULL)",
        "CREATE TABLE zoo.defaults (a INT AUTO_INCREMENT PRIMARY KEY, b BINARY(3) DEFAULT 0x00FF5C, c VARCHAR(30) CHARACTER SET cp1251 DEFAULT 'цена', \
         d DATETIME DEFAULT '0000-00-00 00:00:00', n BIGINT DEFAULT (NEXT VALUE FOR zoo.seq_innodb), h INT INVISIBLE DEFAULT 7, x TEXT DEFAULT (CONCAT('a', 'b')), \
         KEY (h), KEY (c(5))) AUTO_INCREMENT=100 COMMENT='it''s \\\\ a `table`'",
        "INSERT INTO zoo.defaults (x, h) VALUES ('1', 8), (DEFAULT, DEFAULT)",
        "CREATE TABLE zoo.period (a INT, s DATE, e DATE, since TIMESTAMP(6) GENERATED ALWAYS AS ROW START, until TIMESTAMP(6) GENERATED ALWAYS AS ROW END, \
         PERIOD FOR SYSTEM_TIME (since, until), PERIOD FOR valid (s, e), PRIMARY KEY (a, valid WITHOUT OVERLAPS)) WITH SYSTEM VERSIONING",
        "INSERT INTO zoo.period (a, s, e) VALUES (1, '2020-01-01', '2021-01-01'), (1, '2022-01-01', '2023-01-01')",
        "DELETE FROM zoo.period WHERE s = '2022-01-01'",
        "UPDATE zoo.period SET e = '2020-06-01'",
        "CREATE DEFINER=nobody@nowhere SQL SECURITY DEFINER VIEW zoo.v_stranger AS SELECT a FROM zoo.numbers",
        "SET SESSION sql_mode='ANSI_QUOTES,PIPES_AS_CONCAT'",
        "CREATE DEFINER=nobody@nowhere PROCEDURE zoo.p_ansi() SELECT \"a\" || 'b' FROM zoo.numbers",
        "CREATE TRIGGER zoo.tr_ansi BEFORE UPDATE ON zoo.texts FOR EACH ROW SET NEW.\"c\" = 'a' || 'b'",
        "CREATE TRIGGER zoo.tr_second BEFORE UPDATE ON zoo.texts FOR EACH ROW PRECEDES tr_ansi SET NEW.l = 'x'",
        "SET SESSION sql_mode=DEFAULT",
        "CREATE SEQUENCE zoo.seq_down START WITH -5 INCREMENT BY -2 MAXVALUE 100 CYCLE NOCACHE",
        "SELECT NEXT VALUE FOR zoo.seq_down",
    ])
}

/// Tables whose files lie outside the datadir, under `external` (see [`crate::Builder::private_external`], without
/// which all nodes of this machine would share the files).
pub fn create_external(node: &Node, external: &Path) -> Result<()> {
    let dir = |name: &str| -> Result<String> {
        // The node sees its own directory at that path; from here it is below the node's.
        let real = node.dir().join("external").join(name);
        std::fs::create_dir_all(&real).with_context(|| real.display().to_string())?;
        Ok(external.join(name).display().to_string())
    };
    let (data, index, parts) = (dir("data")?, dir("index")?, dir("parts")?);
    node.user.own(&node.dir().join("external"))?;
    let tables = [
        format!(
            "CREATE TABLE zoo.ext_innodb (a INT PRIMARY KEY, b TEXT) ENGINE=InnoDB DATA DIRECTORY='{data}'"
        ),
        format!(
            "CREATE TABLE zoo.ext_myisam (a INT PRIMARY KEY, b TEXT) ENGINE=MyISAM DATA DIRECTORY='{data}' INDEX DIRECTORY='{index}'"
        ),
        format!(
            "CREATE TABLE zoo.ext_aria (a INT PRIMARY KEY, b TEXT) ENGINE=Aria TRANSACTIONAL=0 DATA DIRECTORY='{data}' INDEX DIRECTORY='{index}'"
        ),
        format!(
            "CREATE TABLE zoo.ext_parts (a INT PRIMARY KEY, b TEXT) ENGINE=InnoDB PARTITION BY RANGE (a) \
             (PARTITION p0 VALUES LESS THAN (500) DATA DIRECTORY='{parts}', PARTITION p1 VALUES LESS THAN MAXVALUE)"
        ),
    ];
    let mut conn = node.connect()?;
    sql::exec(&mut conn, "USE zoo")?;
    tables.iter().try_for_each(|table| sql::exec(&mut conn, table))?;
    for table in ["ext_innodb", "ext_myisam", "ext_aria", "ext_parts"] {
        sql::exec(
            &mut conn,
            &format!("INSERT INTO zoo.{table} SELECT seq, REPEAT(MD5(seq), 9) FROM seq_1_to_1000"),
        )?;
    }
    Ok(())
}

fn odd_names(conn: &mut mysql::Conn) -> Result<()> {
    for db in ["lost+found", "#mine", "with space", "tëst_日本", "a.b-c", "CON"] {
        let db = quote(db);
        sql::exec(conn, &format!("CREATE DATABASE {db}"))?;
        for table in
            ["plain", "with space", "ta#ble", "#sql_not", "日本語", "semi;colon'quote", "a.b", "back`tick"]
        {
            let table = format!("{db}.{}", quote(table));
            sql::exec(
                conn,
                &format!("CREATE TABLE {table} (a INT PRIMARY KEY, b VARCHAR(40)) ENGINE=InnoDB"),
            )?;
            sql::exec(conn, &format!("INSERT INTO {table} SELECT seq, MD5(seq) FROM seq_1_to_20"))?;
        }
        sql::exec(conn, &format!("CREATE TABLE {db}.`my isam #1` (a INT) ENGINE=MyISAM"))?;
        sql::exec(conn, &format!("INSERT INTO {db}.`my isam #1` VALUES (1),(2),(3)"))?;
    }
    Ok(())
}

const STATEMENTS: &[&str] = &[
    "CREATE DATABASE zoo CHARACTER SET utf8mb4",
    // The seq_ tables exist in the current database only.
    "USE zoo",
    "CREATE DATABASE zoo_empty COLLATE latin1_bin COMMENT 'nothing in it'",
    // Row formats.
    "CREATE TABLE zoo.redundant (a INT PRIMARY KEY, b VARCHAR(300), c TEXT) ENGINE=InnoDB ROW_FORMAT=REDUNDANT",
    "CREATE TABLE zoo.compact (a INT PRIMARY KEY, b VARCHAR(300), c TEXT) ENGINE=InnoDB ROW_FORMAT=COMPACT",
    "CREATE TABLE zoo.dynamic (a INT PRIMARY KEY, b VARCHAR(300), c LONGTEXT) ENGINE=InnoDB ROW_FORMAT=DYNAMIC",
    "CREATE TABLE zoo.zip1 (a INT PRIMARY KEY, b VARCHAR(300), c TEXT) ENGINE=InnoDB ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=1",
    "CREATE TABLE zoo.zip4 (a INT PRIMARY KEY, b VARCHAR(300), c TEXT) ENGINE=InnoDB ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4",
    "CREATE TABLE zoo.zip8 (a INT PRIMARY KEY, b VARCHAR(300), c TEXT) ENGINE=InnoDB ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8",
    "CREATE TABLE zoo.page_zip (a INT PRIMARY KEY, b VARCHAR(300), c TEXT) ENGINE=InnoDB PAGE_COMPRESSED=1 PAGE_COMPRESSION_LEVEL=6",
    "INSERT INTO zoo.redundant SELECT seq, MD5(seq), REPEAT(MD5(seq), 20) FROM seq_1_to_3000",
    "INSERT INTO zoo.compact SELECT * FROM zoo.redundant",
    "INSERT INTO zoo.dynamic SELECT a, b, REPEAT(c, IF(a % 100 = 0, 60, 1)) FROM zoo.redundant",
    "INSERT INTO zoo.zip1 SELECT a, b, LEFT(c, 200) FROM zoo.redundant",
    "INSERT INTO zoo.zip4 SELECT * FROM zoo.redundant",
    "INSERT INTO zoo.zip8 SELECT * FROM zoo.redundant",
    "INSERT INTO zoo.page_zip SELECT * FROM zoo.redundant",
    "CREATE TABLE zoo.blobs (a INT AUTO_INCREMENT PRIMARY KEY, b LONGBLOB, c MEDIUMTEXT COMPRESSED) ENGINE=InnoDB",
    "INSERT INTO zoo.blobs (b, c) SELECT REPEAT(CHAR(seq), seq * 30000), REPEAT(seq, 2000) FROM seq_1_to_40",
    "DELETE FROM zoo.blobs WHERE a % 3 = 0",
    // Partitions.
    "CREATE TABLE zoo.by_range (a INT, b VARCHAR(50), PRIMARY KEY (a)) ENGINE=InnoDB PARTITION BY RANGE (a) \
     (PARTITION p0 VALUES LESS THAN (100), PARTITION p1 VALUES LESS THAN (1000), PARTITION pmax VALUES LESS THAN MAXVALUE)",
    "CREATE TABLE zoo.by_hash (a INT PRIMARY KEY, b VARCHAR(50)) ENGINE=InnoDB PARTITION BY HASH (a) PARTITIONS 4",
    "CREATE TABLE zoo.by_sub (a INT, b DATE NOT NULL, PRIMARY KEY (a, b)) ENGINE=InnoDB PARTITION BY RANGE (YEAR(b)) \
     SUBPARTITION BY HASH (a) SUBPARTITIONS 2 (PARTITION p0 VALUES LESS THAN (2000), PARTITION p1 VALUES LESS THAN MAXVALUE)",
    "CREATE TABLE zoo.by_key_aria (a INT PRIMARY KEY, b VARCHAR(50)) ENGINE=Aria PARTITION BY KEY (a) PARTITIONS 3",
    "INSERT INTO zoo.by_range SELECT seq, MD5(seq) FROM seq_1_to_2000",
    "INSERT INTO zoo.by_hash SELECT seq, MD5(seq) FROM seq_1_to_2000",
    "INSERT INTO zoo.by_sub SELECT seq, DATE_ADD('1990-01-01', INTERVAL seq * 10 DAY) FROM seq_1_to_1000",
    "INSERT INTO zoo.by_key_aria SELECT seq, MD5(seq) FROM seq_1_to_1000",
    // Indexes and columns of special kinds.
    "CREATE TABLE zoo.fulltext_t (a INT AUTO_INCREMENT PRIMARY KEY, b TEXT, FULLTEXT KEY (b)) ENGINE=InnoDB",
    "INSERT INTO zoo.fulltext_t (b) SELECT CONCAT('the quick ', MD5(seq), ' fox number ', seq) FROM seq_1_to_1500",
    "DELETE FROM zoo.fulltext_t WHERE a % 7 = 0",
    "CREATE TABLE zoo.spatial_t (a INT PRIMARY KEY, g GEOMETRY NOT NULL, SPATIAL INDEX (g)) ENGINE=InnoDB",
    "INSERT INTO zoo.spatial_t SELECT seq, POINT(seq, seq * 2) FROM seq_1_to_1500",
    "CREATE TABLE zoo.generated (a INT PRIMARY KEY, b INT AS (a * 2) VIRTUAL, c VARCHAR(40) AS (MD5(a)) STORED, \
     j JSON, u UUID, i INET6, KEY (b), KEY (c), CHECK (a > 0)) ENGINE=InnoDB",
    "INSERT INTO zoo.generated (a, j, u, i) SELECT seq, JSON_OBJECT('n', seq), '123e4567-e89b-12d3-a456-426655440000', '::1' FROM seq_1_to_1000",
    "CREATE TABLE zoo.instant (a INT PRIMARY KEY, b INT, c VARCHAR(20)) ENGINE=InnoDB",
    "INSERT INTO zoo.instant SELECT seq, seq, LEFT(MD5(seq), 20) FROM seq_1_to_1000",
    "ALTER TABLE zoo.instant ADD COLUMN d INT DEFAULT 5 FIRST, ALGORITHM=INSTANT",
    "ALTER TABLE zoo.instant DROP COLUMN b, ALGORITHM=INSTANT",
    "INSERT INTO zoo.instant (a, c) SELECT seq, 'later' FROM seq_2001_to_2100",
    "CREATE TABLE zoo.versioned (a INT PRIMARY KEY, b INT) ENGINE=InnoDB WITH SYSTEM VERSIONING",
    "INSERT INTO zoo.versioned SELECT seq, seq FROM seq_1_to_200",
    "UPDATE zoo.versioned SET b = b + 1",
    "CREATE TABLE zoo.parent (a INT PRIMARY KEY) ENGINE=InnoDB",
    "CREATE TABLE zoo.child (a INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES zoo.parent (a) ON DELETE CASCADE) ENGINE=InnoDB",
    "INSERT INTO zoo.parent SELECT seq FROM seq_1_to_500",
    "INSERT INTO zoo.child SELECT seq, seq % 500 + 1 FROM seq_1_to_1500",
    "DELETE FROM zoo.parent WHERE a % 5 = 0",
    "CREATE TABLE zoo.no_key (a INT, b VARCHAR(20)) ENGINE=InnoDB CHARACTER SET utf16",
    "INSERT INTO zoo.no_key SELECT seq, 'é日本' FROM seq_1_to_300",
    "CREATE TABLE zoo.no_rows (a INT PRIMARY KEY) ENGINE=InnoDB",
    "CREATE TABLE zoo.discarded (a INT PRIMARY KEY) ENGINE=InnoDB",
    "INSERT INTO zoo.discarded SELECT seq FROM seq_1_to_100",
    "ALTER TABLE zoo.discarded DISCARD TABLESPACE",
    "CREATE SEQUENCE zoo.seq_innodb START WITH 100 INCREMENT BY 10 NOCACHE ENGINE=InnoDB",
    "SELECT NEXT VALUE FOR zoo.seq_innodb",
    // Engines that do not replicate.
    "CREATE TABLE zoo.aria_t (a INT PRIMARY KEY, b TEXT, KEY (b(20))) ENGINE=Aria TRANSACTIONAL=1",
    "CREATE TABLE zoo.aria_0 (a INT PRIMARY KEY, b CHAR(30)) ENGINE=Aria TRANSACTIONAL=0 ROW_FORMAT=FIXED",
    "CREATE TABLE zoo.myisam_t (a INT PRIMARY KEY, b TEXT, FULLTEXT KEY (b)) ENGINE=MyISAM",
    "CREATE TABLE zoo.m1 (a INT, KEY (a)) ENGINE=MyISAM",
    "CREATE TABLE zoo.m2 (a INT, KEY (a)) ENGINE=MyISAM",
    "CREATE TABLE zoo.merged (a INT, KEY (a)) ENGINE=MERGE UNION=(m1, m2) INSERT_METHOD=LAST",
    "CREATE TABLE zoo.csv_t (a INT NOT NULL, b VARCHAR(40) NOT NULL) ENGINE=CSV",
    "CREATE TABLE zoo.archive_t (a INT, b VARCHAR(40)) ENGINE=ARCHIVE",
    "CREATE TABLE zoo.memory_t (a INT PRIMARY KEY) ENGINE=MEMORY",
    "INSERT INTO zoo.aria_t SELECT seq, REPEAT(MD5(seq), 5) FROM seq_1_to_2000",
    "INSERT INTO zoo.aria_0 SELECT seq, LEFT(MD5(seq), 30) FROM seq_1_to_2000",
    "INSERT INTO zoo.myisam_t SELECT seq, CONCAT('word ', MD5(seq)) FROM seq_1_to_2000",
    "INSERT INTO zoo.m1 SELECT seq FROM seq_1_to_100",
    "INSERT INTO zoo.m2 SELECT seq FROM seq_101_to_200",
    "INSERT INTO zoo.csv_t SELECT seq, 'a \"quoted\", value' FROM seq_1_to_200",
    "INSERT INTO zoo.archive_t SELECT seq, MD5(seq) FROM seq_1_to_2000",
    "INSERT INTO zoo.memory_t VALUES (1), (2)",
    // What hangs on tables.
    "CREATE VIEW zoo.v_simple AS SELECT a, b FROM zoo.compact WHERE a < 100",
    "CREATE SQL SECURITY INVOKER VIEW zoo.v_join AS SELECT p.a, c.p FROM zoo.parent p JOIN zoo.child c ON c.p = p.a",
    "CREATE VIEW zoo.v_broken AS SELECT * FROM zoo.no_rows",
    "ALTER TABLE zoo.no_rows RENAME TO zoo.no_rows_2",
    "CREATE TRIGGER zoo.tr_ins BEFORE INSERT ON zoo.no_key FOR EACH ROW SET NEW.b = UPPER(NEW.b)",
    "CREATE TRIGGER zoo.tr_upd AFTER UPDATE ON zoo.no_key FOR EACH ROW INSERT INTO zoo.parent VALUES (NEW.a + 100000)",
    "CREATE PROCEDURE zoo.p_one(IN x INT) COMMENT 'says x' SELECT x",
    "CREATE FUNCTION zoo.f_one(x INT) RETURNS INT DETERMINISTIC RETURN x + 1",
    "CREATE EVENT zoo.e_one ON SCHEDULE EVERY 1 DAY DO DELETE FROM zoo.parent WHERE a > 1000000",
    "CREATE EVENT zoo.e_off ON SCHEDULE EVERY 1 HOUR STARTS '2030-01-01 00:00:00' DISABLE DO SELECT 1",
    // Accounts.
    "CREATE ROLE zoo_reader",
    "GRANT SELECT ON zoo.* TO zoo_reader",
    "CREATE USER 'zoo_a'@'%' IDENTIFIED BY 'secret' WITH MAX_USER_CONNECTIONS 3",
    "CREATE USER 'zoo b'@'10.0.0.0/255.0.0.0' IDENTIFIED BY 'other' REQUIRE SSL ACCOUNT LOCK",
    "GRANT zoo_reader TO 'zoo_a'@'%'",
    "SET DEFAULT ROLE zoo_reader FOR 'zoo_a'@'%'",
    "GRANT SELECT (a), UPDATE (b) ON zoo.compact TO 'zoo_a'@'%'",
    "GRANT EXECUTE ON PROCEDURE zoo.p_one TO 'zoo b'@'10.0.0.0/255.0.0.0'",
    "GRANT ALL ON `zoo\\_empty`.* TO 'zoo_a'@'%' WITH GRANT OPTION",
];
