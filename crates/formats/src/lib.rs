//! Parsers and writers for all formats that `rejoin` uses and another program defined.
//!
//! No I/O, no clock, and no panic on any input: bytes come from other nodes and from crashed servers. Every
//! module states the source of its facts; the formats are described in our own words, and nothing is copied.
//!
//! | file or text | module | read from | compared with |
//! |---|---|---|---|
//! | arguments of the SST program | [`wsrep::invocation`] | sql/wsrep_sst.cc 10.11, 11.8 | captured command lines |
//! | lines on its stdout | [`wsrep::report`] | sql/wsrep_sst.cc 10.11, 11.8 | 10.11.19 servers |
//! | `ready` text, `--address` | [`wsrep::address`] | sql/wsrep_sst.cc 10.11, wsrep_sst_common 10.11 | 10.11.19 servers |
//! | credentials on stdin, in the environment | [`wsrep::credentials`] | sql/wsrep_sst.cc 11.8 | - |
//! | `UUID:SEQNO`, GTIDs | [`wsrep::state_id`] | sql/wsrep_sst.cc 10.11 | `--wsrep-recover` |
//! | `tables_flushed` | [`wsrep::tables_flushed`] | sql/wsrep_sst.cc 10.11 | - |
//! | `grastate.dat` | [`galera::grastate`] | galera/src/saved_state.cpp 26.4.23 | files, running and stopped |
//! | `galera.cache`, page files | [`galera::gcache`], [`galera::ring`] | gcache/src 26.4.23 | servers: running, stopped, killed |
//! | write-sets and their hashes | [`galera::write_set`], [`galera::hash`] | galera/src, galerautils/src 26.4.23 | the provider's own values |
//! | configuration changes | [`galera::conf_change`] | gcs/src/gcs_act_cchange.cpp 26.4.23 | changes of real groups |
//! | events in write-sets | [`mariadb::binlog_events`] | sql/log_event.h 10.11 | mariadb-binlog |
//! | `my.cnf` | [`mariadb::option_file`] | mysys/my_default.c 10.11 | my_print_defaults, random files |
//! | option names and values | [`mariadb::option_name`], [`mariadb::option_set`] | mysys/my_getopt.c 10.11 | a 10.11.19 server, by hand |
//! | names in a data directory | [`mariadb::file_kind`] | several, 10.11 | - |
//! | names of tables in paths | [`mariadb::table_name`] | sql/sql_table.cc 10.11 | - |
//! | `*.frm` | [`mariadb::frm`] | sql/table.cc, unireg.cc 10.11 | files of 17 engines |
//! | binary log, `*.state` | [`mariadb::gtid_list`] | sql/log_event.h, rpl_gtid.cc 10.11 | files, with and without checksum |
//! | backup streams (XBSTREAM) | [`mariadb::mbstream`] | extra/mariabackup/xbstream_read.cc 10.11, XtraBackup's page | mbstream, mariadb-backup |
//! | page 0, flags | [`innodb::tablespace`] | include/fsp0types.h 10.11 | files, 4 to 64 KiB |
//! | pages and checksums | [`innodb::page`], [`innodb::checksum`] | buf/buf0buf.cc, fil0crypt.cc 10.11 | innochecksum, a server |
//! | doublewrite area | [`innodb::doublewrite`] | include/trx0sys.h 10.11 | files |
//! | cluster position in InnoDB | [`innodb::wsrep_position`] | trx/trx0rseg.cc, sql/wsrep_xid.cc 10.11 | `--wsrep-recover` |
//! | head of `ib_logfile0` | [`innodb::redo_header`] | include/log0log.h 10.11, 11.8 | files, clear and encrypted |
//! | redo records of system pages | [`innodb::redo_change`], [`innodb::redo_page`] | log/log0recv.cc 10.11 | `--wsrep-recover` after kills |
//! | segments of an archive of write-sets | [`archive`] | rejoin's own | property tests |
//! | undo log headers | [`innodb::undo_header`] | include/trx0undo.h, sql/handler.cc 10.11 | `--wsrep-recover` after kills |
//!
//! Files of real servers are under `tests/data`, with the script that recreates them.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

pub mod archive;
mod bytes;
pub mod galera;
pub mod ids;
pub mod innodb;
pub mod mariadb;
pub mod wsrep;

pub use ids::{Lsn, PageNo, Seqno, SpaceId, Uuid};
