//! Files of the MariaDB server that are not InnoDB's.

pub mod binlog_events;
pub mod file_kind;
pub mod frm;
pub mod gtid_list;
pub mod option_file;
pub mod option_name;
pub mod option_set;
