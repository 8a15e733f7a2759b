#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test, a panic with a clear message is how a failure is reported"
)]

use super::reach::{self, Reach};
use super::*;
use std::collections::BTreeSet;

const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
const B: &str = "ffffffff-0000-11e1-9e33-c80aa9429562";

/// xorshift64*: enough to choose sets.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % end
    }
}

fn set(text: &str) -> MySqlSet {
    MySqlSet::parse(text).expect(text)
}

fn gtid(source: usize, n: u64) -> MySqlGtid {
    let tag = [None, Tag::new(b"a"), Tag::new(b"a_1"), None][source];
    let uuid = if source < 3 { [1; 16] } else { [0xfe; 16] };
    MySqlGtid { uuid, tag, n }
}

/// The reference: every transaction by itself.
type Naive = BTreeSet<(usize, u64)>;

/// A few intervals of four sources, overlapping and touching often; numbers of one to three digits.
fn random(random: &mut Random) -> Naive {
    let mut naive = Naive::new();
    for _ in 0..random.below(8) {
        let (source, start) = (random.below(4) as usize, 1 + random.below(120));
        naive.extend((start..=start + random.below(12)).map(|n| (source, n)));
    }
    naive
}

/// Each transaction added by itself, in an order of its own.
fn built(naive: &Naive, random: &mut Random) -> MySqlSet {
    let mut order: Vec<_> = naive.iter().copied().collect();
    for i in (1..order.len()).rev() {
        order.swap(i, random.below(i as u64 + 1) as usize);
    }
    let mut set = MySqlSet::default();
    order.iter().for_each(|(source, n)| set.add(&gtid(*source, *n)).unwrap());
    set
}

#[test]
fn ten_thousand_random_sets_agree_with_plain_sets_of_numbers() {
    let mut rng = Random(0x9e37_79b9);
    for _ in 0..10_000 {
        let (a, b) = (random(&mut rng), random(&mut rng));
        let (left, right) = (built(&a, &mut rng), built(&b, &mut rng));
        let mut of = |naive: &Naive| built(naive, &mut rng);
        assert_eq!(left.union(&right), of(&(&a | &b)), "{left} + {right}");
        assert_eq!(left.subtract(&right), of(&(&a - &b)), "{left} - {right}");
        assert_eq!(left.intersect(&right), of(&(&a & &b)), "{left} & {right}");
        assert_eq!(left.is_subset(&right), a.is_subset(&b), "{left} in {right}");
        let order = match (a.is_subset(&b), b.is_subset(&a)) {
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Less),
            (false, true) => Some(Ordering::Greater),
            (false, false) => None,
        };
        assert_eq!(left.compare(&right), order, "{left} to {right}");
        assert_eq!(left.is_empty(), a.is_empty());
        for _ in 0..8 {
            let (source, n) = (rng.below(4) as usize, rng.below(140));
            assert_eq!(left.contains(&gtid(source, n)), a.contains(&(source, n)), "{left} has {source} {n}");
        }
        assert_eq!(set(&left.to_string()), left);
        assert_eq!(MySqlSet::decode(&left.encode()), Ok(left));
    }
}

#[test]
fn the_text_is_the_servers() {
    for text in [
        "",
        &format!("{A}:1"),
        &format!("{A}:1-5:7:9-10"),
        &format!("{A}:1-5:7:tag_a:1-3,{B}:_:1"),
        &format!("{A}:a:1:a1:1:aa:1:b:1"),
        &format!("{A}:1-9223372036854775806"),
        &format!("{A}:{}:1", "t".repeat(32)),
    ] {
        assert_eq!(set(text).to_string(), *text);
    }
}

#[test]
fn what_the_server_reads_is_read() {
    let upper = A.to_uppercase();
    for (text, read) in [
        (" \t\r\n\x0b\x0c", String::new()),
        (",,\n,", String::new()),
        (A, String::new()),
        (&format!("{A}:tag"), String::new()),
        (&format!("{upper}:TAG:1"), format!("{A}:tag:1")),
        (&format!(",\n{A} : 1 - 5 :\n 7 ,, {B}:3,\n"), format!("{A}:1-5:7,{B}:3")),
        (&format!("{B}:1,{A}:9:1-3:4-8"), format!("{A}:1-9,{B}:1")),
        (&format!("{A}:5-9:7:1-6,{A}:11:10"), format!("{A}:1-11")),
        (&format!("{A}: tag_b :2:1:tag_a: 7:4,{A}:6"), format!("{A}:6:tag_a:4:7:tag_b:1-2")),
    ] {
        assert_eq!(set(text).to_string(), read, "{text:?}");
    }
}

#[test]
fn what_is_no_set_is_refused_with_its_place() {
    for (text, at, word) in [
        ("x", 0, "UUID"),
        ("3e11fa47-71ca-11e1-9e33-c80aa942956", 0, "UUID"),
        ("3e11fa4771ca11e19e33c80aa9429562", 0, "UUID"),
        ("3e11fa47-71ca-11e1-9e33-c80aa94295é", 0, "UUID"),
        (&format!("{A}:1,y"), 39, "UUID"),
        (&format!("{A}x"), 36, "`:`"),
        (&format!("{A}:1 2"), 39, "`:`"),
        (&format!("{A}:1-2-3"), 40, "`:`"),
        (&format!("{A}:"), 37, "tag"),
        (&format!("{A}::1"), 37, "tag"),
        (&format!("{A}:-1"), 37, "tag"),
        (&format!("{A}:é"), 37, "tag"),
        (&format!("{A}:{}:1", "t".repeat(33)), 37, "tag"),
        (&format!("{A}:0"), 37, "number"),
        (&format!("{A}:07"), 37, "number"),
        (&format!("{A}:1-"), 39, "number"),
        (&format!("{A}:1-0"), 39, "number"),
        (&format!("{A}:9223372036854775807"), 37, "number"),
        (&format!("{A}:99999999999999999999"), 37, "number"),
        (&format!("{A}:5-3"), 40, "interval"),
    ] {
        let why = MySqlSet::parse(text).expect_err(text);
        assert!(
            why.starts_with(&format!("byte {at} of the GTID set: ")) && why.contains(word),
            "{text}: {why}"
        );
    }
}

/// Bytes from their hexadecimal digits; white space between them does not count.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

const A_HEX: &str = "3e11fa4771ca11e19e33c80aa9429562";

#[test]
fn the_binary_form_without_tags() {
    let bytes = hex(&format!(
        "0100000000000000 {A_HEX} 0200000000000000
         0100000000000000 0600000000000000 0700000000000000 0800000000000000"
    ));
    assert_eq!(MySqlSet::decode(&bytes), Ok(set(&format!("{A}:1-5:7"))));
    assert_eq!(set(&format!("{A}:1-5:7")).encode(), bytes);
    assert_eq!(MySqlSet::default().encode(), [0; 8]);
    assert_eq!(MySqlSet::decode(&[0; 8]), Ok(MySqlSet::default()));
}

#[test]
fn the_binary_form_with_tags() {
    let bytes = hex(&format!(
        "0102000000000001 {A_HEX} 00 0100000000000000 0100000000000000 0200000000000000
         {A_HEX} 0a 7461675f61 0100000000000000 0300000000000000 ffffffffffffff7f"
    ));
    let tagged = set(&format!("{A}:1:tag_a:3-9223372036854775806"));
    assert_eq!(MySqlSet::decode(&bytes), Ok(tagged.clone()));
    assert_eq!(tagged.encode(), bytes);
}

#[test]
fn lying_bytes_are_malformed() {
    let head = format!("0100000000000000 {A_HEX} 0100000000000000");
    for (bytes, why) in [
        ("", "early"),
        ("00000000000000", "early"),
        ("ffffffffffffff00", "early"),
        ("0100000000000000 3e11", "early"),
        (&format!("0100000000000000 {A_HEX} ffffffffffffffff 0100000000000000 0200000000000000"), "early"),
        (&format!("0100000000000000 {A_HEX} 0000000000000010 0100000000000000 0200000000000000"), "early"),
        ("0000000000000002", "format"),
        ("0000000000000000 00", "after"),
        (&format!("{head} 0000000000000000 0200000000000000"), "grow"),
        (&format!("{head} 0200000000000000 0200000000000000"), "grow"),
        (&format!("{head} 0300000000000000 0200000000000000"), "grow"),
        (&format!("{head} 0100000000000000 0000000000000080"), "grow"),
        (&format!("{head} ffffffffffffffff 0000000000000000"), "grow"),
        // Two intervals without a number missing between them.
        (
            &format!(
                "0100000000000000 {A_HEX} 0200000000000000 0100000000000000 0300000000000000
                 0300000000000000 0400000000000000"
            ),
            "grow",
        ),
        (&format!("0101000000000001 {A_HEX} 01 0000000000000000"), "long"),
        (&format!("0101000000000001 {A_HEX} 02 31 0000000000000000"), "characters"),
        (&format!("0101000000000001 {A_HEX} 42 {} 0000000000000000", "61".repeat(33)), "characters"),
        (&format!("0101000000000001 {A_HEX} fe 61"), "early"),
    ] {
        let error = MySqlSet::decode(&hex(bytes)).expect_err(bytes);
        assert!(error.0.contains(why), "{bytes}: {error:?}");
    }
}

#[test]
fn numbers_out_of_range_are_not_added() {
    let mut set = MySqlSet::default();
    for n in [0, MAX_NUMBER + 1, u64::MAX] {
        assert!(set.add(&gtid(0, n)).is_err(), "{n}");
    }
    assert!(set.is_empty());
    set.add(&gtid(0, MAX_NUMBER)).unwrap();
    assert!(set.contains(&gtid(0, MAX_NUMBER)));
    assert_eq!(MySqlSet::decode(&set.encode()), Ok(set));
}

#[test]
fn a_transactions_own_text() {
    let own = |gtid: Gtid| gtid.to_string();
    let mysql = |tag: &[u8], n| {
        let uuid = hex(A_HEX).try_into().unwrap();
        own(Gtid::MySql(MySqlGtid { uuid, tag: Tag::new(tag), n }))
    };
    assert_eq!(mysql(b"", 42), format!("{A}:42"));
    assert_eq!(mysql(b"Tag_1", MAX_NUMBER), format!("{A}:tag_1:9223372036854775806"));
    let longest = MariaGtid { domain: u32::MAX, server: u32::MAX, n: u64::MAX };
    assert_eq!(own(Gtid::Maria(longest)), "4294967295-4294967295-18446744073709551615");
    let parts = |tag: &[u8], n| MySqlGtid::new([7; 16], tag, n).map(|gtid| (gtid.tag, gtid.n));
    assert_eq!(parts(b"", 1), Ok((None, 1)));
    assert_eq!(parts(b"t", MAX_NUMBER), Ok((Tag::new(b"t"), MAX_NUMBER)));
    assert!(parts(b"", 0).is_err() && parts(b"", MAX_NUMBER + 1).is_err() && parts(b"1", 1).is_err());
    for no_tag in [&b""[..], b"1a", b"a-b", b"a b", "é".as_bytes(), &[b'a'; 33]] {
        assert_eq!(Tag::new(no_tag), None);
    }
}

/// The text that is kept is the text of the set, whatever came in whatever order.
#[test]
fn the_kept_text_follows_every_addition() {
    let mut rng = Random(77);
    for _ in 0..400 {
        let naive = random(&mut rng);
        let start = built(&naive, &mut rng);
        let mut reference = start.clone();
        let mut executed = Executed::new(GtidSet::MySql(start));
        let mut next = 90 + rng.below(20);
        for _ in 0..60 {
            // Mostly the next number of one source, over the change of its digits; else anything.
            let new = if rng.below(3) > 0 {
                next += 1;
                gtid(1, next)
            } else {
                gtid(rng.below(4) as usize, 1 + rng.below(130))
            };
            reference.add(&new).unwrap();
            executed.add(&Gtid::MySql(new)).unwrap();
            assert_eq!(String::from_utf8_lossy(executed.text()), reference.to_string(), "after {new:?}");
        }
        assert_eq!(executed.set(), &GtidSet::MySql(reference));
    }
}

#[test]
fn the_kept_text_of_mariadb_follows_every_transaction() {
    let mut rng = Random(78);
    for _ in 0..400 {
        let mut reference = MariaSet::default();
        let mut executed = Executed::new(GtidSet::Maria(reference.clone()));
        for _ in 0..40 {
            let n = [rng.below(12), 9_999_990 + rng.below(20), u64::MAX][rng.below(3) as usize];
            let (domain, server) = (7 * rng.below(4) as u32, 1 + rng.below(11) as u32);
            let new = MariaGtid { domain, server, n };
            reference.advance(&new);
            executed.add(&Gtid::Maria(new)).unwrap();
            assert_eq!(String::from_utf8_lossy(executed.text()), reference.to_string(), "after {new}");
        }
    }
    let longest = MariaGtid { domain: u32::MAX, server: u32::MAX, n: u64::MAX };
    let mut executed = Executed::new(GtidSet::parse("4294967295-1-1").unwrap());
    executed.add(&Gtid::Maria(longest)).unwrap();
    assert_eq!(executed.text(), longest.to_string().as_bytes());
}

#[test]
fn an_interval_of_the_longest_numbers_fits() {
    let mut executed =
        Executed::new(GtidSet::MySql(set(&format!("{A}:9223372036854775800-9223372036854775805"))));
    let uuid = hex(A_HEX).try_into().unwrap();
    executed.add(&Gtid::MySql(MySqlGtid { uuid, tag: None, n: MAX_NUMBER })).unwrap();
    assert_eq!(executed.text(), format!("{A}:9223372036854775800-9223372036854775806").as_bytes());
}

#[test]
fn an_empty_set_takes_either_flavour_and_others_keep_theirs() {
    let maria = MariaGtid { domain: 0, server: 1, n: 5 };
    let mut executed = Executed::new(GtidSet::parse("").unwrap());
    executed.add(&Gtid::Maria(maria)).unwrap();
    assert_eq!(executed.text(), b"0-1-5");
    assert!(executed.add(&Gtid::MySql(gtid(0, 1))).is_err());
    let mut executed = Executed::new(GtidSet::Maria(MariaSet::default()));
    executed.add(&Gtid::MySql(gtid(0, 1))).unwrap();
    assert_eq!(executed.text(), b"01010101-0101-0101-0101-010101010101:1");
    assert!(executed.add(&Gtid::Maria(maria)).is_err());
    assert!(executed.add(&Gtid::MySql(gtid(0, 0))).is_err());
    assert_eq!(executed.text(), b"01010101-0101-0101-0101-010101010101:1");
}

#[test]
fn the_form_tells_the_flavour() {
    let mysql = GtidSet::parse(&format!("{A}:1-5")).unwrap();
    let maria = GtidSet::parse(" 7-2-5,\n0-1-100 ").unwrap();
    let empty = GtidSet::parse(" \n").unwrap();
    assert_eq!((mysql.to_string(), maria.to_string()), (format!("{A}:1-5"), "0-1-100,7-2-5".into()));
    assert_eq!(mysql.clone().into_maria(), None);
    assert_eq!(maria.clone().into_mysql(), None);
    assert!(mysql.clone().into_mysql().is_some() && maria.clone().into_maria().is_some());
    assert_eq!(empty.clone().into_mysql(), Some(MySqlSet::default()));
    assert_eq!(empty.clone().into_maria(), Some(MariaSet::default()));
    assert_eq!(mysql.compare(&maria), None);
    assert_eq!(empty.compare(&maria), Some(Ordering::Less));
    assert_eq!(maria.compare(&empty), Some(Ordering::Greater));
    assert_eq!(empty.compare(&GtidSet::Maria(MariaSet::default())), Some(Ordering::Equal));
    assert_eq!(mysql.compare(&empty), Some(Ordering::Greater));
}

#[test]
fn positions_of_mariadb_are_read_or_refused() {
    let read = |text| MariaSet::parse(text).map(|set| set.to_string());
    assert_eq!(read(""), Ok(String::new()));
    assert_eq!(read("0-1-100,,"), Ok("0-1-100".into()));
    assert_eq!(read("4294967295-4294967295-18446744073709551615,0-0-0").map(|text| text.len()), Ok(48));
    for bad in [
        "0-1",
        "0-1-",
        "0--1",
        "0-1-2-3",
        "a-1-2",
        "+0-1-2",
        "0-1-+2",
        "0-4294967296-1",
        "4294967296-0-1",
        "0-1-18446744073709551616",
        "0-1-2 3",
        "0-1-2;1-1-2",
    ] {
        assert!(read(bad).expect_err(bad).contains("entry 1 "), "{bad}");
    }
    assert!(read("1-1-1, 0-1-2x").expect_err("no number").contains("entry 2 "));
    assert!(read("0-1-2,7-1-1,0-2-3").expect_err("twice").contains("domain 0 comes twice"));
}

#[test]
fn positions_of_mariadb_are_ordered_domain_by_domain() {
    let compare = |a, b| MariaSet::parse(a).unwrap().compare(&MariaSet::parse(b).unwrap());
    for (a, b, order) in [
        ("", "", Some(Ordering::Equal)),
        ("", "0-1-1", Some(Ordering::Less)),
        ("0-1-9", "0-1-10", Some(Ordering::Less)),
        ("0-1-9", "0-2-10", Some(Ordering::Less)),
        ("0-1-10", "0-2-10", None),
        ("0-1-9,7-1-1", "0-1-10,7-1-1", Some(Ordering::Less)),
        ("0-1-9,7-1-1", "0-1-9,7-1-1", Some(Ordering::Equal)),
        ("0-1-9", "0-1-9,7-1-1", Some(Ordering::Less)),
        ("0-1-10", "0-1-9,7-1-1", None),
        ("0-1-10,7-1-1", "0-1-9,7-1-2", None),
        ("0-1-10", "7-1-1", None),
        ("0-1-10,7-1-3", "0-1-9,7-1-2", Some(Ordering::Greater)),
        ("0-1-10,7-1-3,9-1-1", "0-1-10,7-1-2,9-2-1", None),
    ] {
        assert_eq!(compare(a, b), order, "{a} to {b}");
        assert_eq!(compare(b, a), order.map(Ordering::reverse), "{b} to {a}");
    }
}

#[test]
fn a_mysql_server_must_hold_all_that_follows() {
    let reach =
        |stored: &str, purged: &str, executed: &str| reach::mysql(&set(stored), &set(purged), &set(executed));
    let of = |ranges: &str| format!("{A}:{ranges}");
    assert_eq!(reach("", "", ""), Reach::Reachable);
    assert_eq!(reach(&of("1-5"), &of("1-5"), &of("1-9")), Reach::Reachable);
    assert_eq!(reach(&of("1-5"), &of("1-7"), &of("1-9")), Reach::Purged(of("6-7")));
    assert_eq!(reach(&of("1-5:9"), &of("1-7"), &of("1-9")), Reach::Purged(of("6-7")));
    assert_eq!(
        reach(&of("1-5"), &format!("{A}:1-3:t:1,{B}:1-4"), &format!("{A}:1-9:t:1,{B}:1-4")),
        Reach::Purged(format!("{A}:t:1,{B}:1-4"))
    );
    assert_eq!(reach(&of("1-12"), "", &of("1-9:11")), Reach::Ahead(of("10:12")));
    assert_eq!(reach(&of("1-5"), "", &format!("{B}:1-99")), Reach::Ahead(of("1-5")));
    // Of a wrong server the purged transactions say nothing.
    assert_eq!(reach(&of("1-5"), &format!("{B}:1-9"), &format!("{B}:1-99")), Reach::Ahead(of("1-5")));
}

#[test]
fn a_mariadb_server_must_hold_all_that_follows() {
    let reach = |stored, oldest, state| {
        let list = |text| MariaState::parse(text).unwrap();
        reach::maria(&MariaSet::parse(stored).unwrap(), &list(oldest), &list(state))
    };
    let purged = |text: &str| Reach::Purged(text.into());
    let ahead = |text: &str| Reach::Ahead(text.into());
    for (stored, oldest, state, expected) in [
        ("", "", "", Reach::Reachable),
        ("", "", "0-1-9", Reach::Reachable),
        ("0-1-5", "[]", "0-1-9", Reach::Reachable),
        ("0-1-5", "[0-1-3]", "0-1-9", Reach::Reachable),
        // The last of the domain before the first file.
        ("0-1-5", "[0-1-5]", "0-1-9", Reach::Reachable),
        ("0-1-5", "[0-1-6]", "0-1-9", purged("everything after 0-1-5 up to 0-1-6")),
        ("", "[0-1-6]", "0-1-9", purged("everything up to 0-1-6")),
        ("0-1-9", "[0-1-6,7-2-4]", "0-1-9,7-2-8", purged("everything up to 7-2-4")),
        (
            "0-1-2,7-2-3",
            "[0-1-6,7-2-4]",
            "0-1-9,7-2-8",
            purged("everything after 0-1-2 up to 0-1-6, everything after 7-2-3 up to 7-2-4"),
        ),
        // Two servers in one domain: the one listed last wrote last.
        ("0-1-5", "[0-1-5,0-2-7]", "0-1-5,0-2-9", purged("everything after 0-1-5 up to 0-2-7")),
        ("0-2-7", "[0-1-5,0-2-7]", "0-1-5,0-2-9", Reach::Reachable),
        ("0-2-8", "[0-1-5,0-2-7]", "0-1-5,0-2-9", Reach::Reachable),
        ("0-2-6", "[0-1-5,0-2-7]", "0-1-5,0-2-9", purged("everything after 0-2-6 up to 0-2-7")),
        // A server that took over after the first file began.
        ("0-3-8", "[0-1-5]", "0-1-5,0-3-9", Reach::Reachable),
        ("0-1-10", "", "0-1-9", ahead("0-1-10 where the server is at 0-1-9")),
        ("0-1-5", "", "0-1-4,0-2-7", ahead("0-1-5 where the server is at 0-2-7")),
        ("0-1-5,7-1-1", "[0-1-9]", "0-1-9", ahead("7-1-1 where the server has nothing of domain 7")),
        ("0-2-5", "", "", ahead("0-2-5 where the server has nothing of domain 0")),
    ] {
        assert_eq!(reach(stored, oldest, state), expected, "{stored} from {oldest} to {state}");
    }
    let state = MariaState::parse("[7-2-8,0-1-5,0-2-4]").unwrap();
    assert_eq!(state.newest().to_string(), "0-2-4,7-2-8");
    assert!(MariaState::parse("[0-1-5").is_err());
}
