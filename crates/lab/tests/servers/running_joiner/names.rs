//! Another `lower_case_table_names` on the joiner.
use anyhow::{Result, ensure};

use super::fixture::{
    Failure, PASSWORD, builder, fails_and_keeps_its_data, is_free, joined, let_in, stand_alone, told_to_join,
};

#[test]
fn names_get_lower_case_or_are_refused() -> Result<()> {
    let cluster = builder().mysqld_of(2, "lower_case_table_names=1").build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    let_in(n1, PASSWORD, "ALL PRIVILEGES")?;
    n1.exec(&[
        "CREATE DATABASE Shop COMMENT 'with an upper case letter'",
        "CREATE TABLE Shop.Orders (Id INT AUTO_INCREMENT PRIMARY KEY, what TEXT)",
        "INSERT INTO Shop.Orders (what) VALUES ('a'), ('b')",
        "CREATE TABLE Shop.Lines (Id INT PRIMARY KEY, o INT, CONSTRAINT Of FOREIGN KEY (o) REFERENCES Shop.Orders (Id))",
        "INSERT INTO Shop.Lines VALUES (1, 1)",
        "CREATE DATABASE Far",
        "CREATE TABLE Far.Child (Id INT PRIMARY KEY, CONSTRAINT Away FOREIGN KEY (Id) REFERENCES Shop.Lines (Id))",
        "CREATE SEQUENCE Shop.Numbers START WITH 5 NOCACHE INCREMENT BY 0",
        "CREATE TABLE Far.Numbered (Id INT PRIMARY KEY DEFAULT NEXTVAL(Shop.Numbers))",
        "CREATE VIEW Shop.Recent AS SELECT * FROM Shop.Orders",
        "CREATE TRIGGER Shop.Stamp BEFORE INSERT ON Shop.Orders FOR EACH ROW SET NEW.what = UPPER(NEW.what)",
        "CREATE PROCEDURE Shop.Say() SELECT 'said'",
        "CREATE USER clerk@localhost",
        "GRANT SELECT, EXECUTE ON Shop.* TO clerk@localhost",
        "GRANT INSERT ON Shop.Orders TO clerk@localhost",
        "CREATE TABLE Shop.orders (a INT PRIMARY KEY)",
    ])?;
    stand_alone(n2)?;
    let_in(n2, PASSWORD, "ALL PRIVILEGES")?;
    let one = Failure {
        donor: "Shop.Orders and Shop.orders of the donor are one name",
        joiner: "Protocol error",
        is_reported: true,
    };
    fails_and_keeps_its_data(n1, n2, &one)?;
    ensure!(!n1.log_text().contains("beside the joiner's old data"), "something was loaded before");
    n1.exec(&["DROP TABLE Shop.orders"])?;

    told_to_join(n2, n1)?;
    joined(n2, n1)?;
    is_free(n1)?;
    let shown = n2.rows("SHOW DATABASES")?.concat();
    ensure!(!shown.iter().any(|name| name == "old_shop" || name.starts_with("#rejoin")), "{shown:?}");
    assert_eq!(n2.value("SELECT GROUP_CONCAT(what) FROM shop.orders")?, "a,b");
    assert_eq!(n2.value("SELECT COUNT(*) FROM shop.recent")?, "2");
    assert_eq!(n2.value("SELECT o FROM shop.lines")?, "1");
    // The donor has no table of this name in its own case: a replicated write would end it.
    let alone = "SET SESSION wsrep_on=OFF";
    n2.exec(&[alone, "INSERT INTO shop.orders (what) VALUES ('c')", "CALL shop.say()"])?;
    assert_eq!(n2.value("SELECT GROUP_CONCAT(what ORDER BY id) FROM shop.orders")?, "a,b,C");
    n2.exec(&[alone, "INSERT INTO far.child VALUES (1)"])?;
    ensure!(n2.exec(&[alone, "INSERT INTO far.child VALUES (2)"]).is_err(), "the foreign key is gone");
    assert_eq!(
        n2.value("SELECT COLUMN_DEFAULT FROM information_schema.COLUMNS WHERE TABLE_NAME='numbered'")?,
        "nextval(`shop`.`numbers`)"
    );
    let grants = n2.rows("SHOW GRANTS FOR clerk@localhost")?.concat().join(";");
    ensure!(
        grants.contains("SELECT, EXECUTE ON `shop`.*") && grants.contains("INSERT ON `shop`.`orders`"),
        "{grants}"
    );
    // Not of this transfer alone: the next start opens it.
    n2.stop()?;
    n2.join()?;
    assert_eq!(n2.value("SELECT COUNT(*) FROM shop.recent")?, "3");
    Ok(())
}
