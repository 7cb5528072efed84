//! Tables of the database `mysql`: whose rows belong to the data of a cluster, and which are each server's own.
//!
//! From scripts/mariadb_system_tables.sql (10.11 and 11.8).

/// A table whose rows belong to the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemTable {
    /// Its name.
    pub name: &'static str,
    /// Which rows, as an SQL condition: the others come with the server's program, and are the same in servers of one series.
    pub rows: &'static str,
    /// Columns with names of databases and tables, which a server with `lower_case_table_names` has in lower case.
    pub names: &'static [&'static str],
}

/// The condition that every row meets.
pub const EVERY_ROW: &str = "1=1";

/// Every row, and no names of tables.
const fn whole(name: &'static str) -> SystemTable {
    named(name, &[])
}

const fn named(name: &'static str, names: &'static [&'static str]) -> SystemTable {
    SystemTable { name, rows: EVERY_ROW, names }
}

/// The tables whose rows belong to the data. A server makes them by itself.
pub const OF_THE_DATA: [SystemTable; 21] = [
    whole("global_priv"),
    named("db", &["Db"]),
    named("tables_priv", &["Db", "Table_name"]),
    named("columns_priv", &["Db", "Table_name"]),
    named("procs_priv", &["Db"]),
    whole("proxies_priv"),
    whole("roles_mapping"),
    SystemTable {
        name: "proc",
        rows: "db<>'sys' AND (db<>'mysql' OR name NOT IN ('AddGeometryColumn','DropGeometryColumn'))",
        names: &["db"],
    },
    named("event", &["db"]),
    whole("func"),
    whole("plugin"),
    whole("servers"),
    whole("gtid_slave_pos"),
    whole("time_zone"),
    whole("time_zone_leap_second"),
    whole("time_zone_name"),
    whole("time_zone_transition"),
    whole("time_zone_transition_type"),
    named("column_stats", &["db_name", "table_name"]),
    named("index_stats", &["db_name", "table_name"]),
    named("table_stats", &["db_name", "table_name"]),
];

/// Tables that each server fills by itself.
const OWN: [&str; 9] = [
    "innodb_index_stats",
    "innodb_table_stats",
    "general_log",
    "slow_log",
    "help_category",
    "help_keyword",
    "help_relation",
    "help_topic",
    "transaction_registry",
];

/// The table of this name whose rows belong to the data.
pub fn of_the_data(name: &str) -> Option<&'static SystemTable> {
    OF_THE_DATA.iter().find(|table| table.name == name)
}

/// Whether a server makes this table by itself: `database` and `table` as in SQL.
pub fn is_made_by_server(database: &str, table: &str) -> bool {
    match database {
        "mysql" => of_the_data(table).is_some() || OWN.contains(&table),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_of_one_kind() {
        assert!(OF_THE_DATA.iter().all(|table| !OWN.contains(&table.name)));
        assert!(is_made_by_server("mysql", "global_priv") && is_made_by_server("mysql", "slow_log"));
        assert!(!is_made_by_server("mysql", "wsrep_cluster") && !is_made_by_server("shop", "db"));
    }
}
