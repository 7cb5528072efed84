//! Files of the MariaDB server that do not belong to InnoDB.

pub mod aria_index;
pub mod backup;
pub mod binlog_events;
pub mod deferred;
pub mod file_kind;
pub mod foreign_keys;
pub mod frm;
pub mod gtid_list;
pub mod login_packets;
pub mod mbstream;
pub mod option_file;
pub mod option_name;
pub mod option_set;
pub mod rows_text;
pub mod show_create;
pub mod sql_text;
pub mod system_tables;
pub mod table_name;
