//! What is found wrong with a server's settings and an account's rights.

use super::dump::{Dump, XID};
use super::{create_table, find, rows, settings, start, with_args};
use crate::mysql::check;
use crate::mysql::config::Settings;
use crate::mysql::connection::Connection;
use crate::mysql::dump::DumpStart;
use crate::mysql::flavour::Version;
use deltaforge_core::Class;
use deltaforge_core::config::Severity;
use deltaforge_testkit::servers::{Flavour, Mysqld, MysqldOptions};
use serde_json::json;

const USER: &str = "GRANT REPLICATION SLAVE, REPLICATION CLIENT, SELECT ON *.* TO cdc";

#[test]
fn a_server_as_it_should_be_has_no_findings_for_a_user_with_the_rights_of_the_guide() {
    for flavour in Flavour::available() {
        let server = start(flavour, &MysqldOptions::default());
        server.sql("", &format!("CREATE USER cdc IDENTIFIED BY 'x'; {USER}"));
        create_table(&server);
        rows(&server, 1);
        let settings = settings(json!({"dsn": server.dsn_of("cdc", "x", "a"), "tables": ["t"]}));
        let report = check::run(&settings);
        assert_eq!(report.problems().count(), 0, "{report:#?}");
        assert!(report.checks.len() > 10, "{report:#?}");
        let mut connection = Connection::open(&settings.target).unwrap();
        check::require(&settings, &mut connection).unwrap();
        check::warn(&settings, &mut connection);
        let mut dump = Dump::open(
            &server.dsn_of("cdc", "x", ""),
            DumpStart::File { file: "bin.000001".into(), pos: 4 },
            99,
        )
        .unwrap();
        dump.types_up_to(XID).unwrap();
    }
}

#[test]
fn missing_rights_come_with_the_statement_that_gives_them() {
    for flavour in Flavour::available() {
        let server = start(flavour, &MysqldOptions::default());
        create_table(&server);
        server.sql("", "CREATE USER 'o''dd'@'127.0.0.1' IDENTIFIED BY 'x'");
        let dsn = server.dsn_of("o%27dd", "x", "a");
        let settings = settings(json!({"dsn": dsn, "tables": ["t"]}));
        let report = check::run(&settings);
        let grant = "GRANT REPLICATION SLAVE, REPLICATION CLIENT, SELECT ON *.* TO 'o''dd'@'127.0.0.1';";
        for name in ["rights", "log"] {
            assert!(find(&report, name).ends_with(grant), "{}", find(&report, name));
        }
        assert!(find(&report, "tables").ends_with("GRANT SELECT ON *.* TO 'o''dd'@'127.0.0.1';"));
        find(&report, "database");
        let fault =
            Dump::open(&dsn, DumpStart::File { file: "bin.000001".into(), pos: 4 }, 99).err().unwrap();
        assert_eq!((fault.class(), fault.code()), (Class::Config, "mysql.no_rights"), "{fault}");
        assert_eq!(fault.hint_text(), Some(grant));
        // The statement is right.
        server.sql("", grant);
        assert_eq!(check::run(&settings).problems().count(), 0, "{:#?}", check::run(&settings));
        // A right to change is not one to read.
        server.sql(
            "",
            "REVOKE SELECT ON *.* FROM 'o''dd'@'127.0.0.1'; GRANT INSERT ON a.* TO 'o''dd'@'127.0.0.1'",
        );
        assert!(
            find(&check::run(&settings), "select")
                .ends_with("GRANT SELECT ON `a`.`t` TO 'o''dd'@'127.0.0.1';")
        );
    }
}

#[test]
fn settings_that_lose_something_are_found_on_a_server() {
    for flavour in Flavour::available() {
        let mut args = vec![
            "--binlog-format=MIXED",
            "--binlog-row-image=MINIMAL",
            "--binlog-row-metadata=MINIMAL",
            "--binlog-expire-logs-seconds=3600",
            "--binlog-ignore-db=hidden",
        ];
        if flavour == Flavour::MySql {
            args.push("--gtid-mode=OFF");
            // From 9.6 on; those before have no other.
            args.push("--loose-innodb-native-foreign-keys=ON");
        }
        let server = start(flavour, &with_args(&args));
        server.sql(
            "",
            "CREATE DATABASE a; CREATE TABLE a.plain (n INT); CREATE TABLE a.parent (id INT PRIMARY KEY)",
        );
        server.sql("a", "CREATE TABLE child (id INT PRIMARY KEY, p INT, CONSTRAINT fk1 FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE)");
        server.sql("a", "CREATE TABLE strict (id INT PRIMARY KEY, p INT, CONSTRAINT fk2 FOREIGN KEY (p) REFERENCES parent (id))");
        server.sql("", &format!("CREATE USER cdc IDENTIFIED BY 'x'; {USER}"));
        let config = json!({"dsn": server.dsn_of("cdc", "x", ""), "tables": ["a.%", "b.none"], "server_id": server.port()});
        let settings = settings(config);
        let report = check::run(&settings);
        assert!(find(&report, "binlog_format").contains("binlog_format = 'ROW'"));
        assert!(find(&report, "binlog_row_image").contains("MINIMAL"));
        assert!(find(&report, "binlog_row_metadata").contains("MINIMAL"));
        assert!(find(&report, "retention").contains("3600 s"));
        assert!(find(&report, "server_id").contains("the server's own"));
        assert!(find(&report, "log").contains("not logged: hidden"));
        assert!(find(&report, "tables").contains("`b.none`"));
        assert!(
            find(&report, "primary keys").contains("apart: `a`.`plain` =>"),
            "{}",
            find(&report, "primary keys")
        );
        if flavour == Flavour::MySql {
            assert!(find(&report, "gtid").contains("gtid_mode is OFF"));
        }
        let keys = find(&report, "foreign keys");
        assert!(
            keys.contains("`a`.`child` by `fk1` (ON DELETE CASCADE, ON UPDATE") && !keys.contains("fk2"),
            "{keys}"
        );
        let version = Version::parse(&server.version(), "");
        if flavour == Flavour::MySql && version.is_at_least(9, 6, 0) {
            assert!(keys.contains("SET PERSIST_ONLY innodb_native_foreign_keys = OFF;"), "{keys}");
        } else {
            assert!(keys.contains("ALTER TABLE `a`.`child` DROP FOREIGN KEY `fk1`;"), "{keys}");
        }
        let mut connection = Connection::open(&settings.target).unwrap();
        assert_eq!(check::require(&settings, &mut connection).unwrap_err().code(), "mysql.binlog_format");
        server.sql("", "SET GLOBAL binlog_format = 'ROW'");
        check::require(&settings, &mut connection).unwrap();
        let strict = Settings { tables_must_exist: true, ..settings };
        assert_eq!(check::require(&strict, &mut connection).unwrap_err().code(), "mysql.missing_tables");
        assert!(
            check::run(&strict).checks.iter().any(|c| c.name == "tables" && c.severity == Severity::Error)
        );
    }
}

#[test]
fn a_replica_that_does_not_log_what_it_replicates_is_found() {
    for flavour in Flavour::available() {
        let primary = start(flavour, &MysqldOptions::default());
        let off = match flavour {
            Flavour::MySql => "--log-replica-updates=OFF",
            Flavour::MariaDb => "--log-slave-updates=OFF",
        };
        let replica = Mysqld::replica_of(&primary, &with_args(&[off])).unwrap_or_else(|e| panic!("{e}"));
        let report = check::run(&settings(json!({"dsn": replica.dsn("")})));
        assert!(find(&report, "replica").contains("log_slave_updates"), "{report:#?}");
        // What replicates nothing need not log it.
        let alone = start(flavour, &with_args(&[off]));
        let report = check::run(&settings(json!({"dsn": alone.dsn("")})));
        assert!(report.problems().all(|check| check.name != "replica"), "{report:#?}");
    }
}
