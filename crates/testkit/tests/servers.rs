//! The servers are real, do what their commands say, and leave nothing behind.
#![allow(clippy::unwrap_used, reason = "a test, its helper functions included, fails by panicking")]
#![allow(
    clippy::print_stdout,
    reason = "the helper process tells its parent by standard output what it started"
)]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use deltaforge_testkit::servers::{
    Flavour, Mysqld, MysqldOptions, PgOptions, PgVersion, Postgres, Proxy, Redis, RedisCluster, RedisOptions,
    RedisSentinel,
};
use deltaforge_testkit::wait_for;

const SOON: Duration = Duration::from_secs(20);

/// Shared and never dropped, as most test binaries will have it: the watchdog has to end it.
static REDIS: LazyLock<Redis> = LazyLock::new(|| Redis::start(&RedisOptions::default()).unwrap());

fn connects(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

fn postgres_lives(version: PgVersion, number: &str) {
    let postgres = Postgres::start(version, &PgOptions::default()).unwrap();
    assert_eq!(postgres.dsn("x"), format!("postgres://postgres@127.0.0.1:{}/x", postgres.port()));
    assert!(postgres.psql("postgres", "show server_version").starts_with(number));
    assert_eq!(postgres.psql("postgres", "show wal_level; show timezone"), "logical\nUTC");

    let db = postgres.fresh_db("it's");
    postgres.psql(
        &db,
        "create table t (id int primary key, name text); insert into t values (1, null), (2, 'b')",
    );
    assert_eq!(postgres.psql(&db, "select * from t order by id"), "1|\n2|b");
    let error = postgres.try_psql(&db, "select * from nowhere").unwrap_err();
    assert!(error.contains("nowhere"), "{error}");

    let slot = "select * from pg_create_logical_replication_slot('s', 'pgoutput')";
    postgres.psql(&db, slot);
    let version = postgres.bin("pg_recvlogical").arg("--version").output().unwrap();
    assert!(String::from_utf8_lossy(&version.stdout).contains(number));

    let port = postgres.port();
    postgres.stop_fast();
    assert!(!connects(port));
    postgres.restart();
    postgres.stop_immediate();
    postgres.restart();
    postgres.kill();
    assert!(!connects(port));
    postgres.restart();
    assert_eq!(postgres.port(), port);
    assert_eq!(
        postgres.psql(&db, "select count(*) from t; select slot_name from pg_replication_slots"),
        "2\ns"
    );
}

#[test]
fn postgres_15_lives() {
    postgres_lives(PgVersion::V15, "15.");
}

#[test]
fn postgres_18_lives() {
    postgres_lives(PgVersion::V18, "18.");
}

#[test]
fn a_paused_postgres_keeps_its_connections_and_answers_later() {
    let postgres = Postgres::start(PgVersion::V15, &PgOptions::default()).unwrap();
    postgres.pause();
    // The kernel still completes the handshake.
    assert!(connects(postgres.port()));
    std::thread::scope(|scope| {
        let query = scope.spawn(|| postgres.psql("postgres", "select 7"));
        wait_for("psql to be connected to the frozen server", SOON, || established(postgres.port()) > 0);
        assert!(!query.is_finished());
        postgres.resume();
        assert_eq!(query.join().unwrap(), "7");
    });
}

/// Connections that clients of this machine hold to the port.
fn established(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let remote = format!("0100007F:{port:04X}");
    table
        .lines()
        .filter(|line| line.split_whitespace().nth(2) == Some(&remote) && line.contains(" 01 "))
        .count()
}

#[test]
fn postgres_settings_tls_and_password_apply() {
    let options = PgOptions {
        settings: vec![("wal_sender_timeout".to_owned(), "11s".to_owned())],
        tls: true,
        password: Some("s3cret".to_owned()),
    };
    let postgres = Postgres::start(PgVersion::V18, &options).unwrap();
    assert_eq!(postgres.psql("postgres", "show wal_sender_timeout"), "11s");
    assert!(postgres.dsn("x").starts_with("postgres://postgres:s3cret@127.0.0.1:"));

    let psql = |mode: &str, ca: &Path, password: &str| {
        let mut psql = postgres.bin("psql");
        psql.env("PGSSLMODE", mode).env("PGSSLROOTCERT", ca).env("PGPASSWORD", password);
        let output = psql.args([
            "-XAtwd",
            "postgres",
            "-c",
            "select ssl from pg_stat_ssl where pid = pg_backend_pid()",
        ]);
        let output = output.output().unwrap();
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    };
    let (good, bad) = (postgres.ca_file(), postgres.tls().other_ca_file());
    assert_eq!(psql("verify-full", &good, "s3cret"), Ok("t".to_owned()));
    assert_eq!(psql("disable", &good, "s3cret"), Ok("f".to_owned()));
    let error = psql("verify-full", &bad, "s3cret").unwrap_err();
    assert!(error.contains("certificate"), "{error}");
    let error = psql("verify-full", &good, "wrong").unwrap_err();
    assert!(error.contains("password authentication failed"), "{error}");
}

#[test]
fn redis_lives() {
    assert_eq!(REDIS.cli(&["PING"]), "PONG");
    assert_eq!(REDIS.uri(), format!("redis://127.0.0.1:{}", REDIS.port()));
    let error = REDIS.try_cli(&["NOSUCH"]).unwrap_err();
    assert!(error.contains("unknown command"), "{error}");

    let redis =
        Redis::start(&RedisOptions { args: vec!["--maxmemory".into(), "64mb".into()], ..Default::default() });
    let redis = redis.unwrap();
    assert_eq!(redis.cli(&["CONFIG", "GET", "maxmemory"]), "maxmemory\n67108864");
    redis.cli(&["XADD", "s", "*", "f", "v"]);
    redis.stop();
    assert!(!connects(redis.port()));
    redis.restart();
    redis.kill();
    redis.restart();
    assert_eq!(redis.cli(&["XLEN", "s"]), "1");

    redis.pause();
    let mut stream = TcpStream::connect(("127.0.0.1", redis.port())).unwrap();
    stream.write_all(b"PING\r\n").unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut answer = [0; 7];
    assert_eq!(stream.read_exact(&mut answer).unwrap_err().kind(), ErrorKind::WouldBlock);
    redis.resume();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+PONG\r\n");
}

#[test]
fn redis_tls_and_password_apply() {
    let options = RedisOptions { tls: true, password: Some("s3cret".to_owned()), ..RedisOptions::default() };
    let redis = Redis::start(&options).unwrap();
    assert_eq!(redis.uri(), format!("rediss://:s3cret@127.0.0.1:{}", redis.port()));
    assert_eq!(redis.cli(&["PING"]), "PONG");
    let mut cli = Command::new("redis-cli");
    cli.args(["-e", "-p", &redis.port().to_string(), "--tls", "--cacert"]).arg(redis.ca_file()).arg("PING");
    let output = cli.output().unwrap();
    assert!(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).contains("NOAUTH"));
}

#[test]
fn redis_cluster_lives() {
    let cluster = RedisCluster::start(3).unwrap();
    assert!(cluster.uri().starts_with("redis-cluster://127.0.0.1:"));
    for key in ["a", "b", "c", "d"] {
        cluster.cli(&["XADD", key, "*", "f", "v"]);
        assert_eq!(cluster.cli(&["XLEN", key]), "1");
    }
    let sizes = cluster.nodes().iter().map(|node| node.cli(&["DBSIZE"]).parse::<usize>().unwrap());
    assert_eq!(sizes.sum::<usize>(), 4);
}

#[test]
fn redis_sentinel_fails_over() {
    let sentinel = RedisSentinel::start().unwrap();
    assert!(sentinel.uri().ends_with("?master=df-master"));
    assert_eq!(sentinel.master_port(), sentinel.master().port());
    sentinel.master().cli(&["SET", "k", "v"]);
    wait_for("the replica to have the key", SOON, || sentinel.replica().cli(&["GET", "k"]) == "v");
    sentinel.failover();
    assert_eq!(sentinel.master_port(), sentinel.replica().port());
    assert!(sentinel.replica().cli(&["INFO", "replication"]).contains("role:master"));
}

fn ping(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    assert_eq!(&answer, b"+PONG\r\n");
    Ok(())
}

fn through(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

#[test]
fn the_proxy_cuts_refuses_and_freezes() {
    let proxy = Proxy::start(REDIS.port());
    let mut first = through(&proxy);
    let mut second = through(&proxy);
    ping(&mut first).unwrap();
    ping(&mut second).unwrap();
    assert_eq!((proxy.accepted(), proxy.open()), (2, 2));
    // Counted once handed over, so the client may have its answer a moment earlier.
    wait_for("the bytes to be counted", SOON, || {
        (proxy.bytes_to_server(), proxy.bytes_to_client()) == (12, 14)
    });

    proxy.cut();
    assert_eq!(proxy.open(), 0);
    assert_eq!(first.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(second.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);

    let mut kept = through(&proxy);
    ping(&mut kept).unwrap();
    proxy.refuse(true);
    let refused = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    ping(&mut kept).unwrap();
    proxy.refuse(false);
    ping(&mut through(&proxy)).unwrap();

    proxy.freeze(true);
    let sent = proxy.bytes_to_server();
    let mut late = through(&proxy);
    late.write_all(b"PING\r\n").unwrap();
    wait_for("the frozen proxy to accept", SOON, || proxy.accepted() == 5);
    late.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert_eq!(late.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(proxy.bytes_to_server(), sent);
    proxy.freeze(false);
    late.set_read_timeout(Some(SOON)).unwrap();
    let mut answer = [0; 7];
    late.read_exact(&mut answer).unwrap();

    // An orderly end passes through in both directions.
    kept.write_all(b"QUIT\r\n").unwrap();
    let mut rest = Vec::new();
    kept.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"+OK\r\n");
}

#[test]
fn the_proxy_cuts_after_an_exact_number_of_bytes() {
    let value = "x".repeat(300_000);
    REDIS.cli(&["SET", "large", &value[..100_000]]);
    REDIS.cli(&["APPEND", "large", &value[100_000..200_000]]);
    REDIS.cli(&["APPEND", "large", &value[200_000..]]);
    let proxy = Proxy::start(REDIS.port());
    let mut stream = through(&proxy);
    ping(&mut stream).unwrap();
    proxy.cut_after_bytes(150_000);
    stream.write_all(b"GET large\r\n").unwrap();
    let mut received = Vec::new();
    let end = stream.read_to_end(&mut received);
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(proxy.bytes_to_client(), 150_007);
    assert!(received.len() <= 150_000);
    // Only once.
    let mut stream = through(&proxy);
    stream.write_all(b"GET large\r\n").unwrap();
    let mut whole = vec![0; "$300000\r\n".len() + 300_002];
    stream.read_exact(&mut whole).unwrap();
}

#[test]
fn the_proxy_resets_clients_of_a_server_that_is_down() {
    let redis = Redis::start(&RedisOptions::default()).unwrap();
    let proxy = Proxy::start(redis.port());
    redis.stop();
    let mut stream = through(&proxy);
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    redis.restart();
    ping(&mut through(&proxy)).unwrap();
}

const HELPER: &str = "DELTAFORGE_TESTKIT_HELPER";

/// Not a test of its own: the process that `nothing_outlives_a_killed_test` kills.
#[test]
fn helper_that_is_killed() {
    if std::env::var_os(HELPER).is_none() {
        return;
    }
    let postgres = Postgres::start(PgVersion::V15, &PgOptions::default()).unwrap();
    let redis = Redis::start(&RedisOptions::default()).unwrap();
    let mariadb = Mysqld::start(Flavour::MariaDb, &MysqldOptions::default()).unwrap();
    // The hardest case: frozen processes answer no signal but a kill.
    redis.pause();
    println!("\nports {} {} {}", postgres.port(), redis.port(), mariadb.port());
    loop {
        std::thread::park();
    }
}

#[test]
fn nothing_outlives_a_killed_test() {
    let mut helper = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper_that_is_killed", "--nocapture"])
        .env(HELPER, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(helper.stdout.take().unwrap()).lines();
    let line = lines.map_while(Result::ok).find(|line| line.starts_with("ports ")).unwrap();
    let ports: Vec<u16> = line.split(' ').skip(1).map(|port| port.parse().unwrap()).collect();
    assert!(ports.iter().all(|port| connects(*port)));

    helper.kill().unwrap();
    helper.wait().unwrap();
    wait_for("the servers of the killed process to be gone", SOON, || {
        !ports.iter().any(|port| connects(*port))
    });
}
