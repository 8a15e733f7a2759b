//! Every character set, code by code, against the servers' own conversion to UTF-8.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test, a panic with a clear message is how a failure is reported"
)]

use deltaforge_sources::mysql::charset::{Charset, Collations};
use deltaforge_testkit::servers::{Flavour, Mysqld, MysqldOptions, Session};
use std::collections::BTreeMap;

/// Stands behind each code: in no set is it a part of a longer character, so that what was cut off does not go unnoticed.
const BEHIND: &str = "!";

fn pairs(first: std::ops::RangeInclusive<u8>) -> Vec<Vec<u8>> {
    first.flat_map(|a| (0..=255).map(move |b| vec![a, b])).collect()
}

/// The table of codes that a set is asked for, and these codes.
fn codes(name: &str, longest: u8) -> (&'static str, Vec<Vec<u8>>) {
    let bytes = || (0..=255).map(|byte| vec![byte]);
    let numbers =
        |numbers: &mut dyn Iterator<Item = u32>| numbers.map(|n| n.to_be_bytes().to_vec()).collect();
    match (name, longest) {
        (_, 1) => ("bytes", bytes().collect()),
        ("ucs2", _) => ("units", pairs(0..=255)),
        ("utf16" | "utf16le", _) => {
            let edges = [0xd7ff, 0xd800, 0xd801, 0xdbff, 0xdc00, 0xdffe, 0xdfff, 0xe000];
            let big = |unit: u16| unit.to_be_bytes();
            let surrogates = edges.into_iter().flat_map(|a| edges.map(|b| [big(a), big(b)].concat()));
            ("surrogates", pairs(0..=255).into_iter().chain(surrogates).collect())
        }
        ("utf32", _) => ("numbers", numbers(&mut (0..0x1_0100).chain((0x1_0100..0x11_0200).step_by(251)))),
        ("utf8mb3" | "utf8mb4", _) => {
            let trails = || [0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0];
            let three =
                (0xe0..=0xf0).flat_map(|a| (0x80..=0xbf).flat_map(move |b| trails().map(|c| vec![a, b, c])));
            let four = (0xf0..=0xf5)
                .flat_map(|a| trails().into_iter().flat_map(move |b| trails().map(|c| vec![a, b, c, 0x80])));
            ("utf8", bytes().chain(pairs(0xc0..=0xdf)).chain(three).chain(four).collect())
        }
        ("ujis" | "eucjpms", _) => {
            let three = (0xa0..=255).flat_map(|a| (0x9f..=255).map(move |b| vec![0x8f, a, b]));
            ("euc", bytes().chain(pairs(0x80..=255)).chain(three).collect())
        }
        ("gb18030", _) => {
            let code = |n: u32| {
                let digits = [n / 12_600, n / 1260 % 10, n / 10 % 126, n % 10];
                vec![
                    0x81 + digits[0] as u8,
                    b'0' + digits[1] as u8,
                    0x81 + digits[2] as u8,
                    b'0' + digits[3] as u8,
                ]
            };
            let four = (0..39_500).chain((39_500..1_587_600).step_by(307)).map(code);
            ("gb18030", bytes().chain(pairs(0x80..=255)).chain(four).collect())
        }
        _ => ("wide", bytes().chain(pairs(0x80..=255)).collect()),
    }
}

/// `BEHIND` in a character set.
fn behind(name: &str) -> &'static str {
    match name {
        "ucs2" | "utf16" => "0021",
        "utf16le" => "2100",
        "utf32" => "00000021",
        _ => "21",
    }
}

fn unhex(digits: &str) -> Vec<u8> {
    let digit = |d: u8| (d as char).to_digit(16).unwrap() as u8;
    digits.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn fill(session: &mut Session, table: &str, codes: &[Vec<u8>]) {
    session.sql(&format!("create table `{table}` (n int primary key auto_increment, c varbinary(4))"));
    for part in codes.chunks(10_000) {
        let rows: Vec<_> = part.iter().map(|code| format!("(X'{}')", hex(code))).collect();
        session.sql(&format!("insert into `{table}` (c) values {}", rows.join(",")));
    }
}

/// What a server makes of a code: text, or nothing when something in it is no character.
fn server_text(name: &str, code: &[u8], answer: Option<&str>) -> Option<String> {
    let text = String::from_utf8(unhex(answer?)).ok()?;
    let text = text.strip_suffix(BEHIND)?;
    // One more than there were: a server may keep a question mark and put another for the byte in front of it.
    let added = text.matches('?').count() > code.iter().filter(|byte| **byte == b'?').count();
    // Six codes of Big5 that are doubled elsewhere: the server gives what stands for no character.
    let replaced = added || (name == "big5" && text.contains('\u{fffd}'));
    (!replaced).then(|| text.to_owned())
}

fn our_text(charset: Charset, code: &[u8]) -> Option<String> {
    let mut text = Vec::new();
    charset.decode(code, &mut text).then(|| String::from_utf8(text).unwrap())
}

fn compare(session: &mut Session, name: &str, table: &str, codes: &[Vec<u8>]) -> usize {
    let charset = Charset::by_name(name).unwrap();
    let answers = session.sql(&format!(
        "select hex(convert(convert(concat(c, X'{}') using {name}) using utf8mb4)) from `{table}` order by n",
        behind(name)
    ));
    assert_eq!(answers.len(), codes.len());
    let mut assigned = 0;
    for (code, answer) in codes.iter().zip(&answers) {
        let expected = server_text(name, code, answer[0].as_deref());
        assert_eq!(our_text(charset, code), expected, "{name} {}: the server answers {answer:?}", hex(code));
        assigned += usize::from(expected.is_some());
    }
    assigned
}

#[test]
fn every_code_of_every_set_is_what_the_server_makes_of_it() {
    for flavour in Flavour::available() {
        let mysqld = Mysqld::start(flavour, &MysqldOptions::default()).unwrap();
        let db = mysqld.fresh_db("charsets");
        let mut session = mysqld.session(&db);
        // A code that is none is a warning then.
        session.sql("set sql_mode = ''");
        let sets = session.sql("select character_set_name, maxlen from information_schema.character_sets");
        let mut tables = BTreeMap::new();
        let mut assigned = BTreeMap::new();
        for set in &sets {
            let [Some(name), Some(longest)] = &set[..] else { panic!("{set:?}") };
            let charset =
                Charset::by_name(name).unwrap_or_else(|| panic!("{name} of {flavour:?} is unknown"));
            assert_eq!(charset.mbmaxlen().to_string(), *longest, "{name}");
            if charset == Charset::BINARY {
                continue;
            }
            let (table, codes) = codes(name, charset.mbmaxlen());
            if tables.insert(table, ()).is_none() {
                fill(&mut session, table, &codes);
            }
            assigned.insert(name.as_str(), compare(&mut session, name, table, &codes));
        }
        // So that the comparison is known to have compared something.
        assert_eq!(assigned["latin1"], 256);
        assert_eq!(assigned["cp1250"], 251);
        assert!(assigned["gbk"] > 21_800 && assigned["ujis"] > 13_000, "{assigned:?}");
        assert!(flavour == Flavour::MariaDb || assigned["gb18030"] > 63_000, "{assigned:?}");
        assert!(assigned.len() >= 38, "{assigned:?}");
    }
}

#[test]
fn every_collation_of_a_server_has_a_known_set() {
    for flavour in Flavour::available() {
        let mysqld = Mysqld::start(flavour, &MysqldOptions::default()).unwrap();
        // MariaDB leaves the set out of `COLLATIONS` for those that are the same in several.
        let rows = mysqld.sql(
            "information_schema",
            match flavour {
                Flavour::MySql => "select id, character_set_name from collations",
                Flavour::MariaDb => {
                    "select id, character_set_name from collation_character_set_applicability"
                }
            },
        );
        let pairs = || rows.iter().map(|row| (row[0].as_deref().unwrap(), row[1].as_deref().unwrap()));
        let collations = Collations::new(pairs().map(|(id, set)| (id.parse().unwrap(), set)));
        assert!(rows.len() > 250, "{}", rows.len());
        for (id, set) in pairs() {
            assert_eq!(collations.charset(id.parse().unwrap()), Charset::by_name(set), "{id} {set}");
            assert!(Charset::by_name(set).is_some(), "{set}");
        }
        assert_eq!(collations.charset(63), Some(Charset::BINARY));
    }
}
