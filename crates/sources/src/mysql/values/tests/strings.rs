//! Text, bytes, labels, JSON and the types that are stored as bytes. The bytes are what MySQL 9.7 and MariaDB 10.11 logged.

use super::*;

fn charset(name: &str) -> Facts<'static> {
    Facts { charset: Charset::by_name(name).unwrap(), ..facts() }
}

fn declared(declared: &'static str) -> Facts<'static> {
    Facts { declared, ..binary() }
}

#[test]
fn lengths_take_the_bytes_that_the_column_needs() {
    let short = [&[2][..], b"ab"].concat();
    let long = [&[2, 0][..], b"ab"].concat();
    for ty in [T::String, T::VarChar, T::VarString] {
        assert_eq!(shown(&codec(ty, 255, &facts()), &short), "\"ab\"", "{ty:?}");
        assert_eq!(shown(&codec(ty, 256, &facts()), &long), "\"ab\"", "{ty:?}");
    }
    for ty in [T::TinyBlob, T::Blob, T::MediumBlob, T::LongBlob] {
        for size in 1..=4 {
            let bytes = [&[2, 0, 0, 0][..size], b"ab"].concat();
            assert_eq!(shown(&codec(ty, size as u16, &facts()), &bytes), "\"ab\"", "{ty:?} {size}");
        }
    }
    let lies = read_of(&codec(T::Blob, 4, &facts()), b"\xff\xff\xff\xffab", 0);
    assert!(matches!(lies, Err(Refused::Malformed(_))), "{lies:?}");
}

#[test]
fn text_is_decoded_and_what_is_none_stays_bytes() {
    let cases = [
        ("utf8mb4", "04f09fa680", "\"🦀\"", true),
        ("latin1", "03e9fc80", "\"éü€\"", true),
        ("sjis", "0493fa967b", "\"日本\"", true),
        ("ucs2", "04006100e9", "\"aé\"", true),
        ("utf8mb4", "02ff61", r#"{"_base64":"/2E="}"#, false),
        ("sjis", "0261e9", r#"{"_base64":"Yek="}"#, false),
        ("cp1250", "026181", r#"{"_base64":"YYE="}"#, false),
        ("binary", "02ff61", r#"{"_base64":"/2E="}"#, true),
    ];
    for (name, bytes, expected, clean) in cases {
        let codec = codec(T::VarChar, 80, &charset(name));
        assert_eq!(read(&codec, &hex(bytes)), Ok((expected.into(), clean)), "{name}");
    }
}

#[test]
fn fixed_bytes_are_as_long_as_declared() {
    let fixed = codec(T::String, 4, &binary());
    assert_eq!(shown(&fixed, &hex("020102")), r#"{"_base64":"AQIAAA=="}"#);
    assert_eq!(shown(&fixed, &hex("00")), r#"{"_base64":"AAAAAA=="}"#);
    assert_eq!(shown(&fixed, &hex("0401020304")), r#"{"_base64":"AQIDBA=="}"#);
    assert!(matches!(read(&fixed, &hex("050102030405")), Err(Refused::Malformed(_))));
    assert_eq!(shown(&codec(T::VarChar, 4, &binary()), &hex("020102")), r#"{"_base64":"AQI="}"#);
    assert_eq!(shown(&codec(T::String, 4, &facts()), &hex("026162")), "\"ab\"", "CHAR is not padded");
}

#[test]
fn labels_by_number_and_by_bit() {
    let labels: Vec<String> = ["a", "", "ü"].map(String::from).into();
    let with = Facts { labels: &labels, ..facts() };
    let one = codec(T::Enum, 1, &with);
    for (bytes, expected) in [("00", ""), ("01", "a"), ("02", ""), ("03", "ü")] {
        assert_eq!(shown(&one, &hex(bytes)), format!("\"{expected}\""));
    }
    assert_eq!(read(&one, &hex("04")), Err(Refused::Label));
    let many: Vec<String> = (1..=300).map(|i| format!("l{i}")).collect();
    let wide = codec(T::Enum, 2, &Facts { labels: &many, ..facts() });
    assert_eq!(shown(&wide, &hex("2c01")), "\"l300\"");
    assert_eq!(read(&wide, &hex("2d01")), Err(Refused::Label));

    let set = codec(T::Set, 1, &with);
    assert_eq!([shown(&set, &[0]), shown(&set, &[5]), shown(&set, &[7])], ["\"\"", "\"a,ü\"", "\"a,,ü\""]);
    assert_eq!(read(&set, &[8]), Err(Refused::Label));
    let most = codec(T::Set, 8, &Facts { labels: &many[..64], ..facts() });
    assert_eq!(shown(&most, &hex("0100000000000080")), "\"l1,l64\"");
    assert_eq!(shown(&most, &[0xff; 8]).matches(',').count(), 63);
}

#[test]
fn json_of_mysql_is_printed() {
    let json = codec(T::Json, 4, &binary());
    let document = "2200000000010021000b000100020c0061030015000501000b0d000400000000000000000440";
    assert_eq!(shown(&json, &hex(document)), r#"{"a":[1,2.5,null]}"#);
    assert_eq!(shown(&json, &hex("00000000")), "null", "an empty value is the literal");
    assert!(matches!(read(&json, &hex("020000000403")), Err(Refused::Malformed(_))));
}

#[test]
fn json_of_mariadb_is_text_that_must_be_json() {
    let with = |name| codec(T::Blob, 1, &Facts { json: true, ..charset(name) });
    let read = |name, text: &[u8]| read(&with(name), &[&[text.len() as u8][..], text].concat()).unwrap();
    assert_eq!(
        read("utf8mb4", br#"{"a" : [1, 2.50, null ], "a":1e5}"#),
        (r#"{"a":[1,2.50,null],"a":1e5}"#.into(), true)
    );
    assert_eq!(read("utf8mb4", br#"{"a":"\u00e9\ud800"}"#), (r#"{"a":"\u00e9\ud800"}"#.into(), true));
    assert_eq!(read("latin1", b"[\"\xe9\" , 1]"), ("[\"é\",1]".into(), true));
    assert_eq!(read("ucs2", b"\0[\0 \0]"), ("[]".into(), true));
    assert_eq!(read("utf8mb4", b"{not json"), ("\"{not json\"".into(), false));
    assert_eq!(read("latin1", b"\xe9 1"), ("\"é 1\"".into(), false));
    assert_eq!(read("utf8mb4", b"\"\xff\""), (r#"{"_base64":"Iv8i"}"#.into(), false));
}

#[test]
fn json_text_is_checked_as_serde_json_does_and_keeps_its_tokens() {
    let texts = [
        "null",
        " true ",
        "false",
        "0",
        "-0",
        "1.50",
        "1e5",
        "-1.5E-07",
        "12345678901234567890123",
        "\"\"",
        r#""\"\\\/\b\f\n\r\t\u00Ff""#,
        "[]",
        "[ ]",
        "[1 ,2]",
        "{}",
        "{ }",
        r#"{"a":1}"#,
        r#"{ "a" : [ { } , "b" ] }"#,
        "[[[[]]]]",
        "\t\r\n1\n",
        "",
        " ",
        "nul",
        "nulll",
        "tru e",
        "01",
        "1.",
        ".5",
        "-",
        "+1",
        "1e",
        "1e+",
        "1.e5",
        "0x1",
        "NaN",
        "Infinity",
        "\"",
        "\"\\",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"a\nb\"",
        "'a'",
        "[",
        "]",
        "[1",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{",
        "}",
        "{]",
        "[}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{1:2}",
        "{\"a\":1 \"b\":2}",
        "[1]]",
        "1 2",
        "{} {}",
        "\u{a0}1",
        "1\0",
        "[1],",
        ":",
        ",",
    ];
    for text in texts {
        let expected = serde_json::from_str::<&serde_json::value::RawValue>(text);
        let mut out = Vec::new();
        let compacted = json_text::compact(text, &mut out);
        assert_eq!(compacted.is_ok(), expected.is_ok(), "{text:?}");
        if expected.is_ok() {
            let expected: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{text:?}");
        }
    }
    let mut out = Vec::new();
    assert_eq!(json_text::compact("{ \"a b\" : \" \\\" \" }", &mut out), Ok(()));
    assert_eq!(out, br#"{"a b":" \" "}"#, "white space in strings stays");
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(json_text::compact(&nested(1024), &mut Vec::new()).is_ok());
    assert!(json_text::compact(&nested(1025), &mut Vec::new()).is_err());
    let mixed = "{\"a\":[".repeat(300) + &"]}".repeat(300);
    assert!(json_text::compact(&mixed, &mut Vec::new()).is_ok());
}

#[test]
fn geometries_and_vectors() {
    let geometry = codec(T::Geometry, 4, &binary());
    assert_eq!(
        shown(&geometry, &hex("19000000e6100000010100000000000000000034400000000000002440")),
        r#"{"srid":4326,"wkb":"AQEAAAAAAAAAAAA0QAAAAAAAACRA"}"#
    );
    assert_eq!(read(&geometry, &hex("00000000")), Ok((r#"{"_base64":""}"#.into(), false)));
    let vector = codec(T::Vector, 4, &binary());
    assert_eq!(shown(&vector, &hex("0c0000000000803fcdcccc3d7684dfd0")), "[1.0,0.1,-30000000000.0]");
    assert_eq!(shown(&vector, &hex("00000000")), "[]");
    assert!(matches!(read(&vector, &hex("050000000000803fcd")), Err(Refused::Malformed(_))));
    let of_mariadb = codec(T::VarChar, 12, &declared("vector(3)"));
    assert_eq!(shown(&of_mariadb, &hex("080000803fcdcccc3d")), "[1.0,0.1]");
}

#[test]
fn types_that_only_the_declaration_tells() {
    let uuid = codec(T::String, 16, &declared("uuid"));
    for (bytes, expected) in [
        ("0f123e4567e89b12d3a4564266141740", "123e4567-e89b-12d3-a456-426614174000"),
        ("10f81d4fae7dec11d0a76500a0c91e6bf6", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"),
        ("1001888888 7dec 7dd0 8765 00a0c91e6bf6", "01888888-7dec-7dd0-8765-00a0c91e6bf6"),
        ("00", "00000000-0000-0000-0000-000000000000"),
    ] {
        assert_eq!(shown(&uuid, &hex(bytes)), format!("\"{expected}\""));
    }
    assert!(matches!(read(&uuid, &[17; 18]), Err(Refused::Malformed(_))));
    let inet4 = codec(T::String, 4, &declared("inet4"));
    for (bytes, expected) in [("04c0000201", "192.0.2.1"), ("010a", "10.0.0.0"), ("00", "0.0.0.0")] {
        assert_eq!(shown(&inet4, &hex(bytes)), format!("\"{expected}\""));
    }
    let inet6 = codec(T::String, 16, &declared("inet6"));
    for (bytes, expected) in [
        ("1020010db8000000000000000000000001", "2001:db8::1"),
        ("00", "::"),
        ("1000000000000000000000000000000001", "::1"),
        ("0400000001", "0:1::"),
        ("08fe80000000000001", "fe80:0:0:1::"),
        ("1000010002000300000005000600070008", "1:2:3::5:6:7:8"),
        ("1000000000000000000000000001020304", "::1.2.3.4"),
        ("1000000000000000000000ffff01020304", "::ffff:1.2.3.4"),
        ("1000000000000000000000ffff00000001", "::ffff:0.0.0.1"),
        ("1000000000000000000000ffffffffffff", "::ffff:255.255.255.255"),
        ("10ffffffffffffffffffffffffffffffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ] {
        assert_eq!(shown(&inet6, &hex(bytes)), format!("\"{expected}\""));
    }
}

#[test]
fn compressed_columns_are_as_if_they_were_not() {
    let text = codec(T::VarCharCompressed, 801, &facts());
    let hundred = format!("\"{}\"", "a".repeat(100));
    assert_eq!(shown(&text, &hex("080089644b4ca43d0000")), hundred);
    assert_eq!(shown(&text, &hex("0e008164789c4b4ca43d00007a4725e5")), hundred, "with a head and a sum");
    assert_eq!(shown(&text, &hex("06000073686f7274")), "\"short\"", "not worth it");
    assert_eq!(shown(&text, &hex("0000")), "\"\"");
    let latin1 = codec(T::VarCharCompressed, 301, &charset("latin1"));
    assert_eq!(shown(&latin1, &hex("080089fa7bf972a40200")), format!("\"{}\"", "é".repeat(250)));
    let bytes = codec(T::VarCharCompressed, 101, &binary());
    let h90 = Value::Bytes(&[b'h'; 90]);
    assert_eq!(
        shown(&bytes, &hex("08895acbc8a0150000")),
        in_a_row(|cell| {
            cell.put(h90);
            Ok(true)
        })
    );
    let json = codec(T::BlobCompressed, 2, &Facts { json: true, ..facts() });
    assert_eq!(shown(&json, &hex("0500005b20315d")), "[1]");

    let malformed = |bytes: &str| {
        let read = read(&text, &hex(bytes));
        assert!(matches!(read, Err(Refused::Malformed(_))), "{bytes}: {read:?}");
    };
    malformed("080099644b4ca43d0000");
    malformed("08008a64004b4ca43d00");
    malformed("080089634b4ca43d0000");
    malformed("080089654b4ca43d0000");
    malformed("070089644b4ca43d00");
    malformed("0e008164789c4b4ca43d00007a4725e6");
    malformed("01008f");
    malformed("09008fffffffffffffff00");
    malformed("0b008cffffffff4b4ca43d0000");
}
