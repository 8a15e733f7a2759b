//! Logins, sessions, dumps and checks on real servers of both flavours.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in a test, a panic with a clear message is how a failure is reported"
)]

use super::config::{self, Settings};
use super::connection::Connection;
use super::dump::{DumpRequest, DumpStart};
use super::gtid::GtidSet;
use super::{check, error};
use deltaforge_core::config::{Fields, Findings, Node, Severity};
use deltaforge_core::source::Names;
use deltaforge_core::{Class, Fault};
use deltaforge_testkit::servers::{Flavour, Mysqld, MysqldOptions};
use serde_json::{Value as Json, json};
use std::time::{Duration, Instant};

fn start(flavour: Flavour, options: &MysqldOptions) -> Mysqld {
    Mysqld::start(flavour, options).unwrap_or_else(|e| panic!("{e}"))
}

fn with_tls() -> MysqldOptions {
    MysqldOptions { tls: true, ..MysqldOptions::default() }
}

fn with_args(args: &[&str]) -> MysqldOptions {
    MysqldOptions { args: args.iter().map(ToString::to_string).collect(), ..MysqldOptions::default() }
}

fn settings(config: Json) -> Settings {
    let node = Node::from_json(&config);
    let mut findings = Findings::default();
    let names = Names { pipeline: "p", default_id: "p-mysql" };
    let settings = config::parse(&mut Fields::new(&node, "", &mut findings), &names);
    assert!(findings.errors.is_empty(), "{:?}", findings.errors);
    settings.unwrap()
}

fn open(dsn: &str) -> Result<Connection, Fault> {
    Connection::open(&settings(json!({"dsn": dsn})).target)
}

#[track_caller]
fn refused(result: Result<Connection, Fault>, class: Class, code: &str) -> Fault {
    let fault = result.err().unwrap_or_else(|| panic!("a login that should fail with {code}"));
    assert_eq!((fault.class(), fault.code()), (class, code), "{fault}");
    fault
}

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
            assert!(fault.message().contains("using password: NO"), "{fault}");
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
        refused(open(&format!("{}?ssl-mode=disabled", server.dsn(""))), Class::Config, "mysql.tls");
        assert!(open(&server.dsn("")).unwrap().packets.is_encrypted());
    }
}

#[test]
fn accounts_that_may_not_log_in_say_why() {
    for flavour in Flavour::available() {
        let server = start(flavour, &with_args(&["--max-connections=3"]));
        server.sql("", "CREATE USER locked IDENTIFIED BY 'x' ACCOUNT LOCK; CREATE USER expired IDENTIFIED BY 'x' PASSWORD EXPIRE");
        server.sql("", "CREATE USER limited IDENTIFIED BY 'x' WITH MAX_USER_CONNECTIONS 1; CREATE USER away@'10.9.8.7' IDENTIFIED BY 'x'");
        let dsn = |user: &str| server.dsn_of(user, "x", "");
        for user in ["locked", "expired", "away"] {
            let fault = refused(open(&dsn(user)), Class::Config, "mysql.auth");
            assert!(fault.hint_text().is_some(), "{fault}");
        }
        let one = open(&dsn("limited")).unwrap();
        refused(open(&dsn("limited")), Class::Retry, "mysql.too_many_connections");
        drop(one);
        // One more than the limit is for administrators, as whom nobody comes here.
        let mut held: Vec<Connection> = Vec::new();
        let fault = loop {
            server.sql("", "SELECT 1");
            match open(&server.dsn("")) {
                Ok(connection) if held.len() < 10 => held.push(connection),
                Ok(_) => panic!("more connections than allowed"),
                Err(fault) => break fault,
            }
            if held.len() == 3 {
                break refused(open(&dsn("limited")), Class::Retry, "mysql.too_many_connections");
            }
        };
        assert_eq!(fault.code(), "mysql.too_many_connections", "{fault}");
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
            &with_args(&[
                hostile,
                "--sql-mode=ANSI",
                "--wait-timeout=2",
                "--lc-messages=de_DE",
                "--net-write-timeout=1",
            ]),
        );
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
        let sql = format!("SELECT {}", super::quote::literal(odd));
        assert_eq!(connection.query_text(&sql, "asking").unwrap().unwrap(), odd);
        let alias = super::quote::identifier("a`b\"c");
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
        let stop = || Err(Fault::retry("mysql.cancelled", "stopped"));
        let fault = connection.query_waiting("SELECT SLEEP(100)", "asking", &mut { stop }).unwrap_err();
        assert_eq!(fault.code(), "mysql.cancelled");
    }
}

/// A stream's packets, as its reader will see them.
struct Dump {
    transport: crate::shared::transport::Transport,
    received: Vec<u8>,
}

impl Dump {
    fn open(dsn: &str, start: DumpStart, server_id: u32) -> Result<Dump, Fault> {
        let request = DumpRequest { start, server_id, heartbeat: Duration::from_secs(1), annotate: false };
        let (transport, received) = open(dsn)?.start_dump(&request)?;
        Ok(Dump { transport, received })
    }

    /// The next packet's payload; the connection's end is an error.
    fn next(&mut self) -> Result<Vec<u8>, Fault> {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(header) = self.received.first_chunk::<4>() {
                let length = u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize;
                if self.received.len() >= 4 + length {
                    let packet: Vec<u8> = self.received.drain(..4 + length).skip(4).collect();
                    return if packet[0] == 0xff {
                        Err(error::from_packet(&packet, "streaming"))
                    } else {
                        Ok(packet)
                    };
                }
            }
            let mut chunk = [0; 4096];
            match self.transport.read(&mut chunk) {
                Ok(0) => return Err(error::closed("streaming")),
                Ok(n) => self.received.extend_from_slice(&chunk[..n]),
                Err(e) if crate::shared::transport::is_timeout(&e) => {
                    assert!(Instant::now() < until, "nothing comes")
                }
                Err(e) => return Err(error::lost_connection("streaming", &e)),
            }
        }
    }

    /// Types of the events up to the first of a type.
    fn types_up_to(&mut self, last: u8) -> Result<Vec<u8>, Fault> {
        let mut types = Vec::new();
        while types.last() != Some(&last) {
            let packet = self.next()?;
            assert_eq!(packet[0], 0, "an event begins with a zero byte");
            types.push(packet[5]);
        }
        Ok(types)
    }

    fn fault(&mut self) -> Fault {
        loop {
            if let Err(fault) = self.next() {
                return fault;
            }
        }
    }
}

const ROTATE: u8 = 4;
const FORMAT: u8 = 15;
const XID: u8 = 16;
const HEARTBEAT: u8 = 27;

fn gtid_type(flavour: Flavour) -> u8 {
    match flavour {
        Flavour::MySql => 33,
        Flavour::MariaDb => 162,
    }
}

fn rows(server: &Mysqld, count: usize) {
    server.sql(
        "",
        "CREATE DATABASE IF NOT EXISTS a; CREATE TABLE IF NOT EXISTS a.t (id INT PRIMARY KEY AUTO_INCREMENT)",
    );
    for _ in 0..count {
        server.sql("a", "INSERT INTO t VALUES (NULL)");
    }
}

#[test]
fn the_log_comes_from_a_place_and_from_a_set() {
    for flavour in Flavour::available() {
        let server = start(flavour, &MysqldOptions::default());
        rows(&server, 1);
        let (file, pos) = server.binlog_end();
        let set = GtidSet::parse(&server.gtids()).unwrap();
        rows(&server, 2);
        let dsn = server.dsn("");
        for start in [DumpStart::File { file, pos }, DumpStart::Gtids(set)] {
            let shown = format!("{flavour:?} {start:?}");
            let mut dump = Dump::open(&dsn, start, 99).unwrap_or_else(|e| panic!("{shown}: {e}"));
            let types = dump.types_up_to(HEARTBEAT).unwrap_or_else(|e| panic!("{shown}: {e}"));
            assert_eq!(types[0], ROTATE, "{shown}: {types:?}");
            assert!(types.contains(&FORMAT), "{shown}: {types:?}");
            // Two transactions and none of those before, each with its GTID.
            let count = |of: u8| types.iter().filter(|t| **t == of).count();
            assert_eq!((count(XID), count(gtid_type(flavour))), (2, 2), "{shown}: {types:?}");
        }
    }
}

#[test]
fn a_place_beyond_4_gib_needs_gtids() {
    let far = || DumpStart::File { file: "bin.000001".into(), pos: 5 << 30 };
    for flavour in Flavour::available() {
        let server = start(flavour, &MysqldOptions::default());
        match flavour {
            // The place is not there, but it is asked for, whole.
            Flavour::MySql => {
                let mut dump = Dump::open(&server.dsn(""), far(), 99).unwrap();
                let fault = dump.fault();
                assert_eq!((fault.class(), fault.code()), (Class::Lost, "mysql.source_behind"), "{fault}");
            }
            Flavour::MariaDb => {
                let fault = Dump::open(&server.dsn(""), far(), 99).err().unwrap();
                assert_eq!(fault.code(), "mysql.offset_limit", "{fault}");
            }
        }
    }
    if Flavour::MySql.is_available() {
        let server = start(Flavour::MySql, &with_args(&["--gtid-mode=OFF"]));
        let fault = Dump::open(&server.dsn(""), far(), 99).err().unwrap();
        assert_eq!(fault.code(), "mysql.offset_limit", "{fault}");
    }
}

#[test]
fn of_two_readers_with_one_server_id_the_older_stops() {
    for flavour in Flavour::available() {
        let server = start(flavour, &MysqldOptions::default());
        let latest = || {
            let (file, pos) = server.binlog_end();
            DumpStart::File { file, pos }
        };
        let mut first = Dump::open(&server.dsn(""), latest(), 99).unwrap();
        first.types_up_to(FORMAT).unwrap();
        let mut second = Dump::open(&server.dsn(""), latest(), 99).unwrap();
        let fault = first.fault();
        assert_eq!((fault.class(), fault.code()), (Class::Config, "mysql.server_id_in_use"), "{fault}");
        second.types_up_to(HEARTBEAT).unwrap();
        let mut other = Dump::open(&server.dsn(""), latest(), 98).unwrap();
        other.types_up_to(HEARTBEAT).unwrap();
        second.types_up_to(HEARTBEAT).unwrap();
    }
}

#[test]
fn places_that_are_gone_or_not_yet_there_are_lost() {
    for flavour in Flavour::available() {
        let server = start(flavour, &MysqldOptions::default());
        rows(&server, 2);
        let (file, _) = server.binlog_end();
        let old = GtidSet::parse(&server.gtids()).unwrap();
        let own = |n: u64| match flavour {
            Flavour::MySql => format!("{}:1-{n}", server.value("SELECT @@server_uuid")),
            Flavour::MariaDb => format!("7-{}-{n}", server.port()),
        };
        rows(&server, 2);
        server.sql("", "FLUSH BINARY LOGS");
        rows(&server, 2);
        let (now, end) = server.binlog_end();
        server.sql("", &format!("PURGE BINARY LOGS TO '{now}'"));
        let cases = [
            (DumpStart::File { file, pos: 4 }, "mysql.binlog_purged"),
            (DumpStart::Gtids(old), "mysql.binlog_purged"),
            (DumpStart::File { file: now, pos: end + 1000 }, "mysql.source_behind"),
            (DumpStart::Gtids(GtidSet::parse(&own(1_000_000)).unwrap()), "mysql.source_behind"),
        ];
        for (start, code) in cases {
            let shown = format!("{flavour:?} {start:?}");
            let mut dump = Dump::open(&server.dsn(""), start, 99).unwrap();
            let fault = dump.fault();
            assert_eq!((fault.class(), fault.code()), (Class::Lost, code), "{shown}: {fault}");
        }
    }
}

#[test]
fn a_server_without_gtids_or_log_says_so() {
    if Flavour::MySql.is_available() {
        let server = start(Flavour::MySql, &with_args(&["--gtid-mode=OFF"]));
        let set = GtidSet::parse(&format!("{}:1-5", server.value("SELECT @@server_uuid"))).unwrap();
        let fault = Dump::open(&server.dsn(""), DumpStart::Gtids(set), 99).unwrap().fault();
        assert_eq!((fault.class(), fault.code()), (Class::Config, "mysql.gtid_mode"), "{fault}");
    }
    for flavour in Flavour::available() {
        let server = start(flavour, &with_args(&["--skip-log-bin"]));
        let settings = settings(json!({"dsn": server.dsn("")}));
        let fault = check::require(&settings, &mut open(&server.dsn("")).unwrap()).unwrap_err();
        assert_eq!((fault.class(), fault.code()), (Class::Config, "mysql.binlog_off"), "{fault}");
        let mut dump =
            Dump::open(&server.dsn(""), DumpStart::File { file: "bin.000001".into(), pos: 4 }, 99).unwrap();
        let fault = dump.fault();
        assert_eq!((fault.class(), fault.code()), (Class::Config, "mysql.binlog_off"), "{fault}");
        assert!(find(&check::run(&settings), "log_bin").contains("under [m"));
    }
}

/// The finding of a name that is not `Ok`, with its remedy.
#[track_caller]
fn find(report: &deltaforge_core::config::Report, name: &str) -> String {
    let found = report.problems().find(|check| check.name == name);
    let found = found.unwrap_or_else(|| panic!("no finding `{name}`: {report:#?}"));
    format!("{} => {}", found.evidence, found.remedy.as_deref().unwrap_or_default())
}

const USER: &str = "GRANT REPLICATION SLAVE, REPLICATION CLIENT, SELECT ON *.* TO cdc";

#[test]
fn a_server_as_it_should_be_has_no_findings_for_a_user_with_the_rights_of_the_guide() {
    for flavour in Flavour::available() {
        let server = start(flavour, &MysqldOptions::default());
        server.sql("", &format!("CREATE USER cdc IDENTIFIED BY 'x'; {USER}"));
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
        rows(&server, 1);
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
        let version = super::flavour::Version::parse(&server.version(), "");
        if flavour == Flavour::MariaDb || !version.is_at_least(9, 6, 0) {
            let keys = find(&report, "foreign keys");
            assert!(
                keys.contains("`a`.`child` by `fk1` (ON DELETE CASCADE") && !keys.contains("fk2"),
                "{keys}"
            );
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
