//! Triggers name tables in the words of whoever wrote them, and views as the server did that made them. A donor whose names have no case
//! finds `shop.orders` as `Shop.Orders` too. A server with `lower_case_table_names=0`, to which these texts go as they are, does not, and
//! refuses every write to the trigger's table, and every use of the view.
use std::collections::HashSet;

use protocol::logical::{Contents, Text};

/// Where the file of a view has what the server executes.
const QUERY: &str = "query=";
/// Definitions that are named at most.
const NAMED: usize = 5;

/// Warns of such definitions. `server`: the one that gets them, with this `lower_case_table_names`.
pub(crate) fn warn(contents: &Contents, server: &str, lower_case_table_names: u8) {
    if contents.lower_case_table_names == 0 || lower_case_table_names != 0 {
        return;
    }
    let found = in_other_case(contents);
    if !found.is_empty() {
        let more = match found.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        tracing::warn!(
            "{}{more} name tables with upper-case letters, which {server} does not find with lower_case_table_names=0: writes to the \
             tables of these triggers, and statements with these views, will fail there; create them again on the donor with names in \
             lower case",
            found.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ")
        );
    }
}

/// Files of triggers and views with a word that is the name of a database or table but for its case.
fn in_other_case(contents: &Contents) -> Vec<&str> {
    let tables = contents.tables.iter().map(|table| table.name.as_str());
    let names: HashSet<&str> = contents.databases.iter().map(String::as_str).chain(tables).collect();
    let is_other = |word: &str| {
        let lower = word.to_lowercase();
        lower != word && names.contains(lower.as_str()) && !names.contains(word)
    };
    let has_other = |text: &&Text| {
        let executed = executed(text);
        executed.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '$').any(is_other)
    };
    contents.texts.iter().filter(has_other).map(|text| text.path.as_str()).collect()
}

/// What a server executes of a text.
fn executed(text: &Text) -> String {
    let bytes = String::from_utf8_lossy(&text.bytes);
    match text.path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "TRG" => bytes.into_owned(),
        "frm" => bytes.lines().find_map(|line| line.strip_prefix(QUERY)).unwrap_or_default().to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use protocol::logical::{Content, Table};

    use super::*;

    #[test]
    fn definitions_that_name_a_table_in_another_case_are_found() {
        let text = |path: &str, text: &str| Text { path: path.to_owned(), bytes: text.as_bytes().to_vec() };
        let orders = Table {
            database: "shop".into(),
            name: "orders".into(),
            create: Vec::new(),
            content: Content::Nothing,
        };
        let contents = Contents {
            lower_case_table_names: 1,
            databases: vec!["shop".into()],
            tables: vec![orders],
            texts: vec![
                text(
                    "shop/orders.TRG",
                    "triggers='CREATE TRIGGER t BEFORE INSERT ON Shop.orders FOR EACH ROW SET NEW.A = 1'",
                ),
                text(
                    "shop/b.TRG",
                    "triggers='CREATE TRIGGER B BEFORE INSERT ON b FOR EACH ROW INSERT INTO `ORDERS` VALUES (1)'",
                ),
                text(
                    "shop/c.TRG",
                    "triggers='CREATE TRIGGER C BEFORE INSERT ON shop.c FOR EACH ROW SET NEW.Ordersum = 1'",
                ),
                text(
                    "shop/v.frm",
                    "TYPE=VIEW\nquery=select * from `shop`.`orders`\nsource=SELECT * FROM Orders",
                ),
                text("shop/w.frm", "TYPE=VIEW\nquery=select * from `shop`.`Orders`\n"),
                text("shop/Orders.TRN", "TYPE=TRIGGERNAME\ntrigger_table=Orders\n"),
            ],
            ..Contents::default()
        };
        assert_eq!(in_other_case(&contents), ["shop/orders.TRG", "shop/b.TRG", "shop/w.frm"]);
    }
}
