//! Tables whose rows could not be the same on the joiner: they are named, and nothing is sent.
use formats::mariadb::show_create::has_history_in_turn;
use formats::mariadb::sql_text::{name, table};

use super::error::ReadError;
use crate::snapshot::declined::Declined;
use crate::sql::definitions::{Column, Listed};
use crate::sql::{Answer, Session};

/// ER_PARSE_ERROR, ER_BAD_FIELD_ERROR, ER_SP_DOES_NOT_EXIST, ER_CANT_AGGREGATE_2COLLATIONS: the server does not take an expression as
/// it shows it.
const NOT_TAKEN: [u16; 4] = [1064, 1054, 1305, 1267];
/// ER_TABLESPACE_DISCARDED.
const DISCARDED: u16 = 1814;
/// Functions whose result depends on the session's time zone.
const OF_ZONE: [&str; 3] = ["from_unixtime(", "unix_timestamp(", "convert_tz("];

/// Whether a column has the times of a row's validity.
pub(super) fn is_period(column: &Column) -> bool {
    matches!(column.generated.as_deref(), Some("ROW START" | "ROW END"))
}

/// Refuses history that means nothing on another server, or would be in other partitions there. `until`: the column with the end of
/// a row's validity, if the table has history.
///
/// # Errors
/// It has such history; from the server.
pub(super) fn check_history(
    session: &mut Session,
    listed: &Listed,
    create: &[u8],
    columns: &[Column],
    until: Option<&str>,
) -> Result<(), ReadError> {
    let Listed { database, name, .. } = listed;
    if let Some(of_transactions) =
        columns.iter().find(|column| is_period(column) && column.data_type == "bigint")
    {
        let text = format!(
            "the table {database}.{name} has transaction-precise history ({}), whose transaction ids mean nothing on another server",
            of_transactions.name
        );
        return Err(Declined::Layout(text).into());
    }
    let Some(until) = until.filter(|_| has_history_in_turn(create)) else { return Ok(()) };
    if has_history(session, listed, until)? {
        let text = format!(
            "the table {database}.{name} fills one partition after the other with its history (PARTITION BY SYSTEM_TIME LIMIT), and no \
             row says in which of them it is: the joiner would have it in other ones"
        );
        return Err(Declined::Layout(text).into());
    }
    Ok(())
}

/// Whether a table has rows that were valid before.
fn has_history(session: &mut Session, listed: &Listed, until: &str) -> Answer<bool> {
    let question =
        format!("SELECT 1 FROM {} WHERE {} <= SYSDATE(6) LIMIT 1", all_of(listed, true), name(until));
    Ok(count(session, &question)? > 0)
}

/// Refuses a table with a stored generated column whose values are others where the joiner computes them, in UTC. Warns of a virtual
/// one in a key, whose values in the key cannot be compared. `history`: the table has some.
///
/// # Errors
/// There is such a value; from the server.
pub(super) fn check_zone(
    session: &mut Session,
    listed: &Listed,
    create: &[u8],
    columns: &[Column],
    history: bool,
) -> Result<(), ReadError> {
    let Listed { database, name, .. } = listed;
    let of_zone = of_zone(columns);
    for column in of_zone.iter().filter(|column| !column.stored && is_in_key(create, &column.name)) {
        tracing::warn!(
            "{database}.{name}: the joiner computes the values of {} in its keys in UTC; they can be others than on the donor, whose \
             sessions compute them in their own time zones",
            column.name
        );
    }
    for column in of_zone.iter().filter(|column| column.stored) {
        let others = match count(session, &others(listed, column, history)) {
            Err(e) if NOT_TAKEN.contains(&e.code) => {
                tracing::warn!(
                    "{database}.{name}: the joiner computes the values of {} in UTC, and they cannot be compared: {e}",
                    column.name
                );
                continue;
            }
            counted => counted?,
        };
        if others > 0 {
            let text = format!(
                "the generated column {} of the table {database}.{name} depends on the time zone of the session that wrote a row, and \
                 the joiner computes it in UTC: {others} of its values would change",
                column.name
            );
            return Err(Declined::Layout(text).into());
        }
    }
    Ok(())
}

/// Refuses a table with values of an ENUM or SET that are read as an empty text and are another value than the member that is one.
///
/// # Errors
/// There is such a value; from the server.
pub(super) fn check_members(
    session: &mut Session,
    listed: &Listed,
    columns: &[Column],
    history: bool,
) -> Result<(), ReadError> {
    let Listed { database, name, .. } = listed;
    for column in columns.iter().filter(|column| column.generated.is_none()) {
        let Some(is_other) = other_than_empty(column) else { continue };
        let others = count(session, &format!("SELECT SUM({is_other}) FROM {}", all_of(listed, history)))?;
        if others > 0 {
            let text = format!(
                "{others} values of the column {} of the table {database}.{name} are read as an empty text like another value of this \
                 {}, and would change",
                column.name, column.data_type
            );
            return Err(Declined::Layout(text).into());
        }
    }
    Ok(())
}

/// The condition for a value that is read as an empty text, which another value means: of an ENUM the invalid one, if it has an empty
/// member, of a SET this member.
fn other_than_empty(column: &Column) -> Option<String> {
    let members = column.column_type.split_once('(')?.1.strip_suffix(')')?;
    match column.data_type.as_str() {
        // A text that only looks like this member costs a look at the rows.
        "enum" if format!(",{members},").contains(",'',") => Some(format!("{} + 0 = 0", name(&column.name))),
        // No member of a SET has a comma.
        "set" => {
            let at = members.split(',').position(|member| member == "''")?;
            Some(format!("({} + 0) & (1 << {at}) <> 0", name(&column.name)))
        }
        _ => None,
    }
}

/// The number that is the answer to a question; 0 for a table without a tablespace.
fn count(session: &mut Session, question: &str) -> Answer<u64> {
    match session.count(question) {
        Err(e) if e.code == DISCARDED => Ok(0),
        counted => counted,
    }
}

/// All rows of a table, for a FROM.
fn all_of(listed: &Listed, history: bool) -> String {
    let all = if history { " FOR SYSTEM_TIME ALL" } else { "" };
    format!("{}{all}", table(&listed.database, &listed.name))
}

/// Generated columns that may depend on the session's time zone: computed from a `TIMESTAMP`, or to one, or by such a function.
fn of_zone(columns: &[Column]) -> Vec<&Column> {
    let mut found: Vec<&Column> = Vec::new();
    loop {
        let names = |from: &str, column: &Column| from.contains(&name(&column.name));
        let depends = |column: &&Column| {
            let Some(from) = column.generated.as_deref().filter(|_| !is_period(column)) else { return false };
            let lower = from.to_ascii_lowercase();
            column.data_type == "timestamp"
                || OF_ZONE.iter().any(|function| lower.contains(function))
                || columns.iter().any(|other| other.data_type == "timestamp" && names(from, other))
                || found.iter().any(|other| names(from, other))
        };
        let now: Vec<&Column> = columns.iter().filter(depends).collect();
        if now.len() == found.len() {
            return now;
        }
        found = now;
    }
}

/// Counts rows in which a stored generated column has another value than this session computes. In the list of a SELECT, so that
/// no server replaces the expression by the column.
fn others(listed: &Listed, column: &Column, history: bool) -> String {
    let from = column.generated.as_deref().unwrap_or_default();
    let from = match column.data_type.as_str() {
        "date" | "time" | "datetime" => format!("CAST({from} AS {})", column.column_type),
        "timestamp" => format!("CAST({from} AS {})", column.column_type.replacen("timestamp", "datetime", 1)),
        // A number is rounded where it is stored.
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" => {
            format!("CAST({from} AS {})", if column.unsigned { "UNSIGNED" } else { "SIGNED" })
        }
        _ => format!("({from})"),
    };
    format!("SELECT SUM(NOT ({} <=> {from})) FROM {}", name(&column.name), all_of(listed, history))
}

/// Whether a key has a column.
fn is_in_key(create: &[u8], column: &str) -> bool {
    let column = name(column);
    let text = String::from_utf8_lossy(create);
    let mut keys =
        text.lines().filter(|line| line.starts_with("  KEY `") || line.starts_with("  UNIQUE KEY `"));
    keys.any(|line| line.split_once("` (").is_some_and(|(_, columns)| columns.contains(&column)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, column_type: &str, generated: Option<&str>, stored: bool) -> Column {
        Column {
            name: name.to_owned(),
            data_type: column_type.split('(').next().unwrap().to_owned(),
            column_type: column_type.to_owned(),
            generated: generated.map(str::to_owned),
            stored,
            ..Column::default()
        }
    }

    #[test]
    fn columns_that_depend_on_the_time_zone_are_known() {
        let columns = [
            column("ts", "timestamp(3)", None, false),
            column("dt", "datetime", None, false),
            column("later", "int(11)", Some("year(`day`)"), true),
            column("day", "date", Some("cast(`ts` as date)"), false),
            column("plain", "date", Some("cast(`dt` as date)"), true),
            column("u", "bigint(20)", Some("UNIX_TIMESTAMP(`dt`)"), true),
            column("made", "timestamp", Some("`dt`"), true),
            column("row_start", "timestamp(6)", Some("ROW START"), true),
        ];
        let names: Vec<&str> = of_zone(&columns).iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["later", "day", "u", "made"]);
        assert!(of_zone(&columns[1..2]).is_empty());
    }

    #[test]
    fn stored_values_are_compared_as_their_column_has_them() {
        let listed =
            Listed { database: "d".into(), name: "t`".into(), kind: String::new(), engine: String::new() };
        let of = |column: &Column, history| others(&listed, column, history);
        assert_eq!(
            of(&column("c", "datetime(3)", Some("`ts`"), true), false),
            "SELECT SUM(NOT (`c` <=> CAST(`ts` AS datetime(3)))) FROM `d`.`t```"
        );
        assert_eq!(
            of(&column("c", "timestamp", Some("`dt`"), true), true),
            "SELECT SUM(NOT (`c` <=> CAST(`dt` AS datetime))) FROM `d`.`t``` FOR SYSTEM_TIME ALL"
        );
        assert!(
            of(&column("c", "int(11)", Some("a + b"), true), false).contains("<=> CAST(a + b AS SIGNED)")
        );
        assert!(of(&column("c", "varchar(9)", Some("a + b"), true), false).contains("<=> (a + b)"));
    }

    #[test]
    fn empty_members_are_told_from_other_empty_texts() {
        let of = |column_type: &str| other_than_empty(&column("c", column_type, None, false));
        assert_eq!(of("enum('a','')").as_deref(), Some("`c` + 0 = 0"));
        assert_eq!(of("enum('')").as_deref(), Some("`c` + 0 = 0"));
        assert_eq!(of("set('a','','b')").as_deref(), Some("(`c` + 0) & (1 << 1) <> 0"));
        for other in ["enum('a','b''')", "set('a','b')", "varchar(9)", "text"] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn a_column_of_a_key_is_known() {
        let create = b"CREATE TABLE `t` (\n  `c` date,\n  KEY `c` (`a`),\n  UNIQUE KEY `k` (`a`,`d`)\n)";
        assert!(is_in_key(create, "d") && is_in_key(create, "a") && !is_in_key(create, "c"));
    }
}
