//! Files of the MariaDB server that do not belong to InnoDB.

pub mod aria_index;
pub mod binlog_events;
pub mod file_kind;
pub mod frm;
pub mod gtid_list;
pub mod mbstream;
pub mod option_file;
pub mod option_name;
pub mod option_set;
pub mod table_name;
