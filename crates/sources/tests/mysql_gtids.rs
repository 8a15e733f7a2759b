//! GTIDs beside real servers: the same sets, the same text, the same bytes, and the same verdict on what is still held.
//!
//! Always the same sets; `SEED=n` gives others.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test, a panic with a clear message is how a failure is reported"
)]

use deltaforge_sources::mysql::gtid::reach::{self, Reach};
use deltaforge_sources::mysql::gtid::{GtidSet, MariaSet, MariaState, MySqlSet};
use deltaforge_testkit::servers::{Flavour, Mysqld, MysqldOptions, Session};
use deltaforge_testkit::wait_for;
use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

/// xorshift64*: enough to choose sets.
struct Random(u64);

impl Random {
    fn new() -> Random {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1u64);
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % end
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len() as u64) as usize]
    }
}

fn start(flavour: Flavour, args: &[&str]) -> Mysqld {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    Mysqld::start(flavour, &MysqldOptions { args, ..MysqldOptions::default() })
        .unwrap_or_else(|error| panic!("{error}"))
}

/// A set as no server would print it: out of order, overlapping, in any case, with white space between its parts.
fn a_set(random: &mut Random) -> String {
    const UUIDS: &[&str] = &[
        "3e11fa47-71ca-11e1-9e33-c80aa9429562",
        "3E11FA47-71CA-11E1-9E33-C80AA9429563",
        "ffffffff-71ca-11e1-9e33-c80aa9429562",
    ];
    const SPACES: &[&str] = &["", "", "", "", " ", "\n", "\t \r"];
    const TAGS: &[&str] = &["a", "A_1", "_", "b", "tag_of_thirty_two_characters_012"];
    const FIRST: &[u64] = &[1, 5, 95, 995, 9_223_372_036_854_775_700];
    let mut text = String::new();
    for _ in 0..random.below(4) {
        let _ = write!(text, "{}{}", random.of(SPACES), random.of(UUIDS));
        for _ in 0..random.below(7) {
            let _ = write!(text, "{}:{}", random.of(SPACES), random.of(SPACES));
            let start = FIRST[random.below(5) as usize] + random.below(30);
            let _ = match random.below(5) {
                0 => write!(text, "{}", random.of(TAGS)),
                1 | 2 => write!(text, "{start}"),
                _ => write!(
                    text,
                    "{start}{}-{}{}",
                    random.of(SPACES),
                    random.of(SPACES),
                    start + random.below(20)
                ),
            };
        }
        let _ = write!(text, "{},", random.of(SPACES));
    }
    text
}

#[test]
fn ten_thousand_random_sets_agree_with_mysql() {
    if !Flavour::MySql.is_available() {
        return;
    }
    let server = start(Flavour::MySql, &[]);
    let mut session = server.session("");
    let mut random = Random::new();
    let (mut subsets, mut left_over) = (0, 0);
    for _ in 0..20 {
        let mut cases: Vec<(String, String)> = Vec::new();
        for _ in 0..500 {
            let (a, b) = (a_set(&mut random), a_set(&mut random));
            // Random sets are hardly ever subsets; half of these are.
            let b = if random.below(2) == 0 { format!("{a},{b}") } else { b };
            cases.push((a, b));
        }
        let selects: Vec<_> = cases
            .iter()
            .map(|(a, b)| {
                format!(
                    "SELECT GTID_SUBSET('{a}', '{b}'), GTID_SUBTRACT('{a}', '{b}'), GTID_SUBTRACT('{a}', '')"
                )
            })
            .collect();
        let rows = session.sql(&selects.join(" UNION ALL "));
        assert_eq!(rows.len(), cases.len());
        for ((a, b), row) in cases.iter().zip(rows) {
            let text = |i: usize| row[i].clone().unwrap_or_default().replace('\n', "");
            let (left, right) = (MySqlSet::parse(a).expect(a), MySqlSet::parse(b).expect(b));
            assert_eq!(left.to_string(), text(2), "{a:?} as text");
            assert_eq!(left.is_subset(&right), text(0) == "1", "{a:?} in {b:?}");
            let rest = left.subtract(&right);
            assert_eq!(rest.to_string(), text(1), "{a:?} without {b:?}");
            assert_eq!(rest.union(&left.intersect(&right)), left, "{a:?} and {b:?}");
            subsets += usize::from(left.is_subset(&right));
            left_over += usize::from(!rest.is_empty());
        }
    }
    assert!(subsets > 1000 && left_over > 1000, "{subsets} subsets, {left_over} not");
}

/// The body of the event that a log file of MySQL has behind its description: which transactions the files before it hold.
fn previous_gtids(server: &Mysqld, file: &str) -> Vec<u8> {
    let bytes = fs::read(server.data_dir().join(file)).unwrap();
    let mut rest = &bytes[4..];
    loop {
        let size = u32::from_le_bytes(rest[9..13].try_into().unwrap()) as usize;
        if rest[4] == 35 {
            // Between the header and the checksum.
            return rest[19..size - 4].to_vec();
        }
        rest = &rest[size..];
    }
}

#[test]
fn mysql_and_we_write_the_same_bytes() {
    if !Flavour::MySql.is_available() {
        return;
    }
    let server = start(Flavour::MySql, &[]);
    let mut sessions = server.session("");
    let mut check = |sql: &str| {
        sessions.sql(sql);
        sessions.sql("FLUSH BINARY LOGS");
        let executed = MySqlSet::parse(&server.gtids()).unwrap();
        let bytes = previous_gtids(&server, &server.binlog_end().0);
        assert_eq!(MySqlSet::decode(&bytes).as_ref(), Ok(&executed), "after {sql}");
        assert_eq!(executed.encode(), bytes, "after {sql}");
        executed
    };
    assert!(check("RESET BINARY LOGS AND GTIDS").is_empty());
    check("CREATE DATABASE d; CREATE TABLE d.t (id INT)");
    // As a replica makes them: what is merely put into `gtid_purged` is in no log, and no log file speaks of it.
    let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    let replicated = |numbers: &str| {
        let gtids = numbers.split_whitespace();
        let each = gtids.map(|gtid| format!("SET gtid_next = '{uuid}:{gtid}'; BEGIN; COMMIT; "));
        each.collect::<String>() + "SET gtid_next = 'AUTOMATIC'"
    };
    let last = deltaforge_sources::mysql::gtid::MAX_NUMBER;
    check(&replicated(&format!("1 2 3 7 {last}")));
    check("SET gtid_next = 'AUTOMATIC:tag_a'; INSERT INTO d.t VALUES (1); SET gtid_next = 'AUTOMATIC'");
    let all = check(&replicated(&format!(
        "tag_of_thirty_two_characters_012:3 tag_of_thirty_two_characters_012:4 _:1 _:{last}"
    )));
    // Among those of the server itself, whose random UUID comes before or behind.
    let expected = format!("{uuid}:1-3:7:{last}:_:1:{last}:tag_of_thirty_two_characters_012:3-4");
    assert!(all.to_string().split(',').any(|source| source == expected), "{all}");
}

/// What MySQL says to somebody who has `stored` and asks for the rest: whether it has deleted a part of it.
fn mysql_serves(server: &Mysqld, stored: &MySqlSet) -> bool {
    let mut command = server.bin("mysqlbinlog");
    command.args(server.client_args()).arg("--read-from-remote-source=BINLOG-DUMP-GTIDS");
    // No file: one that is named is read from its start, whatever was in files before it.
    let output = command.arg(format!("--exclude-gtids={stored}")).arg("").output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() || error.contains("purged"), "{stored}: {error}");
    output.status.success()
}

#[test]
fn mysql_has_purged_what_we_say() {
    if !Flavour::MySql.is_available() {
        return;
    }
    let server = start(Flavour::MySql, &[]);
    let mut session = server.session("");
    session.sql("CREATE DATABASE d; CREATE TABLE d.t (id INT)");
    session.sql("SET gtid_next = 'AUTOMATIC:tag_a'; INSERT INTO d.t VALUES (1); SET gtid_next = 'AUTOMATIC'");
    session.sql("INSERT INTO d.t VALUES (2); FLUSH BINARY LOGS");
    session.sql(&format!("PURGE BINARY LOGS TO '{}'; INSERT INTO d.t VALUES (3)", server.binlog_end().0));
    let set = |sql: &str| MySqlSet::parse(&server.value(sql)).unwrap();
    let (purged, executed) = (set("SELECT @@global.gtid_purged"), set("SELECT @@global.gtid_executed"));
    let uuid = server.value("SELECT @@server_uuid");
    assert_eq!(purged.to_string(), format!("{uuid}:1-3:tag_a:1"));

    for (stored, expected) in [
        (format!("{uuid}:1-3:tag_a:1"), Reach::Reachable),
        (format!("{uuid}:1-4:tag_a:1"), Reach::Reachable),
        (format!("{uuid}:1-4"), Reach::Purged(format!("{uuid}:tag_a:1"))),
        (format!("{uuid}:2-4:tag_a:1"), Reach::Purged(format!("{uuid}:1"))),
        (String::new(), Reach::Purged(format!("{uuid}:1-3:tag_a:1"))),
    ] {
        let stored = MySqlSet::parse(&stored).unwrap();
        assert_eq!(mysql_serves(&server, &stored), expected == Reach::Reachable, "{stored}");
        assert_eq!(reach::mysql(&stored, &purged, &executed), expected, "{stored}");
    }
    // A set with transactions of another server that this one never had: MySQL serves it, we do not.
    let other = MySqlSet::parse("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-9").unwrap();
    let stored = purged.union(&other);
    assert!(mysql_serves(&server, &stored));
    assert_eq!(reach::mysql(&stored, &purged, &executed), Reach::Ahead(other.to_string()));
}

/// What MariaDB says to somebody who stands at `stored` and asks for the rest.
fn mariadb_answers(server: &Mysqld, stored: &MariaSet) -> Result<(), String> {
    let mut command = server.bin("mariadb-binlog");
    command.args(server.client_args()).arg("--read-from-remote-server");
    let position = format!("--start-position={stored}");
    let output = command.arg(position).arg(server.binlog_end().0).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    // The client, which reads one file, itself complains of every position that it has not met there: not the server's word.
    let own = |line: &str| line.contains("Binary logs never reached expected GTID state");
    if output.status.success() || (!error.is_empty() && error.lines().all(own)) { Ok(()) } else { Err(error) }
}

/// Transactions of several servers in one domain, as they stand in a log after failovers.
fn write(session: &mut Session, gtids: &str) {
    for gtid in gtids.split_whitespace() {
        let mut parts = gtid.split('-');
        let mut part = || parts.next().unwrap();
        // The number is checked against the domain of the statements before.
        session.sql(&format!(
            "SET gtid_domain_id = {}; SET server_id = {}, gtid_seq_no = {}; INSERT INTO d.t VALUES (1)",
            part(),
            part(),
            part()
        ));
    }
}

#[test]
fn mariadb_has_purged_what_we_say() {
    let server = start(Flavour::MariaDb, &["--gtid-domain-id=0"]);
    let mut session = server.session("");
    session.sql("CREATE DATABASE d; CREATE TABLE d.t (id INT); RESET MASTER");
    write(&mut session, "0-1-1 0-1-2 0-2-3 0-2-4 7-1-1 7-1-2");
    session.sql("FLUSH BINARY LOGS");
    let first = server.binlog_end().0;
    write(&mut session, "0-2-5 0-3-6 7-1-3 8-1-1");
    session.sql("FLUSH BINARY LOGS");
    // A file that a crash would still need is kept, without an error, until the storage engine says that it is not.
    wait_for("the first log file to be deleted", Duration::from_secs(60), || {
        session.sql(&format!("PURGE BINARY LOGS TO '{first}'"));
        session.sql("SHOW BINARY LOGS")[0][0].as_ref() == Some(&first)
    });
    write(&mut session, "0-3-7");

    let events = session.sql(&format!("SHOW BINLOG EVENTS IN '{first}' LIMIT 3"));
    let list = events.iter().find(|row| row[2].as_deref() == Some("Gtid_list")).expect("a list of GTIDs");
    let oldest = MariaState::parse(list[5].as_deref().unwrap()).unwrap();
    let by_position = server.value(&format!("SELECT BINLOG_GTID_POS('{first}', 4)"));
    assert_eq!(oldest.newest().to_string(), MariaSet::parse(&by_position).unwrap().to_string());
    let state = MariaState::parse(&server.value("SELECT @@global.gtid_binlog_state")).unwrap();
    let head = MariaSet::parse(&server.gtids()).unwrap();
    assert_eq!(state.newest(), head);
    assert_eq!(head.to_string(), "0-3-7,7-1-3,8-1-1");
    assert_eq!(GtidSet::parse(&server.gtids()), Ok(GtidSet::Maria(head)));

    let mut reachable = 0;
    for zero in ["", "0-1-1", "0-1-2", "0-2-3", "0-2-4", "0-2-5", "0-3-6", "0-3-7", "0-3-8", "0-2-6", "0-4-6"]
    {
        for seven in ["", "7-1-1", "7-1-2", "7-1-3", "7-1-4"] {
            let stored = MariaSet::parse(&format!("{zero},{seven}")).unwrap();
            // The client takes an empty position for none.
            if stored.is_empty() {
                continue;
            }
            let ours = reach::maria(&stored, &oldest, &state);
            let answer = mariadb_answers(&server, &stored);
            assert_eq!(
                ours == Reach::Reachable,
                answer.is_ok(),
                "{stored}: {ours:?}, the server: {answer:?}"
            );
            reachable += usize::from(answer.is_ok());
        }
    }
    assert_eq!(reachable, 8);
    // A domain that the server never had: MariaDB serves it, we do not.
    let stored = MariaSet::parse("0-3-7,7-1-3,9-1-1").unwrap();
    assert_eq!(mariadb_answers(&server, &stored), Ok(()));
    assert!(
        matches!(reach::maria(&stored, &oldest, &state), Reach::Ahead(text) if text.starts_with("9-1-1 "))
    );
}
