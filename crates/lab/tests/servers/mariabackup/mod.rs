//! mariadb-backup as a source of data: as the donor's snapshot, and as a base that a command of the joiner restores.
mod base_command;
mod chosen;
mod ddl;
mod fails;
mod fixture;
mod joins;
mod stream;
