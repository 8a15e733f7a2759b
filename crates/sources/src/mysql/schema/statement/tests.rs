//! Statements as servers log them, and odder ones.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test, a panic with a clear message is how a failure is reported"
)]

use super::*;

const MYSQL: Context<'_> =
    Context { flavour: Flavour::MySql, database: "shop", sql_mode: 0, fold_names: false };
const MARIADB: Context<'_> = Context { flavour: Flavour::MariaDb, ..MYSQL };

/// Both servers must read it the same way.
#[track_caller]
fn of(sql: &str) -> Statement {
    let statement = classify(sql.as_bytes(), &MYSQL);
    assert_eq!(classify(sql.as_bytes(), &MARIADB), statement, "{sql}");
    statement
}

fn mariadb(sql: &str) -> Statement {
    classify(sql.as_bytes(), &MARIADB)
}

fn table(name: &str) -> TableRef {
    let (db, table) = name.split_once('.').unwrap_or(("shop", name));
    TableRef { db: db.into(), table: table.into() }
}

fn change(kind: ChangeKind, name: &str) -> TableChange {
    TableChange { kind, table: table(name) }
}

fn alters(name: &str) -> Statement {
    Statement::Tables(vec![change(ChangeKind::Alter { rows: false }, name)])
}

fn renames(pairs: &[(&str, &str)]) -> Statement {
    let rename = |(from, to): &(&str, &str)| change(ChangeKind::Rename { to: table(to) }, from);
    Statement::Tables(pairs.iter().map(rename).collect())
}

fn drops(names: &[&str]) -> Statement {
    Statement::Tables(names.iter().map(|name| change(ChangeKind::Drop, name)).collect())
}

fn creates(name: &str, keeps: bool) -> Statement {
    Statement::Tables(vec![change(ChangeKind::Create { keeps }, name)])
}

fn rows(verb: &str, names: &[&str]) -> Statement {
    Statement::Rows { verb: verb.into(), tables: names.iter().map(|name| table(name)).collect() }
}

#[test]
fn transactions() {
    for (sql, statement) in [
        ("BEGIN", Statement::Begin),
        ("begin work", Statement::Begin),
        (" /* x */ START TRANSACTION READ WRITE", Statement::Begin),
        ("COMMIT", Statement::Commit),
        ("COMMIT /* implicit, from Xid_log_event */", Statement::Commit),
        ("commit work", Statement::Commit),
        ("ROLLBACK", Statement::Rollback),
        ("ROLLBACK WORK", Statement::Rollback),
        ("SAVEPOINT `sp``1`", Statement::Savepoint("sp`1".into())),
        ("ROLLBACK TO `a`", Statement::RollbackTo("a".into())),
        ("ROLLBACK WORK TO SAVEPOINT a", Statement::RollbackTo("a".into())),
        ("RELEASE SAVEPOINT a", Statement::ReleaseSavepoint("a".into())),
        // A compound statement of MariaDB, not a transaction.
        ("BEGIN NOT ATOMIC DELETE FROM t; END", Statement::Unknown),
        ("START SLAVE", Statement::Other),
    ] {
        assert_eq!(of(sql), statement, "{sql}");
    }
}

#[test]
fn xa() {
    let xid =
        |gtrid: &[u8], bqual: &[u8], format| Xid { format, gtrid: gtrid.to_vec(), bqual: bqual.to_vec() };
    for (sql, statement) in [
        ("XA START X'31',X'',1", Statement::XaStart(xid(b"1", b"", 1))),
        ("XA BEGIN 'a','b',7", Statement::XaStart(xid(b"a", b"b", 7))),
        ("XA END X'3132ff',X'33',0x10", Statement::XaEnd(xid(b"12\xff", b"3", 16))),
        ("XA PREPARE 0x6162", Statement::XaPrepare(xid(b"ab", b"", 1))),
        ("XA COMMIT X'31',X'32',1", Statement::XaCommit(xid(b"1", b"2", 1), false)),
        ("XA COMMIT X'31',X'32',1 ONE PHASE", Statement::XaCommit(xid(b"1", b"2", 1), true)),
        ("XA ROLLBACK X'31',X'32',1", Statement::XaRollback(xid(b"1", b"2", 1))),
        ("XA RECOVER", Statement::Other),
        ("XA COMMIT X'3',X'',1", Statement::Unknown),
        ("XA COMMIT X'zz',X'',1", Statement::Unknown),
        ("XA START", Statement::Unknown),
    ] {
        assert_eq!(of(sql), statement, "{sql}");
    }
    let long = format!("XA START X'{}',X'',1", "31".repeat(65));
    assert_eq!(of(&long), Statement::Unknown);
}

#[test]
fn tables_made() {
    for (sql, statement) in [
        ("CREATE TABLE t (a INT)", creates("t", false)),
        ("create table if not exists `a.b`.`c``d` (a int)", creates("a.b.c`d", true)),
        ("CREATE TABLE `t` (\n  `id` int\n) START TRANSACTION", creates("t", false)),
        ("CREATE TABLE x.t SELECT 1 AS a", creates("x.t", false)),
        ("/*!50000 CREATE TABLE t (a INT) */", creates("t", false)),
        ("-- note\n# other\nCREATE\tTABLE t(a INT)", creates("t", false)),
        ("CREATE /* ; */ TABLE .t (a INT)", creates("t", false)),
        ("CREATE TABLE 1t (a INT)", creates("1t", false)),
        ("CREATE TABLE shop.2 (a INT)", creates("2", false)),
        ("CREATE TEMPORARY TABLE t (a INT)", Statement::Other),
        ("CREATE /*!99999 TEMPORARY */ TABLE t (a INT)", Statement::Other),
    ] {
        let expected = match statement {
            // `split_once` of the helper stops at the first dot.
            Statement::Tables(_) if sql.contains("a.b") => Statement::Tables(vec![TableChange {
                kind: ChangeKind::Create { keeps: true },
                table: TableRef { db: "a.b".into(), table: "c`d".into() },
            }]),
            other => other,
        };
        assert_eq!(of(sql), expected, "{sql}");
    }
    let like = |from: &str, keeps| change(ChangeKind::CreateLike { from: table(from), keeps }, "t");
    assert_eq!(of("CREATE TABLE t LIKE a.b"), Statement::Tables(vec![like("a.b", false)]));
    assert_eq!(of("CREATE TABLE IF NOT EXISTS t (LIKE b)"), Statement::Tables(vec![like("b", true)]));
    assert_eq!(mariadb("CREATE OR REPLACE TABLE t (a INT)"), creates("t", false));
    assert_eq!(
        mariadb("SET STATEMENT max_statement_time=f(1, 2 FOR 3), b='FOR' FOR CREATE TABLE t (a INT)"),
        creates("t", false)
    );
    assert_eq!(
        mariadb("CREATE SEQUENCE IF NOT EXISTS s"),
        Statement::Tables(vec![change(ChangeKind::CreateSequence, "s")])
    );
    assert_eq!(mariadb("/*M!100100 DROP TABLE t */"), drops(&["t"]));
    assert_eq!(classify(b"/*M!100100 DROP TABLE t */", &MYSQL), Statement::Unknown);
}

#[test]
fn tables_changed() {
    for sql in [
        "ALTER TABLE t ADD COLUMN a INT",
        "alter ignore table `t` add (a int, b int)",
        "ALTER TABLE shop.t RENAME COLUMN a TO b, RENAME INDEX c TO d, RENAME KEY e TO f",
        "ALTER TABLE t COMMENT 'RENAME TO x, TRUNCATE PARTITION p'",
        "ALTER TABLE t ADD COLUMN `rename` INT DEFAULT (1 + (2)), ALGORITHM=INPLACE",
        "ALTER TABLE t CONVERT TO CHARACTER SET utf8mb4",
        "ALTER TABLE t",
        "CREATE UNIQUE INDEX i ON t (a)",
        "CREATE FULLTEXT INDEX `on` USING BTREE ON shop.t (a)",
        "DROP INDEX `PRIMARY` ON t",
    ] {
        assert_eq!(of(sql), alters("t"), "{sql}");
    }
    assert_eq!(mariadb("ALTER ONLINE TABLE IF EXISTS t NOWAIT ADD COLUMN IF NOT EXISTS a INT"), alters("t"));
    assert_eq!(mariadb("CREATE OR REPLACE INDEX IF NOT EXISTS i ON t (a)"), alters("t"));
    for sql in [
        "ALTER TABLE t TRUNCATE PARTITION p0, p1",
        "ALTER TABLE t DROP PARTITION p0",
        "ALTER TABLE t EXCHANGE PARTITION p0 WITH TABLE u WITHOUT VALIDATION",
        "ALTER TABLE t DISCARD TABLESPACE",
        "ALTER TABLE t IMPORT PARTITION p TABLESPACE",
    ] {
        let expected = Statement::Tables(vec![change(ChangeKind::Alter { rows: true }, "t")]);
        assert_eq!(of(sql), expected, "{sql}");
    }
    let split =
        |new: TableChange| Statement::Tables(vec![change(ChangeKind::Alter { rows: true }, "t"), new]);
    let made = change(ChangeKind::Create { keeps: false }, "u");
    assert_eq!(mariadb("ALTER TABLE t CONVERT PARTITION p TO TABLE u"), split(made));
    let taken = change(ChangeKind::Drop, "u");
    assert_eq!(mariadb("ALTER TABLE t CONVERT TABLE u TO PARTITION p VALUES LESS THAN (9)"), split(taken));
}

#[test]
fn tables_renamed() {
    for (sql, statement) in [
        ("RENAME TABLE a TO b", renames(&[("a", "b")])),
        ("RENAME TABLES `a` TO x.b, c TO a;", renames(&[("a", "x.b"), ("c", "a")])),
        // gh-ost and pt-online-schema-change.
        (
            "rename /* gh-ost */ table `shop`.`t` to `shop`.`_t_del`, `shop`.`_t_gho` to `shop`.`t`",
            renames(&[("t", "_t_del"), ("_t_gho", "t")]),
        ),
        (
            "RENAME TABLE `shop`.`t` TO `shop`.`_t_old`, `shop`.`_t_new` TO `shop`.`t`",
            renames(&[("t", "_t_old"), ("_t_new", "t")]),
        ),
        ("ALTER TABLE t RENAME TO x.u", renames(&[("t", "x.u")])),
        ("ALTER TABLE t RENAME u", renames(&[("t", "u")])),
        ("ALTER TABLE t RENAME AS u;", renames(&[("t", "u")])),
        ("ALTER TABLE t RENAME = u", renames(&[("t", "u")])),
        ("RENAME USER a TO b", Statement::Other),
        ("RENAME TABLE a TO b c", Statement::Unknown),
        ("RENAME TABLE a", Statement::Unknown),
    ] {
        assert_eq!(of(sql), statement, "{sql}");
    }
    let both = vec![
        change(ChangeKind::Alter { rows: false }, "t"),
        change(ChangeKind::Rename { to: table("u") }, "t"),
    ];
    assert_eq!(of("ALTER TABLE t ADD a INT, RENAME TO u, DROP b"), Statement::Tables(both));
    assert_eq!(
        mariadb("RENAME TABLE IF EXISTS a WAIT 5 TO b, c NOWAIT TO d"),
        renames(&[("a", "b"), ("c", "d")])
    );
}

#[test]
fn tables_gone_and_emptied() {
    let emptied = Statement::Tables(vec![change(ChangeKind::Truncate, "t")]);
    for (sql, statement) in [
        ("DROP TABLE t", drops(&["t"])),
        ("DROP TABLE IF EXISTS `a`,`x`.`b` /* generated by server */", drops(&["a", "x.b"])),
        ("DROP TABLES t CASCADE", drops(&["t"])),
        ("DROP /*!40005 TEMPORARY */ TABLE IF EXISTS `t`", Statement::Other),
        ("DROP TEMPORARY TABLE t", Statement::Other),
        ("TRUNCATE t", emptied.clone()),
        (
            "TRUNCATE TABLE `shop`.`t`  /* generated by server, implicitly emptying in-memory table */",
            emptied,
        ),
    ] {
        assert_eq!(of(sql), statement, "{sql}");
    }
    assert_eq!(mariadb("DROP SEQUENCE IF EXISTS s"), drops(&["s"]));
}

#[test]
fn databases() {
    let change = |kind, db: &str, charset: Option<&str>, keeps| {
        Statement::Database(DatabaseChange { kind, db: db.into(), charset: charset.map(String::from), keeps })
    };
    let of_db = |kind, db: &str, charset: Option<&str>| change(kind, db, charset, false);
    for (sql, statement) in [
        ("CREATE DATABASE IF NOT EXISTS d", change(DatabaseKind::Create, "d", None, true)),
        ("CREATE DATABASE d", of_db(DatabaseKind::Create, "d", None)),
        (
            "CREATE SCHEMA `d` DEFAULT CHARACTER SET = latin1 COLLATE latin1_bin",
            of_db(DatabaseKind::Create, "d", Some("latin1")),
        ),
        (
            "CREATE DATABASE d COLLATE utf8mb4_bin ENCRYPTION='N'",
            of_db(DatabaseKind::Create, "d", Some("utf8mb4")),
        ),
        ("ALTER DATABASE CHARSET 'utf8'", of_db(DatabaseKind::Alter, "shop", Some("utf8"))),
        ("ALTER SCHEMA d READ ONLY = 1", of_db(DatabaseKind::Alter, "d", None)),
        ("DROP DATABASE IF EXISTS d", of_db(DatabaseKind::Drop, "d", None)),
    ] {
        assert_eq!(of(sql), statement, "{sql}");
    }
}

#[test]
fn rows_changed_by_statements() {
    for (sql, statement) in [
        ("INSERT INTO t VALUES (1)", rows("INSERT", &["t"])),
        ("insert low_priority ignore x.t select * from u", rows("INSERT", &["x.t"])),
        ("REPLACE DELAYED t SET a = 1", rows("REPLACE", &["t"])),
        ("UPDATE t SET a = (SELECT 1 FROM u)", rows("UPDATE", &["t"])),
        (
            "UPDATE LOW_PRIORITY t AS x JOIN (u, v) ON 1, (SELECT 1 FROM r) d SET a = 1",
            rows("UPDATE", &["t", "u", "v"]),
        ),
        ("DELETE FROM `x`.`t`", rows("DELETE", &["x.t"])),
        (
            "DELETE QUICK t, u.* FROM t JOIN u USING (a) WHERE EXISTS (SELECT 1 FROM v)",
            rows("DELETE", &["t", "u", "t", "u"]),
        ),
        ("DELETE FROM t USING t, u WHERE 1", rows("DELETE", &["t", "t", "u"])),
        (
            "LOAD DATA LOCAL INFILE 'a' REPLACE INTO TABLE x.t FIELDS TERMINATED BY ','",
            rows("LOAD", &["x.t"]),
        ),
        ("LOAD XML INFILE 'INTO' INTO TABLE t", rows("LOAD", &["t"])),
        ("LOAD INDEX INTO CACHE t", Statement::Other),
        ("WITH c AS (SELECT 1 FROM u), d (x) AS (SELECT 2) UPDATE t SET a = 1", rows("UPDATE", &["t"])),
        ("WITH c AS (SELECT 1) DELETE FROM t", rows("DELETE", &["t"])),
        ("SELECT `shop`.`f`(1)", rows("SELECT", &[])),
        ("CALL p()", rows("CALL", &[])),
        ("(SELECT f())", rows("SELECT", &[])),
        ("DO f()", rows("DO", &[])),
    ] {
        assert_eq!(of(sql), statement, "{sql}");
    }
    assert_eq!(mariadb("ANALYZE FORMAT=JSON UPDATE t SET a = 1"), rows("ANALYZE", &[]));
    assert_eq!(mariadb("SET STATEMENT sql_mode='' FOR DELETE FROM t"), rows("DELETE", &["t"]));
}

#[test]
fn harmless_and_unknown_ones() {
    for sql in [
        "GRANT ALL ON *.* TO a@b",
        "REVOKE ALL ON t FROM a",
        "CREATE USER 'a'@'b' IDENTIFIED WITH x AS 'y'",
        "ALTER USER a PASSWORD EXPIRE",
        "DROP ROLE r",
        "SET PASSWORD FOR a = 'b'",
        "SET @@global.x = 1",
        "FLUSH PRIVILEGES",
        "ANALYZE TABLE t",
        "ANALYZE NO_WRITE_TO_BINLOG TABLE t",
        "OPTIMIZE TABLE t",
        "REPAIR LOCAL TABLE t",
        "CREATE DEFINER=`table`@`%` PROCEDURE p() BEGIN DROP TABLE t; END",
        "CREATE DEFINER = CURRENT_USER() TRIGGER x BEFORE INSERT ON t FOR EACH ROW SET @a = 1",
        "CREATE DEFINER=event@localhost SQL SECURITY INVOKER VIEW v AS SELECT 1",
        "CREATE OR REPLACE ALGORITHM=UNDEFINED DEFINER=`a`@`b` SQL SECURITY DEFINER VIEW v AS SELECT 1",
        "ALTER ALGORITHM = MERGE VIEW v AS SELECT 1",
        "ALTER DEFINER = a EVENT e ENABLE",
        "CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO DROP TABLE t",
        "CREATE AGGREGATE FUNCTION f RETURNS INT SONAME 'x'",
        "CREATE FUNCTION f() RETURNS INT RETURN 1",
        "DROP TRIGGER IF EXISTS x",
        "DROP VIEW v, w",
        "CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (HOST 'x')",
        "CREATE TABLESPACE x ADD DATAFILE 'y'",
        "ALTER UNDO TABLESPACE x SET INACTIVE",
        "CREATE SPATIAL REFERENCE SYSTEM 4120 NAME 'x'",
        "INSTALL PLUGIN x SONAME 'y'",
        "KILL 5",
        "CREATE RESOURCE GROUP g TYPE = USER",
    ] {
        assert_eq!(of(sql), Statement::Other, "{sql}");
    }
    for sql in [
        "",
        " ",
        "IMPORT TABLE FROM '/tmp/x.sdi'",
        "FROBNICATE TABLE t",
        "CREATE",
        "CREATE TABLE",
        "CREATE HOLOGRAM h",
        "ALTER TABLE",
        "DROP TABLE a.",
        "TRUNCATE",
        "INSERT INTO",
        "/* never closed",
        "ALTER TABLE t COMMENT 'never closed",
        "123",
        "`t`",
    ] {
        assert_eq!(of(sql), Statement::Unknown, "{sql}");
    }
    assert_eq!(classify(b"CREATE TABLE \xff (a INT)", &MYSQL), Statement::Unknown);
    assert_eq!(classify(b"INSERT INTO t VALUES ('\xff')", &MYSQL), rows("INSERT", &["t"]));
}

#[test]
fn quotes_and_case_follow_the_server() {
    let ansi = Context { sql_mode: Settings::ANSI_QUOTES, ..MYSQL };
    assert_eq!(classify(b"DROP TABLE \"a\"\"b\"", &ansi), drops(&["a\"b"]));
    assert_eq!(classify(b"DROP TABLE \"a\"", &MYSQL), Statement::Unknown);
    let plain = Context { sql_mode: Settings::NO_BACKSLASH_ESCAPES, ..MYSQL };
    let sql = br"ALTER TABLE t COMMENT 'a\', RENAME TO u";
    let both = vec![
        change(ChangeKind::Alter { rows: false }, "t"),
        change(ChangeKind::Rename { to: table("u") }, "t"),
    ];
    assert_eq!(classify(sql, &plain), Statement::Tables(both));
    assert_eq!(classify(sql, &MYSQL), Statement::Unknown, "the text is not closed");
    let folded = Context { fold_names: true, ..MYSQL };
    assert_eq!(classify(b"DROP TABLE X.Orders", &folded), drops(&["x.orders"]));
    assert_eq!(of("DROP TABLE X.Orders"), drops(&["X.Orders"]));
}
