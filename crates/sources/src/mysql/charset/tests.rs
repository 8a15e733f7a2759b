#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test, a panic with a clear message is how a failure is reported"
)]

use super::*;

fn charset(name: &str) -> Charset {
    Charset::by_name(name).unwrap_or_else(|| panic!("{name} is no character set"))
}

/// The text of bytes, by whichever way is open.
fn text(name: &str, bytes: &[u8]) -> Option<String> {
    let charset = charset(name);
    let mut out = b"before".to_vec();
    let decoded = charset.decode(bytes, &mut out);
    let decoded = decoded.then(|| String::from_utf8(out.split_off(6)).expect("UTF-8"));
    if let Some(same) = charset.as_utf8(bytes) {
        assert_eq!(decoded.as_deref(), Some(same), "{name}: both ways give the same");
    }
    decoded
}

#[test]
fn each_kind_of_set_reads_its_text() {
    let cases: &[(&str, &[u8], &str)] = &[
        ("utf8mb4", "grüße 🦀".as_bytes(), "grüße 🦀"),
        ("utf8mb3", "grüße €".as_bytes(), "grüße €"),
        ("utf8", b"plain", "plain"),
        ("ascii", b"plain\x7f\0", "plain\u{7f}\0"),
        ("latin1", b"caf\xe9 \x80 \x81\x8d\x8f\x90\x9d", "café € \u{81}\u{8d}\u{8f}\u{90}\u{9d}"),
        ("latin2", b"\xb3\xf3d\xbc", "łódź"),
        ("latin5", b"\xfd\xde", "ıŞ"),
        ("cp1251", b"\xcf\xf0\xe8\xe2\xe5\xf2", "Привет"),
        ("koi8r", b"\xf0\xd2\xc9\xd7\xc5\xd4", "Привет"),
        ("greek", b"\xe1\xe2\xe3", "αβγ"),
        ("cp850", b"\x81\x9b", "üø"),
        ("swe7", b"R{ksm|rg}s ^@", "Räksmörgås ÜÉ"),
        ("tis620", b"\xa1\xe3", "กใ"),
        ("ucs2", b"\x00a\x20\xac", "a€"),
        ("utf16", b"\x00a\xd8\x3e\xdd\x80", "a🦀"),
        ("utf16le", b"a\x00\x3e\xd8\x80\xdd", "a🦀"),
        ("utf32", b"\0\0\0a\0\x01\xf9\x80", "a🦀"),
        ("sjis", b"\x93\xfa\x96{\x8c\xea \xb1\x5c\x81\x60", "日本語 ｱ\\〜"),
        ("cp932", b"\x93\xfa\x81\x60\x87\x40\xfa\x40", "日～①ⅰ"),
        ("ujis", b"\xc6\xfc\x8e\xb1\x8f\xb0\xa1\xa1\xc1", "日ｱ丂〜"),
        ("eucjpms", b"\xc6\xfc\xa1\xc1\x8f\xf3\xf3\xad\xa1", "日～ⅰ①"),
        ("euckr", b"\xc7\xd1\xb1\xdb\x81\x41", "한글갂"),
        ("big5", b"\xa4\xa4\xa4\xe5\xa1\x45", "中文•"),
        ("gb2312", b"\xd6\xd0\xce\xc4\xa1\xa4", "中文・"),
        ("gbk", b"\xd6\xd0\x81\x40\xa1\xa4", "中丂·"),
        (
            "gb18030",
            b"\xd6\xd0\x81\x30\x81\x30\x94\x39\xfc\x36\xe3\x32\x9a\x35",
            "中\u{80}\u{1f600}\u{10ffff}",
        ),
        // The last two of the basic plane, which are no characters, and text all the same.
        ("gb18030", b"\x84\x31\xa4\x38\x84\x31\xa4\x39", "\u{fffe}\u{ffff}"),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(text(name, bytes).as_deref(), Some(*expected), "{name}");
        assert_eq!(text(name, b"").as_deref(), Some(""), "{name}");
    }
}

#[test]
fn what_a_set_does_not_have_is_no_text() {
    let cases: &[(&str, &[u8])] = &[
        ("utf8mb4", b"\xff"),
        ("utf8mb4", b"\xed\xa0\x80"),
        ("utf8mb4", b"\xc0\x80"),
        ("utf8mb4", b"\xf4\x90\x80\x80"),
        ("utf8mb3", "🦀".as_bytes()),
        ("ascii", b"\x80"),
        ("binary", b"a"),
        ("cp1250", b"a\x81"),
        ("swe7", b"\x7f"),
        ("swe7", b"\x80"),
        ("ucs2", b"\x00"),
        ("ucs2", b"\xd8\x00"),
        ("utf16", b"\xd8\x00"),
        ("utf16", b"\xdc\x00\xd8\x00"),
        ("utf16le", b"\x00\xd8\x00"),
        ("utf32", b"\x00\x00\xd8\x00"),
        ("utf32", b"\x00\x11\x00\x00"),
        ("utf32", b"\x00\x00\x00"),
        ("sjis", b"\x93"),
        ("sjis", b"\x87\x40"),
        ("cp932", b"\x80"),
        ("cp932", b"\x81\x7f"),
        ("ujis", b"\x8f\xb0"),
        ("ujis", b"\x8f\xb0!"),
        ("ujis", b"\x8e\x20"),
        ("euckr", b"\x81"),
        ("big5", b"\x87\x40"),
        ("big5", b"\xa1\x5a"),
        ("gb2312", b"\x81\x40"),
        ("gbk", b"\x81\x30\x81\x30"),
        ("gbk", b"\xff"),
        ("gb18030", b"\x81\x30\x81"),
        ("gb18030", b"\x81\x30\x81\x3a"),
        ("gb18030", b"\x81\x30\xff\x30"),
        ("gb18030", b"\xe3\x32\x9a\x36"),
        ("gb18030", b"\x84\x31\xa5\x30"),
    ];
    for (name, bytes) in cases {
        assert_eq!(text(name, bytes), None, "{name} {bytes:x?}");
    }
}

#[test]
fn every_set_has_a_name_a_table_and_a_width() {
    assert_eq!(Charset::all().count(), 41);
    for charset in Charset::all() {
        assert_eq!(Charset::by_name(charset.name()), Some(charset));
        for lead in 0..=u8::MAX {
            let mut out = Vec::new();
            charset.decode(&[lead, 0xa1, 0xa1, 0xa1], &mut out);
            assert!(std::str::from_utf8(&out).is_ok(), "{charset:?} writes only UTF-8, {lead:x}");
            assert!(charset.mbmaxlen() > 1 || out.len() <= 3 * 4, "{charset:?} {lead:x}");
        }
    }
    assert_eq!(Charset::by_name("utf8"), Charset::by_name("utf8mb3"));
    assert_eq!(Charset::by_name("LATIN1"), None, "servers print names in lower case");
    assert_eq!(Charset::by_name("ebcdic"), None);
    assert_eq!([Charset::UTF8MB4.name(), Charset::BINARY.name()], ["utf8mb4", "binary"]);
    let widths = ["utf8mb4", "utf8mb3", "gb18030", "ujis", "gbk", "ucs2", "latin1"]
        .map(|name| charset(name).mbmaxlen());
    assert_eq!(widths, [4, 3, 4, 3, 2, 2, 1]);
}

#[test]
fn collations_of_unknown_sets_are_left_out() {
    let collations = Collations::new([(8, "latin1"), (255, "utf8mb4"), (2304, "utf8mb4"), (77, "ebcdic")]);
    assert_eq!(collations.charset(8), Charset::by_name("latin1"));
    assert_eq!(collations.charset(2304), Some(Charset::UTF8MB4));
    assert_eq!(collations.charset(77), None);
    assert_eq!(collations.charset(9), None);
}
