//! Logins, and what a session answers.

use super::super::quote;
use super::{open, refused, start, with_args, with_tls};
use deltaforge_core::{Class, Fault};
use deltaforge_testkit::servers::{Flavour, Mysqld, MysqldOptions};
use std::time::{Duration, Instant};

/// Creates users, one for each method that the server has.
fn users(server: &Mysqld) -> Vec<&'static str> {
    let mut users = Vec::new();
    let mut add = |name: &'static str, how: &str| {
        server.sql("", &format!("CREATE USER {name} IDENTIFIED {how}"));
        users.push(name);
    };
    match server.flavour() {
        Flavour::MySql => {
            add("caching", "WITH caching_sha2_password BY 'p@ss/wörd'");
            add("sha256", "WITH sha256_password BY 'p@ss/wörd'");
            // Gone from 9.0 on.
            if server.value("SELECT COUNT(*) FROM information_schema.PLUGINS WHERE PLUGIN_NAME = 'mysql_native_password' AND PLUGIN_STATUS = 'ACTIVE'") == "1" {
                add("native", "WITH mysql_native_password BY 'p@ss/wörd'");
            }
        }
        Flavour::MariaDb => {
            server.sql("", "INSTALL SONAME 'auth_ed25519'");
            add("native", "VIA mysql_native_password USING PASSWORD('p@ss/wörd')");
            add("ed", "VIA ed25519 USING PASSWORD('p@ss/wörd')");
        }
    }
    users
}

#[test]
fn every_login_method_with_and_without_tls() {
    for flavour in Flavour::available() {
        let server = start(flavour, &with_tls());
        let (ca, socket) = (server.ca_file().display().to_string(), server.socket().display().to_string());
        let at = format!("127.0.0.1:{}", server.port());
        for user in users(&server) {
            let ways = [
                format!("mysql://{user}:p%40ss%2Fwörd@{at}/?ssl-mode=disabled"),
                format!("mysql://{user}:p%40ss%2Fwörd@{at}/?ssl-mode=required"),
                format!("mysqls://{user}:p%40ss%2Fwörd@{at}/?ssl-ca={ca}"),
                format!("mysql://{user}:p%40ss%2Fwörd@/?socket={socket}"),
            ];
            for dsn in ways {
                // Forgets what makes the next login of caching_sha2_password a short one.
                server.sql("", "FLUSH PRIVILEGES");
                for _full_then_short in 0..2 {
                    let mut connection = open(&dsn).unwrap_or_else(|e| panic!("{dsn}: {e}"));
                    assert_eq!(
                        connection.packets.is_encrypted(),
                        dsn.contains("required") || dsn.starts_with("mysqls"),
                        "{dsn}"
                    );
                    assert_eq!(connection.query_text("SELECT 7", "asking").unwrap().unwrap(), "7");
                    assert_eq!(connection.account(), format!("'{user}'@'%'"));
                }
                let wrong = dsn.replacen("wörd", "word", 1);
                let fault = refused(open(&wrong), Class::Config, "mysql.auth");
                assert!(!fault.to_string().contains("p@ss"), "{fault}");
            }
            let fault = refused(open(&format!("mysql://{user}@{at}")), Class::Config, "mysql.auth");
            // ed25519 answers with a signature also for no password.
            assert!(user == "ed" || fault.message().contains("using password: NO"), "{fault}");
        }
        refused(open(&format!("mysql://nobody:x@{at}")), Class::Config, "mysql.auth");
    }
}

#[test]
fn certificates_are_checked_as_asked() {
    for flavour in Flavour::available() {
        let server = start(flavour, &with_tls());
        let (ca, other) = (
            server.tls().ca_file().display().to_string(),
            server.tls().other_ca_file().display().to_string(),
        );
        let at = |host: &str| format!("mysql://root@{host}:{}", server.port());
        let cases = [
            (format!("{}?ssl-mode=verify_ca&ssl-ca={ca}", at("127.0.0.1")), true),
            (format!("{}?ssl-mode=verify_ca&ssl-ca={other}", at("127.0.0.1")), false),
            (format!("{}?ssl-ca={other}", at("127.0.0.1")), false),
            (format!("{}?ssl-mode=required", at("127.0.0.1")), true),
        ];
        for (dsn, taken) in cases {
            match open(&dsn) {
                Ok(connection) => assert!(taken && connection.packets.is_encrypted(), "{dsn} was taken"),
                Err(fault) => {
                    assert!(!taken, "{dsn}: {fault}");
                    assert_eq!(
                        (fault.class(), fault.code()),
                        (Class::Config, "tls.certificate_refused"),
                        "{fault}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_server_with_a_certificate_of_its_own_making_is_spoken_to() {
    if !Flavour::MySql.is_available() {
        return;
    }
    let server = start(Flavour::MySql, &MysqldOptions::default());
    let connection = open(&format!("{}?ssl-mode=required", server.dsn(""))).unwrap_or_else(|e| panic!("{e}"));
    assert!(connection.packets.is_encrypted());
    // `prefer` takes it, too.
    assert!(open(&server.dsn("")).unwrap().packets.is_encrypted());
}

#[test]
fn what_server_and_client_want_of_tls_may_not_fit() {
    let server = start(Flavour::MariaDb, &MysqldOptions::default());
    refused(open(&format!("{}?ssl-mode=required", server.dsn(""))), Class::Config, "mysql.tls");
    assert!(!open(&server.dsn("")).unwrap().packets.is_encrypted());
    for flavour in Flavour::available() {
        let options = MysqldOptions {
            tls: true,
            args: vec!["--require-secure-transport=ON".into()],
            ..MysqldOptions::default()
        };
        let server = start(flavour, &options);
        let plain = open(&format!("{}?ssl-mode=disabled", server.dsn("")));
        let fault = match flavour {
            Flavour::MySql => refused(plain, Class::Config, "mysql.tls"),
            // MariaDB refuses it as it refuses a wrong password.
            Flavour::MariaDb => refused(plain, Class::Config, "mysql.auth"),
        };
        assert!(fault.hint_text().unwrap().contains("`?ssl-mode=required`"), "{fault}");
        assert!(open(&server.dsn("")).unwrap().packets.is_encrypted());
        // What the account alone demands, both refuse so.
        server.sql(
            "",
            "SET GLOBAL require_secure_transport = OFF; CREATE USER tls IDENTIFIED BY 'x' REQUIRE SSL",
        );
        let plain = open(&format!("{}?ssl-mode=disabled", server.dsn_of("tls", "x", "")));
        let fault = refused(plain, Class::Config, "mysql.auth");
        assert!(fault.hint_text().unwrap().contains("`?ssl-mode=required`"), "{fault}");
        assert!(open(&server.dsn_of("tls", "x", "")).is_ok());
        let wrong = refused(open(&server.dsn_of("tls", "y", "")), Class::Config, "mysql.auth");
        assert!(!wrong.hint_text().unwrap().contains("ssl-mode"), "{wrong}");
    }
}

#[test]
fn accounts_that_may_not_log_in_say_why() {
    for flavour in Flavour::available() {
        let server = start(flavour, &with_args(&["--max-connections=10"]));
        server.sql("", "CREATE USER locked IDENTIFIED BY 'x' ACCOUNT LOCK; CREATE USER expired IDENTIFIED BY 'x' PASSWORD EXPIRE; CREATE USER plain IDENTIFIED BY 'x'");
        server.sql("", "CREATE USER limited IDENTIFIED BY 'x' WITH MAX_USER_CONNECTIONS 1; CREATE USER away@'10.9.8.7' IDENTIFIED BY 'x'");
        let dsn = |user: &str| server.dsn_of(user, "x", "");
        for user in ["locked", "expired", "away"] {
            let fault = refused(open(&dsn(user)), Class::Config, "mysql.auth");
            assert!(fault.hint_text().is_some(), "{fault}");
        }
        let one = open(&dsn("limited")).unwrap();
        refused(open(&dsn("limited")), Class::Retry, "mysql.too_many_connections");
        drop(one);
        // MariaDB takes no lower limit than this one: it raises it without a word.
        let mut held = Vec::new();
        let fault = loop {
            match open(&dsn("plain")) {
                Ok(connection) => held.push(connection),
                Err(fault) => break fault,
            }
            assert!(held.len() <= 10, "more connections than allowed");
        };
        let got = (fault.class(), fault.code());
        assert_eq!(got, (Class::Retry, "mysql.too_many_connections"), "{fault}");
        assert!(fault.hint_text().unwrap().contains("max_connections"), "{fault}");
    }
}

#[test]
fn hosts_are_tried_in_order_and_what_does_not_answer_is_named() {
    let server = start(Flavour::MariaDb, &MysqldOptions::default());
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let dsn = format!("mysql://root@127.0.0.1:{free},127.0.0.1:{}", server.port());
    assert!(open(&dsn).is_ok());
    let fault = refused(open(&format!("mysql://root@127.0.0.1:{free}")), Class::Retry, "mysql.unreachable");
    assert!(fault.message().contains(&free.to_string()), "{fault}");
    refused(open("mysql://root@/?socket=/nonexistent/socket"), Class::Retry, "mysql.unreachable");
    server.pause();
    let begun = Instant::now();
    refused(open(&format!("{}?connect_timeout=1", server.dsn(""))), Class::Retry, "mysql.timeout");
    assert!(begun.elapsed() < Duration::from_secs(20));
    server.resume();
}

#[test]
fn the_session_is_pinned_whatever_the_server_says() {
    for flavour in Flavour::available() {
        let hostile = "--init-connect=SET NAMES latin1, sql_select_limit = 1, time_zone = '+05:45', sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES', autocommit = 0, wait_timeout = 1";
        let server = start(
            flavour,
            &with_args(&[hostile, "--sql-mode=ANSI", "--wait-timeout=2", "--net-write-timeout=1"]),
        );
        server.sql("", "SET GLOBAL lc_messages = 'de_DE'");
        // `init_connect` is not for administrators.
        server.sql("", "CREATE USER cdc IDENTIFIED BY 'x'");
        let mut connection = open(&server.dsn_of("cdc", "x", "")).unwrap_or_else(|e| panic!("{e}"));
        let sql = "SELECT @@character_set_client, @@character_set_connection, @@character_set_results, @@sql_mode, @@autocommit, \
                   @@time_zone, @@wait_timeout, @@net_write_timeout, @@net_read_timeout, @@lc_messages";
        let row = connection.query(sql, "asking").unwrap().remove(0);
        let texts: Vec<String> = (0..10).map(|i| row.text(i)).collect();
        let year = "31536000";
        assert_eq!(texts, ["utf8mb4", "utf8mb4", "utf8mb4", "", "1", "+00:00", year, year, year, "en_US"]);
        assert_eq!(connection.query("SELECT 1 UNION SELECT 2 UNION SELECT 3", "asking").unwrap().len(), 3);
        let odd = "it's \\ a \"`test\0\n\u{1f600}";
        let sql = format!("SELECT {}", quote::literal(odd));
        assert_eq!(connection.query_text(&sql, "asking").unwrap().unwrap(), odd);
        let alias = quote::identifier("a`b\"c");
        assert!(connection.query(&format!("SELECT 1 AS {alias}"), "asking").is_ok());
    }
}

#[test]
fn answers_of_any_size_and_content() {
    for flavour in Flavour::available() {
        let server = start(flavour, &with_args(&["--max-allowed-packet=64M"]));
        let mut connection = open(&server.dsn("")).unwrap();
        for length in
            [0, 1, 250, 251, 65_535, 65_536, 16_777_210, 16_777_211, 16_777_215, 16_777_216, 33_554_432]
        {
            let row = connection
                .query(&format!("SELECT REPEAT('x', {length}), NULL, x'00ff'"), "asking")
                .unwrap()
                .remove(0);
            assert_eq!(row.bytes(0).unwrap().len(), length);
            assert_eq!((row.bytes(1), row.bytes(2)), (None, Some(&[0, 255][..])));
        }
        let long = "y".repeat(17_000_000);
        let sql = format!("SELECT LENGTH('{long}')");
        assert_eq!(connection.query_text(&sql, "asking").unwrap().unwrap(), "17000000");
        let rows = connection
            .query("SELECT * FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = 'mysql'", "asking")
            .unwrap();
        assert!(rows.len() > 100);
        assert!(
            connection
                .query("SELECT 1 FROM information_schema.TABLES WHERE 1 = 0", "asking")
                .unwrap()
                .is_empty()
        );
        assert!(connection.query("DO 1", "asking").unwrap().is_empty());
        // An error leaves the connection usable, and so does one in the middle of an answer.
        let fault = connection.query("SELEC 1", "asking").unwrap_err();
        assert_eq!((fault.class(), fault.code()), (Class::Config, "mysql.refused"), "{fault}");
        let many = "SELECT 1 UNION ALL SELECT (SELECT 1 UNION SELECT 2)";
        assert_eq!(connection.query(many, "asking").unwrap_err().class(), Class::Retry);
        let fault = connection
            .query("LOAD DATA LOCAL INFILE '/etc/hostname' INTO TABLE mysql.user", "asking")
            .unwrap_err();
        assert_eq!(fault.class(), Class::Config, "{fault}");
        assert_eq!(connection.query_text("SELECT 7", "asking").unwrap().unwrap(), "7");
    }
}

#[test]
fn a_lost_connection_and_a_killed_one_are_told_from_errors() {
    for flavour in Flavour::available() {
        let server = start(flavour, &MysqldOptions::default());
        let mut connection = open(&server.dsn("")).unwrap();
        let id = connection.query_text("SELECT CONNECTION_ID()", "asking").unwrap().unwrap();
        server.sql("", &format!("KILL {id}"));
        let fault = connection.query("SELECT 1", "asking").unwrap_err();
        assert_eq!(fault.class(), Class::Retry, "{fault}");
        let mut connection = open(&server.dsn("")).unwrap();
        server.kill();
        assert_eq!(connection.query("SELECT 1", "asking").unwrap_err().code(), "mysql.connection_lost");
        server.restart();
        let mut connection = open(&server.dsn("")).unwrap();
        let stop = || Err(Fault::retry("mysql.timeout", "stopped"));
        let fault = connection.query_waiting("SELECT SLEEP(100)", "asking", &mut { stop }).unwrap_err();
        assert_eq!(fault.code(), "mysql.timeout");
    }
}
