//! DDL that failed, compared between nodes.
//!
//! A statement that fails where a client sent it (its table was dropped a moment ago) fails on every node that applies it.
//! With the default `wsrep_ignore_apply_errors` no node asks the others whether it failed there too, and one on which a
//! statement fails alone may even end up with equal tables. Only the logs show that: every node names the statements that failed,
//! in the order of the group.

use std::collections::HashMap;

/// An applier says this first. If the statement was DDL, it says next that it ignores the error.
pub const APPLIER_ERROR: &str = "[ERROR] Slave SQL: Error '";
/// Both the node where a client sent the statement and those that apply it say this.
const IGNORED: &str = "WSREP: Ignoring error '";
/// What follows the error's text.
const OF_STATEMENT: &str = "' on query. ";

/// What a node's log says of DDL that failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FailedDdl {
    /// The errors in the order of the group, without what differs between nodes.
    errors: Vec<String>,
    /// Lines of appliers whose error was not that of DDL.
    unexplained: Vec<String>,
}

impl FailedDdl {
    /// Reads a log.
    pub fn of(log: &str) -> FailedDdl {
        let mut found = FailedDdl::default();
        // The last error of each thread, until it says that it ignores it.
        let mut open: HashMap<&str, (String, &str)> = HashMap::new();
        for line in log.lines() {
            let thread = line.split_whitespace().nth(2).unwrap_or_default();
            if let Some(error) = error_of(line, APPLIER_ERROR) {
                let before = open.insert(thread, (error, line));
                found.unexplained.extend(before.map(|(_, line)| line.to_owned()));
            } else if let Some(error) = error_of(line, IGNORED) {
                if open.get(thread).is_some_and(|(same, _)| *same == error) {
                    open.remove(thread);
                }
                found.errors.push(error);
            }
        }
        found.unexplained.extend(open.into_values().map(|(_, line)| line.to_owned()));
        found
    }

    /// How many statements failed.
    pub fn count(&self) -> usize {
        self.errors.len()
    }

    /// What speaks against another node that executed the same statements if `all`, otherwise the last ones of them: an applier's
    /// error that was not of DDL, or a [`FailedDdl::difference`].
    pub fn objection(&self, other: &FailedDdl, all: bool) -> Option<String> {
        if let [first, ..] = other.unexplained.as_slice() {
            return Some(format!(
                "{} errors of appliers are not of DDL, as {first:?}",
                other.unexplained.len()
            ));
        }
        self.difference(other, all).map(|how| format!("DDL failed on some nodes only: {how}"))
    }

    /// How `other` differs: a node that executed the same statements if `all`, otherwise the last ones of them.
    pub fn difference(&self, other: &FailedDdl, all: bool) -> Option<String> {
        let ordered = |errors: &[String]| {
            let mut errors = errors.to_vec();
            // Those of a node that joined in the middle end together with ours.
            if !all {
                errors.reverse();
            }
            errors
        };
        let (ours, theirs) = (ordered(&self.errors), ordered(&other.errors));
        let fits = if all { theirs.len() == ours.len() } else { theirs.len() <= ours.len() };
        let at = match ours.iter().zip(&theirs).position(|(a, b)| a != b) {
            None if fits => return None,
            None => ours.len().min(theirs.len()),
            Some(at) => at,
        };
        let end = if all { "first" } else { "last" };
        let said = |errors: &[String]| errors.get(at).map_or("nothing".to_owned(), |e| format!("{e:?}"));
        Some(format!(
            "of {} and {} statements that failed, number {} from the {end} one failed with {} and {}",
            ours.len(),
            theirs.len(),
            at + 1,
            said(&ours),
            said(&theirs)
        ))
    }
}

/// The text of an error behind `words`, without what differs between nodes.
fn error_of(line: &str, words: &str) -> Option<String> {
    let (_, rest) = line.split_once(words)?;
    let (error, _) = rest.split_once(OF_STATEMENT)?;
    Some(without_temporary_names(error))
}

/// Names of temporary tables contain the number of a process and of a connection.
fn without_temporary_names(error: &str) -> String {
    let mut parts = error.split("#sql");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text += "#sql";
        text += part.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a node logs it where a client sent the statement ...
    fn sent(error: &str) -> String {
        format!(
            "2026-12-01 14:16:04 61 [Warning] WSREP: Ignoring error '{error}' on query. Default database: ''. Query: 'RENAME \
             TABLE storm.t2 TO storm.t3', Error_code: 1050\n"
        )
    }

    /// ... and where it is applied, by a thread.
    fn applied(thread: u32, error: &str) -> String {
        format!(
            "2026-12-01  4:16:03 {thread} [ERROR] Slave SQL: Error '{error}' on query. Default database: ''. Query: 'DROP \
             TABLE storm.t4', Internal MariaDB error code: 1146\n2026-12-01 14:16:03 {thread} [Warning] WSREP: Ignoring error \
             '{error}' on query. Default database: ''. Query: 'DROP TABLE storm.t4', Error_code: 1146\n"
        )
    }

    const GONE: &str = "Table 'storm.t4' doesn't exist";
    const THERE: &str = "Table 't3' already exists";

    fn read(lines: &[String]) -> FailedDdl {
        FailedDdl::of(&lines.concat())
    }

    #[test]
    fn the_same_statements_fail_on_all_nodes() {
        let first = read(&[sent(THERE), applied(2, GONE), "other [Note] lines\n".to_owned(), sent(GONE)]);
        let second = read(&[applied(6, THERE), sent(GONE), applied(7, GONE)]);
        assert_eq!(first.count(), 3);
        assert_eq!(first.objection(&second, true), None);
        // One that joined in the middle.
        let third = read(&[applied(2, GONE), applied(7, GONE)]);
        assert_eq!(first.difference(&third, false), None);
        assert_eq!(first.difference(&FailedDdl::default(), false), None);
    }

    #[test]
    fn what_failed_on_one_node_alone_is_a_difference() {
        let first = read(&[sent(THERE), applied(2, GONE)]);
        let differs = |lines: &[String], all| first.difference(&read(lines), all);
        let more = differs(&[applied(2, THERE), applied(2, GONE), applied(2, GONE)], true).unwrap();
        assert!(
            more.contains("number 3 from the first one failed with nothing and \"Table 'storm.t4'"),
            "{more}"
        );
        // Also from the end, where the beginning is not known.
        assert!(differs(&[applied(2, GONE), applied(2, THERE), applied(2, GONE)], false).is_some());
        assert!(differs(&[applied(2, THERE), applied(2, GONE), applied(2, GONE)], false).is_some());
        // Another error, and a statement that did not fail.
        assert!(differs(&[applied(2, THERE), applied(2, THERE)], true).is_some());
        assert!(differs(&[applied(2, GONE)], true).is_some());
        assert!(first.objection(&read(&[applied(2, GONE)]), true).is_some());
        assert!(differs(&[applied(2, THERE)], false).is_some());
    }

    #[test]
    fn an_error_that_no_thread_ignores_is_not_ddl() {
        let one = applied(2, GONE);
        let error = one.lines().next().unwrap().to_owned();
        assert_eq!(FailedDdl::of(&error).unexplained, [error.as_str()]);
        // Another thread's word does not count, nor one about another error.
        let lines = [error.clone() + "\n", applied(7, GONE), applied(2, THERE)];
        assert_eq!(read(&lines).unexplained, [error]);
        // Also where the same statements failed.
        let objection = read(&lines[1..]).objection(&read(&lines), true);
        assert!(objection.is_some_and(|what| what.starts_with("1 errors of appliers are not of DDL")));
    }

    #[test]
    fn names_of_temporary_tables_do_not_count() {
        let with =
            |name: &str| read(&[sent(&format!("Error on rename of './storm/{name}' to './storm/t1'"))]);
        assert_eq!(with("#sql-alter-1f-2c"), with("#sql-alter-20-3"));
        assert_ne!(with("t5"), with("t6"));
    }
}
