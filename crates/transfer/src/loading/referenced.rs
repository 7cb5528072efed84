//! Columns to which foreign keys of other tables refer: their keys must be there when those tables are made.
use std::collections::HashMap;

use formats::mariadb::foreign_keys::references;
use protocol::logical::Table;

/// First columns of what foreign keys refer to, by database and table, all in lower case.
#[derive(Debug, Default)]
pub(crate) struct Referenced(HashMap<(String, String), Vec<String>>);

impl Referenced {
    /// By these tables.
    pub fn by<'a>(tables: impl IntoIterator<Item = &'a Table>) -> Referenced {
        let mut all: HashMap<(String, String), Vec<String>> = HashMap::new();
        for table in tables {
            for reference in references(&table.create) {
                let database = reference.database.unwrap_or_else(|| table.database.to_lowercase());
                let columns = all.entry((database, reference.table)).or_default();
                if !columns.contains(&reference.column) {
                    columns.push(reference.column);
                }
            }
        }
        Referenced(all)
    }

    /// Those of a table.
    pub fn of(&self, table: &Table) -> &[String] {
        let name = (table.database.to_lowercase(), table.name.to_lowercase());
        self.0.get(&name).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use protocol::logical::Content;

    use super::*;

    #[test]
    fn columns_are_known_by_the_table_that_has_them() {
        let of = |database: &str, name: &str, line: &str| Table {
            database: database.to_owned(),
            name: name.to_owned(),
            create: format!("CREATE TABLE `{name}` (\n  {line}\n) ENGINE=InnoDB").into_bytes(),
            content: Content::Nothing,
        };
        let tables = [
            of("D", "child", "CONSTRAINT `c` FOREIGN KEY (`a`) REFERENCES `Parent` (`Code`)"),
            of("e", "child", "CONSTRAINT `c` FOREIGN KEY (`a`) REFERENCES `d`.`parent` (`other`)"),
            of("d", "parent", "`code` int(11) DEFAULT NULL"),
        ];
        let referenced = Referenced::by(&tables);
        assert_eq!(referenced.of(&tables[2]), ["code", "other"]);
        assert!(referenced.of(&tables[0]).is_empty());
    }
}
