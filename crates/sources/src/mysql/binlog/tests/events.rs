//! Statements, places of the log, and what is not known.

use super::*;
use header::HEADER_BYTES;

#[test]
fn statements_come_with_their_settings() {
    let queries = |file| {
        log(file).into_iter().filter_map(|(_, event)| match event {
            Event::Query(query) => Some(query),
            _ => None,
        })
    };
    let find = |file, text: &str| queries(file).find(|query| query.sql.starts_with(text.as_bytes())).unwrap();
    for file in [MYSQL, MARIADB] {
        let alter = find(file, "alter table \"");
        assert_eq!((alter.database, alter.error_code), ("d", 0));
        assert_eq!(alter.settings.sql_mode, Some(Settings::ANSI_QUOTES));
        assert!(alter.settings.xid.is_some() && alter.settings.client.is_some());
    }
    assert_eq!(find(MYSQL, "create table pk").settings.utf8mb4, Some(255));
    let now = find(MARIADB, "insert into st");
    assert!(now.settings.microseconds.is_some() && now.settings.time_zone == Some("SYSTEM"));
    let parts = |file| {
        log(file).into_iter().filter_map(|(_, event)| match event {
            Event::StatementPart(kind) => Some(kind),
            Event::LoadData(query) => {
                assert!(query.sql.starts_with(b"LOAD DATA LOCAL INFILE 'load.txt'"));
                Some(EventType::ExecuteLoadQuery)
            }
            _ => None,
        })
    };
    use EventType::{BeginLoadQuery, ExecuteLoadQuery, IntVar, Rand, UserVar};
    let expected = [IntVar, Rand, UserVar, IntVar, BeginLoadQuery, IntVar, ExecuteLoadQuery];
    assert_eq!(parts(MYSQL).collect::<Vec<_>>(), expected);
    assert_eq!(parts(MARIADB).collect::<Vec<_>>(), expected);
    let texts = log(MARIADB).into_iter().filter_map(|(_, event)| match event {
        Event::RowsQuery(text) => Some(text),
        _ => None,
    });
    assert!(texts.into_iter().any(|text| text == b"update types set t=5 where id=1"));
    assert!(log(MYSQL).iter().any(|(_, e)| matches!(e, Event::RowsQuery(b"insert into nopk values (4,4)"))));
}

#[test]
fn places_of_the_log_are_read() {
    let Some((header, Event::Rotate(rotate))) = log(MYSQL).pop() else { panic!("a rotation") };
    assert_eq!((rotate.file, rotate.position), ("bin.000002", 4));
    assert!(!header.is_artificial());
    assert!(
        Rotate::parse(b"\x04\0\0\0\0\0\0\0").is_err() && Rotate::parse(b"\x04\0\0\0\0\0\0\0a\0b").is_err()
    );
    let heartbeat = Heartbeat::old(b"bin.000001", 157).unwrap();
    assert_eq!((heartbeat.file, heartbeat.position), ("bin.000001", 157));
    // An unknown field, 9, in between.
    let body = b"\x01\x0abin.000001\x09\x02??\x02\x09\xfe\0\0\0\0\x02\0\0\0\0";
    let heartbeat = Heartbeat::parse(body).unwrap();
    assert_eq!((heartbeat.file, heartbeat.position), ("bin.000001", 2 << 32));
    for length in 0..body.len() {
        assert!(Heartbeat::parse(&body[..length]).is_err(), "{length}");
    }
    assert!(Heartbeat::parse(b"\x01\x01a\x02\x02\x05\x05\0").is_err(), "bytes behind the position");
}

#[test]
fn a_format_that_is_not_known_is_refused() {
    let body = |file: &'static [u8]| header::split(events(file)[0].1, Checksum::Unknown).unwrap().1;
    let mysql = FormatDescription::parse(body(MYSQL)).unwrap();
    assert_eq!(mysql.server_version, "9.7.4-2");
    assert_eq!(mysql.format, Format { checksum: Checksum::Crc32, mariadb: false });
    let maria = FormatDescription::parse(body(MARIADB)).unwrap();
    assert!(maria.format.mariadb && maria.server_version.starts_with("10.11.19-MariaDB"));
    for (at, byte, why) in [
        (0, 3, "version of the log"),
        (56, 20, "length of the header"),
        (57 + 18, 6, "post-header of TABLE_MAP"),
        (57 + 1, 11, "post-header of QUERY"),
        (body(MYSQL).len() - 1, 2, "kind of checksum"),
    ] {
        let mut changed = body(MYSQL).to_vec();
        changed[at] = byte;
        assert!(FormatDescription::parse(&changed).is_err(), "{why}");
    }
    for length in 0..=57 {
        assert!(FormatDescription::parse(&body(MYSQL)[..length]).is_err(), "{length}");
    }
}

/// An event of this type, without checksum.
fn event(kind: u8, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0; HEADER_BYTES];
    out[4] = kind;
    out[9..13].copy_from_slice(&((HEADER_BYTES + body.len()) as u32).to_le_bytes());
    out[17..19].copy_from_slice(&flags.to_le_bytes());
    out.extend(body);
    out
}

#[test]
fn what_may_hold_rows_and_is_not_known_is_told() {
    let format = Format { checksum: Checksum::None, mariadb: false };
    let decoded = |kind: u8, flags: u16, body: &[u8]| {
        let bytes = event(kind, flags, body);
        let (header, body) = header::split(&bytes, Checksum::None).unwrap();
        format!("{:?}", decode(&header, body, format).unwrap())
    };
    assert_eq!(decoded(200, 0, b"rows?"), "Undecodable(Unknown(200))");
    assert_eq!(decoded(200, header::IGNORABLE, b"rows?"), "Ignored(Unknown(200))");
    assert_eq!(decoded(20, 0, b"rows of 2006"), "Undecodable(Unknown(20))");
    assert_eq!(decoded(172, 0, b"a part of a row"), "Undecodable(PartialRowData)");
    assert_eq!(decoded(172, header::IGNORABLE, b"a part of a row"), "Undecodable(PartialRowData)");
    assert_eq!(decoded(164, 0, b""), "RowFree(StartEncryption)");
    assert_eq!(decoded(3, 0, b""), "Stop");
    assert_eq!(
        decoded(26, 0, b"\x01\0\x04lost"),
        "Incident(Incident { number: 1, message: [108, 111, 115, 116] })"
    );
}
