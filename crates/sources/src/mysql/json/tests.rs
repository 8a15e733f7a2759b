#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test, a panic with a clear message is how a failure is reported"
)]

use super::*;

const DOCUMENTS: &str = include_str!("recorded/documents.txt");
const UPDATES: &str = include_str!("recorded/updates.txt");

/// The lines of a record, split into what was asked of the server, the bytes, and the text.
fn recorded(lines: &'static str) -> impl Iterator<Item = (&'static str, Vec<Vec<u8>>, &'static str)> {
    lines.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [what, bytes @ .., text] = fields.as_slice() else { panic!("too few fields: {line}") };
        (*what, bytes.iter().map(|hex| unhex(hex)).collect(), *text)
    })
}

fn unhex(hex: &str) -> Vec<u8> {
    let digit = |c: u8| (c as char).to_digit(16).expect("hex") as u8;
    hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn text(document: &[u8]) -> Result<String> {
    let mut out = b"before ".to_vec();
    write_text(document, &mut out)?;
    assert!(out.len() - 7 <= 6 * document.len() + 4, "{} bytes of {document:02x?}", out.len() - 7);
    Ok(String::from_utf8(out.split_off(7)).unwrap())
}

fn updated(before: &[u8], diffs: &[u8]) -> Result<String> {
    let mut out = Vec::new();
    assert_eq!(apply_diffs(Some(before), diffs, &mut out)?, Applied::Written);
    assert!(out.len() <= 6 * (before.len() + diffs.len()) + 4);
    Ok(String::from_utf8(out).unwrap())
}

/// A small array of values that do not fit into their entries.
fn array(values: &[&[u8]]) -> Vec<u8> {
    let header = 4 + 3 * values.len();
    let size = header + values.iter().map(|value| value.len() - 1).sum::<usize>();
    let mut out = vec![0x02, values.len() as u8, 0, size as u8, (size >> 8) as u8];
    let mut offset = header;
    for value in values {
        out.extend([value[0], offset as u8, (offset >> 8) as u8]);
        offset += value.len() - 1;
    }
    values.iter().for_each(|value| out.extend(&value[1..]));
    out
}

fn diff(operation: u8, path: &str, value: Option<&[u8]>) -> Vec<u8> {
    let mut out = vec![operation];
    for bytes in [path.as_bytes()].into_iter().chain(value) {
        match bytes.len() {
            short @ 0..=250 => out.push(short as u8),
            length => out.extend([252, length as u8, (length >> 8) as u8]),
        }
        out.extend(bytes);
    }
    out
}

#[test]
fn documents_print_as_the_server_printed_them() {
    let mut count = 0;
    for (what, bytes, expected) in recorded(DOCUMENTS) {
        assert_eq!(text(&bytes[0]).as_deref(), Ok(expected), "{what}");
        assert_eq!(updated(&bytes[0], b"").as_deref(), Ok(expected), "no diffs: {what}");
        count += 1;
    }
    assert_eq!(count, 27);
}

#[test]
fn updates_lead_where_the_server_went() {
    let mut count = 0;
    for (what, bytes, expected) in recorded(UPDATES) {
        assert_eq!(updated(&bytes[0], &bytes[1]).as_deref(), Ok(expected), "{what}");
        count += 1;
    }
    assert_eq!(count, 11);
}

#[test]
fn an_empty_document_is_null() {
    assert_eq!(text(b"").as_deref(), Ok("null"));
    assert_eq!(updated(b"", b"").as_deref(), Ok("null"));
}

#[test]
fn large_containers_have_wide_entries() {
    // {"k": [-70000, 3000000000, "x"]}, both in the large format.
    let inner = "03000000 19000000 07 90eefeff 08 005ed0b2 0c 17000000 0178".replace(' ', "");
    let outer = format!("0100000031000000 13000000 0100 03 14000000 6b{inner}").replace(' ', "");
    let document = unhex(&format!("01{outer}"));
    assert_eq!(text(&document), Err(Malformed("JSON: a container longer than what holds it")));
    let document = unhex(&format!("01{}", outer.replacen("31000000", "2d000000", 1)));
    assert_eq!(text(&document).as_deref(), Ok(r#"{"k":[-70000,3000000000,"x"]}"#));
    assert_eq!(
        updated(&document, &diff(2, "$.k[last]", None)).as_deref(),
        Ok(r#"{"k":[-70000,3000000000]}"#)
    );
}

#[test]
fn strings_opaque_to_the_server_are_strings() {
    // MYSQL_TYPE_VAR_STRING
    assert_eq!(text(b"\x0f\xfd\x02a\"").as_deref(), Ok(r#""a\"""#));
}

#[test]
fn escapes_are_found_at_every_place() {
    for length in 0..40 {
        for at in 0..length {
            for (byte, escape) in
                [(b'"', "\\\""), (b'\\', "\\\\"), (0x1f, "\\u001f"), (0, "\\u0000"), (0x20, " ")]
            {
                let mut plain = vec![b'!'; length];
                plain[at] = byte;
                let expected = format!("\"{}{escape}{}\"", "!".repeat(at), "!".repeat(length - at - 1));
                assert_eq!(text(&[&[0x0c, length as u8][..], &plain].concat()), Ok(expected));
            }
        }
    }
}

#[test]
fn containers_nest_a_hundred_deep_and_no_deeper() {
    let nested = |depth| (1..depth).fold(array(&[]), |inner, _| array(&[&inner]));
    assert_eq!(text(&nested(100)), Ok("[".repeat(100) + &"]".repeat(100)));
    let deep = Err(Malformed("JSON: nested more than 100 deep"));
    assert_eq!(text(&nested(101)), deep);
    // Also when it is an update that makes it too deep, or whose path would.
    let inmost = "$".to_owned() + &"[0]".repeat(50);
    let insert = |depth| diff(1, &inmost, Some(&nested(depth)));
    assert_eq!(updated(&nested(50), &insert(50)), Ok("[".repeat(100) + &"]".repeat(100)));
    assert_eq!(updated(&nested(50), &insert(51)), deep);
    // Though the update would take the deep part away, it would have to be taken apart first.
    let remove = |legs| diff(2, &("$".to_owned() + &"[0]".repeat(legs)), None);
    assert_eq!(updated(&nested(101), &remove(100)), Ok("[".repeat(100) + &"]".repeat(100)));
    assert_eq!(updated(&nested(5000), &[remove(4999), remove(1)].concat()), deep);
}

#[test]
fn values_that_overlap_end_early() {
    // Ten levels, each an array whose fifty elements are all the next level: 50^10 elements if one believed it.
    let mut document = array(&[b"\x0c\x01x"]);
    for _ in 0..10 {
        let header = 4 + 3 * 50;
        let size = header + document.len() - 1;
        let mut outer = vec![0x02, 50, 0, size as u8, (size >> 8) as u8];
        for _ in 0..50 {
            outer.extend([document[0], header as u8, 0]);
        }
        outer.extend(&document[1..]);
        document = outer;
    }
    let overlap = Err(Malformed("JSON: values that overlap"));
    assert_eq!(text(&document), overlap);
    assert_eq!(updated(&document, b""), overlap);
    let twice = [diff(0, "$[0][0][0][0]", Some(&[4, 0])), diff(0, "$[1][0][0][0]", Some(&[4, 0]))].concat();
    assert_eq!(updated(&document, &twice), overlap);

    // One string three times; one array of literals, which lie in their entries, twice.
    let three = [b"\x02\x03\0\x22\0".as_slice(), &[0x0c, 13, 0].repeat(3), b"\x14", &[b'x'; 20]].concat();
    assert_eq!(text(&three), overlap);
    let literals = [&[20, 0, 64, 0][..], &[4, 1, 0].repeat(20)].concat();
    let two = [b"\x02\x02\0\x4a\0".as_slice(), &[0x02, 10, 0].repeat(2), &literals].concat();
    assert_eq!(text(&two), overlap);
    // What lies around the values of an update pays for nothing else.
    let inserts = diff(1, "$[7]", Some(&[4, 0])).repeat(6);
    assert_eq!(updated(&three, &inserts), overlap);
}

#[test]
fn lengths_of_strings_take_seven_bits_a_byte() {
    for length in [0, 1, 63, 64, 100, 127, 128, 200, 16_383, 16_384, 2_097_151, 2_097_152] {
        let mut document = vec![0x0c];
        let mut rest = length;
        while rest > 0x7f {
            document.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        document.push(rest as u8);
        document.resize(document.len() + length, b'z');
        assert_eq!(text(&document), Ok(format!("\"{}\"", "z".repeat(length))));
    }
}

#[test]
fn malformed_documents_are_refused() {
    for hex in [
        "03",
        "0301",
        "04",
        "0403",
        "05ff",
        "0bffff",
        "0b000000000000f07f",
        "0b000000000000f8ff",
        "0c",
        "0c02ff",
        "0cffffffffff01",
        "0c80808080808000",
        "0d",
        "0e",
        "0f",
        "0ff6",
        "10",
        "ff",
        // Containers: cut short; longer than the document; entries that do not fit; offsets into the entries; past the end.
        "02",
        "020000",
        "0201000400",
        "0201000800",
        "020100070004",
        "02ffffffff",
        "03ffffffffffffffff",
        "02 0100 0900 0c 0700 0278",
        "02 0100 0900 0c 0a00 0178",
        "02 0100 0900 0c ffff 0178",
        "02 0100 0800 0c 0100 00",
        "00 0100 0c00 0c00 0100 040000 61",
        "00 0100 0c00 0b00 0200 040000 61",
        "00 0100 0c00 0400 0100 040000 61",
        // Decimals: no digits; more scale than precision; digits beyond the precision; too few bytes; bytes left over.
        "0f f6 02 0100",
        "0f f6 03 010280",
        "0f f6 03 01008a",
        "0f f6 06 0900 bb9aca00",
        "0f f6 05 0900 800000",
        "0f f6 04 0100 8100",
        // Times: seven bytes; a minute and a second of 60; 839 and, in a date, 24 hours; a microsecond too many; the year
        // 10000; a negative date; the smallest number there is.
        "0f 0b 07 00000000000000",
        "0f 0b 08 000000 3c00000000",
        "0f 0b 08 000000 000f000000",
        "0f 0b 08 000000 0070340000",
        "0f 0c 08 000000 0080010000",
        "0f 0b 08 40420f 0000000000",
        "0f 0a 08 000000 000000f47e",
        "0f 0a 08 0000000000ffffff",
        "0f 0b 08 0000000000000080",
        "0f 0c 08 ffffffffffffff7f",
    ] {
        let bytes = unhex(&hex.replace(' ', ""));
        let mut out = Vec::new();
        assert!(write_text(&bytes, &mut out).is_err(), "{hex}: {}", String::from_utf8_lossy(&out));
    }
}

#[test]
fn updates_that_do_not_fit_are_refused() {
    let (_, bytes, _) = recorded(UPDATES).next().unwrap();
    assert_eq!(text(&bytes[0]).unwrap().replace("xxxx", ""), r#"{"é":4,"a b":[1,{"c":2},"three"],"pad":""}"#);
    let before = &bytes[0];
    let null: &[u8] = &[4, 0];
    let accepted = [
        diff(0, "$.pad", Some(null)),
        diff(1, "$.\"a b\"[1].d", Some(b"")),
        diff(2, "$.é", None),
        diff(0, "$.\"a b\"[last-1]", Some(null)),
        diff(1, "$.\"\\u0007\\/\"", Some(null)),
        diff(1, "$.\"a b\"[4294967295]", Some(null)),
        diff(1, "$.\"a b\"[last-4294967295]", Some(null)),
    ];
    for diffs in &accepted {
        assert!(updated(before, diffs).is_ok(), "{}", String::from_utf8_lossy(diffs));
        for end in 1..diffs.len() {
            assert!(
                updated(before, &diffs[..end]).is_err(),
                "{} cut at {end}",
                String::from_utf8_lossy(diffs)
            );
        }
    }
    let all = accepted.concat();
    let expected = r#"{"\u0007/":null,"a b":[null,1,null,"three",null],"pad":null}"#;
    assert_eq!(updated(before, &all).as_deref(), Ok(expected));
    assert_eq!(
        updated(before, &all[..all.len() - 2]),
        Err(Malformed("JSON: the value of a partial update")),
        "an update is taken whole or not at all"
    );
    for (operation, path) in [
        (0, "$"),
        (1, "$"),
        (2, "$"),
        (0, ""),
        (0, "pad"),
        (0, "$."),
        (0, "$pad"),
        (0, "$.pad "),
        (0, "$.*"),
        (0, "$**.c"),
        (0, "$.missing"),
        (2, "$.missing"),
        (1, "$.pad"),
        (0, "$[0]"),
        (1, "$[0]"),
        (2, "$[0]"),
        (0, "$.pad.x"),
        (1, "$.pad.x"),
        (1, "$.pad[0]"),
        (2, "$.pad[0]"),
        (0, "$.\"a b\".c"),
        (1, "$.\"a b\".c"),
        (2, "$.\"a b\".c"),
        (0, "$.\"a b\"[3]"),
        (2, "$.\"a b\"[3]"),
        (0, "$.\"a b\"[last-3]"),
        (2, "$.\"a b\"[last-3]"),
        (1, "$.missing.x"),
        (0, "$.\"a b\"[]"),
        (0, "$.\"a b\"[*]"),
        (0, "$.\"a b\"[0 to 1]"),
        (0, "$.\"a b\"[+1]"),
        (0, "$.\"a b\"[-1]"),
        (0, "$.\"a b\"[last-]"),
        (0, "$.\"a b\"[lastly]"),
        (0, "$.\"a b\"[4294967296]"),
        (0, "$.\"a b\"[0"),
        (0, "$.\"a b"),
        (0, "$.\"a b\\"),
        (0, "$.\"a b\\\""),
        (1, "$.\"\\x\""),
        (1, "$.\"\\u00g0\""),
        (1, "$.\"\\ud800\""),
        (1, "$.\"\\u00\""),
        (1, "$.\"\\u00+1\""),
        (1, "$.\"\\u+007\""),
        (1, "$.x*"),
        (1, "$.x y"),
        (1, "$.x\""),
        (3, "$.pad"),
        (255, "$.pad"),
    ] {
        let diffs = diff(operation, path, (operation != 2).then_some(null));
        assert!(updated(before, &diffs).is_err(), "{operation} {path}: {:?}", updated(before, &diffs));
    }
}

#[test]
fn without_the_old_document_nothing_is_known() {
    let mut out = Vec::new();
    assert_eq!(apply_diffs(None, &diff(2, "$.a", None), &mut out), Ok(Applied::NoBefore));
    assert!(out.is_empty());
}

/// Every record with every bit turned over and every length: an error or a text, within the bounds.
#[test]
fn damaged_bytes_do_no_harm() {
    let damaged = |bytes: &[u8], run: &dyn Fn(&[u8])| {
        (0..bytes.len()).for_each(|end| run(&bytes[..end]));
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            run(&bytes);
        }
    };
    let bound = |out: Vec<u8>, input: usize| assert!(out.len() <= 6 * input + 4);
    for (_, bytes, _) in recorded(DOCUMENTS) {
        damaged(&bytes[0], &|bytes| {
            let mut out = Vec::new();
            let _ = write_text(bytes, &mut out);
            bound(out, bytes.len());
        });
    }
    for (_, bytes, _) in recorded(UPDATES) {
        let [before, diffs] = &bytes[..] else { panic!("before and diffs") };
        let run = |before: &[u8], diffs: &[u8]| {
            let mut out = Vec::new();
            let _ = apply_diffs(Some(before), diffs, &mut out);
            bound(out, before.len() + diffs.len());
        };
        damaged(before, &|before| run(before, diffs));
        damaged(diffs, &|diffs| run(before, diffs));
    }
}
