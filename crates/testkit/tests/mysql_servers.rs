//! MySQL and MariaDB are real, do what their commands say, and keep what they are given.
#![allow(clippy::unwrap_used, reason = "a test, its helper functions included, fails by panicking")]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use deltaforge_testkit::servers::{Flavour, Mysqld, MysqldOptions};
use deltaforge_testkit::wait_for;

const SOON: Duration = Duration::from_secs(20);

static MYSQL: LazyLock<Mysqld> = LazyLock::new(|| start(Flavour::MySql, &[]));
static MARIADB: LazyLock<Mysqld> = LazyLock::new(|| start(Flavour::MariaDb, &[]));

fn start(flavour: Flavour, args: &[&str]) -> Mysqld {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    Mysqld::start(flavour, &MysqldOptions { args, ..MysqldOptions::default() }).unwrap()
}

/// One server per flavour, for the tests that leave it as it is.
fn shared() -> impl Iterator<Item = &'static Mysqld> {
    Flavour::available().into_iter().map(|flavour| match flavour {
        Flavour::MySql => &*MYSQL,
        Flavour::MariaDb => &*MARIADB,
    })
}

fn connects(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

fn row(cells: &[Option<&str>]) -> Vec<Option<String>> {
    cells.iter().map(|cell| cell.map(str::to_owned)).collect()
}

#[test]
fn they_live() {
    for flavour in Flavour::available() {
        let begin = Instant::now();
        let mysqld = start(flavour, &[]);
        // Past the capture of the test runner, so that a report of a run says what it ran on.
        let version = mysqld.version();
        let _ = writeln!(std::io::stderr(), "{} {version}, started in {:?}", flavour.name(), begin.elapsed());
        assert_eq!(version.contains("MariaDB"), flavour == Flavour::MariaDb);
        assert_eq!(mysqld.dsn("x"), format!("{}://root@127.0.0.1:{}/x", flavour.name(), mysqld.port()));

        let db = mysqld.fresh_db("it`s");
        mysqld.sql(
            &db,
            "create table t (id int primary key, name text); insert into t values (1, null), (2, 'b')",
        );
        let rows = mysqld.sql(&db, "select * from t order by id");
        assert_eq!(rows, [row(&[Some("1"), None]), row(&[Some("2"), Some("b")])]);
        let error = mysqld.try_sql(&db, "select 1; select * from nowhere").unwrap_err();
        assert_eq!((error.code, error.state.as_str()), (1146, "42S02"));

        let (port, before) = (mysqld.port(), mysqld.gtids());
        assert!(!before.is_empty());
        mysqld.stop();
        assert!(!connects(port));
        mysqld.restart();
        mysqld.sql(&db, "insert into t values (3, 'c')");
        mysqld.kill();
        assert!(!connects(port));
        mysqld.restart();
        assert_eq!(mysqld.port(), port);
        assert_eq!(mysqld.value(&format!("select count(*) from `{}`.t", db.replace('`', "``"))), "3");
        assert_ne!(mysqld.gtids(), before);
        // Each start begins a file.
        assert_eq!(mysqld.binlog_end().0, "bin.000003");
        assert!(mysqld.data_dir().join("bin.000001").is_file());
        assert!(mysqld.log().contains("ready for connections"));
    }
}

#[test]
fn they_log_rows_whole() {
    for mysqld in shared() {
        for (variable, value) in [
            ("log_bin", "1"),
            ("binlog_format", "ROW"),
            ("binlog_row_image", "FULL"),
            ("binlog_row_metadata", "FULL"),
            ("character_set_server", "utf8mb4"),
        ] {
            assert_eq!(mysqld.value(&format!("select @@global.{variable}")), value, "{variable}");
        }
    }
    let ids = |mysqld: &Mysqld| match mysqld.flavour() {
        Flavour::MySql => mysqld.value("select @@server_uuid"),
        Flavour::MariaDb => mysqld.value("select @@server_id"),
    };
    for mysqld in shared() {
        assert_ne!(ids(&start(mysqld.flavour(), &[])), ids(mysqld), "two servers, one identity");
    }
}

#[test]
fn a_later_argument_wins() {
    for flavour in Flavour::available() {
        let (argument, question, answer) = match flavour {
            Flavour::MySql => ("--gtid-mode=OFF", "select @@gtid_mode", "OFF"),
            Flavour::MariaDb => ("--log-bin-compress=ON", "select @@log_bin_compress", "1"),
        };
        let mysqld = start(flavour, &[argument, "--binlog-row-metadata=MINIMAL"]);
        assert_eq!(mysqld.value(question), answer);
        assert_eq!(mysqld.value("select @@global.binlog_row_metadata"), "MINIMAL");
    }
}

#[test]
fn a_session_keeps_every_byte_and_tells_null_from_its_name() {
    for mysqld in shared() {
        let db = mysqld.fresh_db("bytes");
        let mut session = mysqld.session(&db);
        session.sql("create table t (id int primary key, b longblob, c text)");
        let all: Vec<u8> = (0..=255).collect();
        let mut insert = b"insert into t values (1, _binary'".to_vec();
        for byte in &all {
            if matches!(byte, b'\'' | b'\\') {
                insert.push(b'\\');
            }
            insert.push(*byte);
        }
        insert.extend(b"', 'NULL'), (2, null, '\tx\n<y>&\\\\ \xf0\x9f\xa6\x80')");
        assert!(session.bytes(&insert).unwrap().is_empty());

        let rows = session.bytes(b"select b, c from t order by id").unwrap();
        assert_eq!(rows[0], [Some(all), Some(b"NULL".to_vec())]);
        assert_eq!(rows[1], [None, Some("\tx\n<y>&\\ 🦀".as_bytes().to_vec())]);
        assert_eq!(session.columns(), ["b", "c"]);
        // Lengths on both sides of each of their forms, in one row.
        let lengths = [0, 250, 251, 65_535, 65_536, 70_000];
        let repeats: Vec<String> = lengths.iter().map(|n| format!("repeat('x', {n})")).collect();
        let rows = session.sql(&format!("select {}", repeats.join(", ")));
        let found: Vec<usize> = rows[0].iter().map(|cell| cell.as_ref().unwrap().len()).collect();
        assert_eq!(found, lengths);
    }
}

#[test]
fn a_session_sends_and_receives_more_than_one_packet_holds() {
    for flavour in Flavour::available() {
        let mysqld = start(flavour, &["--max-allowed-packet=64M"]);
        let db = mysqld.fresh_db("large");
        let mut session = mysqld.session(&db);
        session.sql("create table t (id int primary key, b longblob)");
        // The command is one byte of the first packet: this one ends exactly with it.
        let text = "insert into t values (1, '')";
        let exact = 0xFF_FFFF - 1 - text.len();
        for (id, length) in [(1, exact), (2, 17 << 20)] {
            session.sql(&format!("insert into t values ({id}, '{}')", "y".repeat(length)));
            let rows = session.bytes(format!("select b from t where id = {id}").as_bytes()).unwrap();
            let value = rows[0][0].as_ref().unwrap();
            assert!(value.len() == length && value.iter().all(|byte| *byte == b'y'), "{length}");
        }
    }
}

#[test]
fn a_session_is_one_connection() {
    for mysqld in shared() {
        let db = mysqld.fresh_db("session");
        mysqld.sql(&db, "create table t (id int primary key, n int); insert into t values (1, 0)");
        let (mut first, mut second) = (mysqld.session(&db), mysqld.session(&db));
        first.sql("begin; update t set n = n + 1");
        assert_eq!(second.sql("select n from t"), [row(&[Some("0")])]);
        second.send("update t set n = n + 10; select n from t");
        let waiting = format!(
            "select count(*) from information_schema.processlist where id = {} and state <> ''",
            second.id()
        );
        wait_for("the second session to wait for the lock", SOON, || mysqld.value(&waiting) == "1");
        first.sql("commit");
        assert_eq!(second.answer().unwrap(), [row(&[Some("11")])]);
        // After an error it goes on; after a kill it does not.
        assert_eq!(second.try_sql("frob").unwrap_err().code, 1064);
        assert_eq!(second.sql("select connection_id()"), [row(&[Some(&second.id().to_string())])]);
        first.sql(&format!("kill {}", second.id()));
        assert!([1927, 2013, 4031].contains(&second.try_sql("select 1").unwrap_err().code));
    }
}

#[test]
fn a_paused_server_keeps_its_connections_and_answers_later() {
    for flavour in Flavour::available() {
        let mysqld = start(flavour, &[]);
        let mut session = mysqld.session("");
        mysqld.pause();
        // The kernel still completes the handshake, and nobody greets.
        let mut stream = TcpStream::connect(("127.0.0.1", mysqld.port())).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        session.send("select 7");
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        mysqld.resume();
        assert_eq!(session.answer().unwrap(), [row(&[Some("7")])]);
        stream.set_read_timeout(Some(SOON)).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 1);
    }
}

/// Runs a statement with the server's own client over TCP.
fn client(mysqld: &Mysqld, args: &[&str], password: &str) -> Result<String, String> {
    let mut command: Command = mysqld.bin(mysqld.flavour().name());
    command.args(["--protocol=TCP", "--host=127.0.0.1", "--user=root", "--batch", "--skip-column-names"]);
    command.arg(format!("--port={}", mysqld.port())).args(args).env("MYSQL_PWD", password);
    command.args(["--execute", "show status like 'ssl_version'"]);
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
    if status.success() { Ok(text(&stdout)) } else { Err(text(&stderr)) }
}

#[test]
fn tls_and_password_apply() {
    for flavour in Flavour::available() {
        let options =
            MysqldOptions { tls: true, password: Some("s3cret".to_owned()), ..MysqldOptions::default() };
        let mysqld = Mysqld::start(flavour, &options).unwrap();
        assert_eq!(
            mysqld.dsn("x"),
            format!("{}://root:s3cret@127.0.0.1:{}/x", flavour.name(), mysqld.port())
        );
        // The socket stays open to the test.
        assert_eq!(mysqld.value("select 1"), "1");

        let verify = match flavour {
            Flavour::MySql => "--ssl-mode=VERIFY_IDENTITY",
            Flavour::MariaDb => "--ssl-verify-server-cert",
        };
        let ca = |file: std::path::PathBuf| format!("--ssl-ca={}", file.display());
        let (good, bad) = (ca(mysqld.ca_file()), ca(mysqld.tls().other_ca_file()));
        let answer = client(&mysqld, &[verify, &good], "s3cret").unwrap();
        assert!(answer.contains("TLSv1."), "{answer}");
        let error = client(&mysqld, &[verify, &bad], "s3cret").unwrap_err();
        assert!(error.contains("certificate"), "{error}");
        let error = client(&mysqld, &[verify, &good], "wrong").unwrap_err();
        assert!(error.contains("1045"), "{error}");
    }
}

#[test]
fn without_a_password_root_gets_in_over_tcp() {
    for mysqld in shared() {
        client(mysqld, &[], "").unwrap();
    }
}

#[test]
fn a_replica_follows_and_takes_over() {
    for flavour in Flavour::available() {
        let options = MysqldOptions { password: Some("s3cret".to_owned()), ..MysqldOptions::default() };
        let primary = Mysqld::start(flavour, &options).unwrap();
        let db = primary.fresh_db("pair");
        primary.sql(&db, "create table t (id int primary key); insert into t values (1)");
        let replica = Mysqld::replica_of(&primary, &MysqldOptions::default()).unwrap();
        primary.sql(&db, "insert into t values (2)");
        replica.catch_up_with(&primary);
        let count = || replica.sql(&db, "select count(*) from t")[0][0].clone().unwrap();
        assert_eq!(count(), "2");
        assert_eq!(replica.gtids(), primary.gtids());

        // Found again after a restart.
        primary.restart();
        primary.sql(&db, "insert into t values (3)");
        replica.catch_up_with(&primary);
        assert_eq!(count(), "3");

        primary.kill();
        replica.promote();
        let before = replica.gtids();
        replica.sql(&db, "insert into t values (4)");
        assert_eq!(count(), "4");
        assert_ne!(replica.gtids(), before);
    }
}

#[test]
fn the_programs_beside_the_server_run() {
    for mysqld in shared() {
        let name = match mysqld.flavour() {
            Flavour::MySql => "mysqlbinlog",
            Flavour::MariaDb => "mariadb-binlog",
        };
        mysqld.fresh_db("logged");
        let mut command = mysqld.bin(name);
        command.args(mysqld.client_args()).args(["--read-from-remote-server", "bin.000001"]);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("logged_"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    }
}
