//! Statements in the log: QUERY, its compressed form, EXECUTE_LOAD_QUERY, and the settings they ran with.

use super::control::text;
use super::reader::Bytes;
use super::{Malformed, Result};

/// A statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// Connection that ran it.
    pub thread_id: u32,
    /// The error it ended with on the server, 0 for none.
    pub error_code: u16,
    /// Default database, empty for none.
    pub database: &'a str,
    /// The text, in the character set of [`Settings::client`]; compressed where the event says so.
    pub sql: &'a [u8],
    /// Settings it ran with.
    pub settings: Settings<'a>,
}

/// What a statement ran with, as far as a reader of the log may need it. `None`: the event does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings<'a> {
    /// `@@sql_mode`. The lower 32 bits mean the same on both servers.
    pub sql_mode: Option<u64>,
    /// Id of the default collation of `@@character_set_client`.
    pub client: Option<u16>,
    /// Id of `@@collation_connection`.
    pub connection: Option<u16>,
    /// Id of `@@collation_server`.
    pub server: Option<u16>,
    /// Id of `@@collation_database`.
    pub database: Option<u16>,
    /// Id of MySQL's `@@default_collation_for_utf8mb4`.
    pub utf8mb4: Option<u16>,
    /// `@@time_zone`.
    pub time_zone: Option<&'a str>,
    /// Microseconds after the event's `timestamp`, when the statement used them.
    pub microseconds: Option<u32>,
    /// The storage engine's number of the transaction, for a statement that commits by itself.
    pub xid: Option<u64>,
}

/// Bits of [`Settings::sql_mode`] that change how a text is read.
impl Settings<'_> {
    /// `ANSI_QUOTES`: `"` encloses names.
    pub const ANSI_QUOTES: u64 = 1 << 2;
    /// `NO_BACKSLASH_ESCAPES`: `\` is a character like any other.
    pub const NO_BACKSLASH_ESCAPES: u64 = 1 << 20;
}

impl<'a> Query<'a> {
    /// Reads QUERY, QUERY_COMPRESSED and, with `load`, EXECUTE_LOAD_QUERY.
    pub(super) fn parse(body: &'a [u8], load: bool) -> Result<Query<'a>> {
        const DATABASE: &str = "QUERY: database";
        const SETTINGS: &str = "QUERY: settings";
        let mut r = Bytes::new(body);
        let thread_id = r.u32("QUERY: connection")?;
        r.take(4, "QUERY: duration")?;
        let database = r.u8(DATABASE)?;
        let error_code = r.u16("QUERY: error")?;
        let settings = r.u16(SETTINGS)?;
        if load {
            r.take(13, "EXECUTE_LOAD_QUERY: file")?;
        }
        let settings = Settings::parse(Bytes::new(r.take(settings.into(), SETTINGS)?))?;
        let database = text(r.take(database.into(), DATABASE)?, DATABASE)?;
        if r.u8(DATABASE)? != 0 {
            return Err(Malformed(DATABASE));
        }
        Ok(Query { thread_id, error_code, database, sql: r.rest(), settings })
    }
}

impl<'a> Settings<'a> {
    /// Each is a code and a value whose length only the code tells, so an unknown code ends the reading. The servers write what is
    /// of use here before codes that a later version may add.
    fn parse(mut r: Bytes<'a>) -> Result<Settings<'a>> {
        const CUT: &str = "QUERY: a setting that is cut off";
        let mut settings = Settings::default();
        while !r.is_empty() {
            match r.u8(CUT)? {
                // Flags of the session.
                0 => skip(&mut r, 4)?,
                1 => settings.sql_mode = Some(r.u64(CUT)?),
                // Catalog, with a zero behind it.
                2 => {
                    let length = r.u8(CUT)?;
                    skip(&mut r, usize::from(length) + 1)?;
                }
                // Increment and offset of AUTO_INCREMENT.
                3 => skip(&mut r, 4)?,
                4 => {
                    settings.client = Some(r.u16(CUT)?);
                    settings.connection = Some(r.u16(CUT)?);
                    settings.server = Some(r.u16(CUT)?);
                }
                5 => settings.time_zone = Some(text(short(&mut r)?, "QUERY: time zone")?),
                // Catalog.
                6 => drop(short(&mut r)?),
                // Locale of month names.
                7 => skip(&mut r, 2)?,
                8 => settings.database = Some(r.u16(CUT)?),
                // Tables updated.
                9 => skip(&mut r, 8)?,
                // Size of the event on a server before 5.0.
                10 => skip(&mut r, 4)?,
                // User and host.
                11 => drop((short(&mut r)?, short(&mut r)?)),
                12 => databases(&mut r)?,
                13 | 128 => settings.microseconds = Some(r.u24(CUT)?),
                // explicit_defaults_for_timestamp.
                16 => skip(&mut r, 1)?,
                17 | 129 => settings.xid = Some(r.u64(CUT)?),
                18 => settings.utf8mb4 = Some(r.u16(CUT)?),
                // sql_require_primary_key, default_table_encryption, triggers of cascades.
                19..=21 => skip(&mut r, 1)?,
                // Parts of an ALTER TABLE of MariaDB logged in two: flags, for its end the number of its start.
                130 => {
                    if r.u8(CUT)? & 0b1100 != 0 {
                        skip(&mut r, 8)?;
                    }
                }
                // character_set_collations of MariaDB, written first: pairs of ids.
                131 => {
                    let pairs = r.u8(CUT)?;
                    skip(&mut r, usize::from(pairs) * 4)?;
                }
                _ => break,
            }
        }
        Ok(settings)
    }
}

fn skip(r: &mut Bytes<'_>, length: usize) -> Result<()> {
    r.take(length, "QUERY: a setting that is cut off").map(drop)
}

/// A text behind its length of one byte.
fn short<'a>(r: &mut Bytes<'a>) -> Result<&'a [u8]> {
    const CUT: &str = "QUERY: a setting that is cut off";
    let length = r.u8(CUT)?;
    r.take(length.into(), CUT)
}

/// The databases that a statement of MySQL touched; not listed when there are more than 16.
fn databases(r: &mut Bytes<'_>) -> Result<()> {
    const CUT: &str = "QUERY: names of databases that are cut off";
    let count = r.u8(CUT)?;
    if count <= 16 {
        for _ in 0..count {
            r.until_zero(CUT)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "in a test, a panic with a clear message is how a failure is reported"
    )]

    use super::*;

    fn query(settings: &[u8]) -> Vec<u8> {
        let mut out = vec![5, 0, 0, 0, 1, 0, 0, 0, 4, 0x2a, 0];
        out.extend((settings.len() as u16).to_le_bytes());
        out.extend(settings);
        out.extend(b"shop\0TRUNCATE t");
        out
    }

    #[test]
    fn settings_of_both_servers_are_read() {
        let mut settings = vec![0, 0, 0, 0, 0, 1, 4, 0, 0, 0x20, 0, 0, 0, 0, 6, 3];
        settings.extend(b"std\x03\x01\0\x02\0\x04\xff\0\x2d\0\x08\0\x05\x06+05:45\x07\0\0\x08\x1c\0\x09");
        settings.extend([0; 8]);
        settings.extend(b"\x0b\x01u\x01h\x0c\x02a\0b\0\x0d\x40\xe2\x01\x10\x01\x11\x07\0\0\0\0\0\0\0\x12\xff\0\x13\x01\x14\0\x15\0");
        let body = query(&settings);
        let query = Query::parse(&body, false).unwrap();
        let expected = Settings {
            sql_mode: Some(0x2000_0004),
            client: Some(255),
            connection: Some(45),
            server: Some(8),
            database: Some(28),
            utf8mb4: Some(255),
            time_zone: Some("+05:45"),
            microseconds: Some(123_456),
            xid: Some(7),
        };
        assert_eq!(query.settings, expected);
        assert_eq!((query.thread_id, query.error_code, query.database), (5, 42, "shop"));
        assert_eq!(query.sql, b"TRUNCATE t");
    }

    #[test]
    fn settings_of_mariadb_do_not_hide_those_behind_them() {
        let body = self::query(b"\x83\x01\x2d\0\x08\x09\x04\x08\0\x08\0\x08\0\x82\x04\x09\0\0\0\0\0\0\0\x82\x02\x80\x01\0\0\x81\x05\0\0\0\0\0\0\0");
        let settings = Query::parse(&body, false).unwrap().settings;
        assert_eq!((settings.client, settings.microseconds, settings.xid), (Some(8), Some(1), Some(5)));
    }

    #[test]
    fn an_unknown_setting_ends_the_settings_not_the_statement() {
        let body = query(b"\x01\x04\0\0\0\0\0\0\0\xfe\x01\x02");
        let query = Query::parse(&body, false).unwrap();
        assert_eq!(query.settings.sql_mode, Some(Settings::ANSI_QUOTES));
        assert_eq!(query.sql, b"TRUNCATE t");
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let body = query(b"\x02\x03std\0\x05\x06+05:45\x0c\xfe");
        assert_eq!(Query::parse(&body, false).unwrap().settings.time_zone, Some("+05:45"));
        for length in 0..body.len() - b"TRUNCATE t".len() {
            assert!(Query::parse(&body[..length], false).is_err(), "{length}");
        }
        assert!(Query::parse(&query(b"\x05\x06+05:"), false).is_err());
        assert!(Query::parse(&query(b"\x0c\x02a\0b"), false).is_err());
        assert!(Query::parse(&query(b"\x01\x04\0"), false).is_err());
        assert!(Query::parse(&query(b"\x09\x04\0"), false).is_err(), "one that is only skipped");
    }

    #[test]
    fn a_load_statement_has_a_longer_head() {
        let mut body = query(b"");
        body.splice(13..13, [7; 13]);
        assert_eq!(Query::parse(&body, true).unwrap().sql, b"TRUNCATE t");
        assert!(Query::parse(&body, false).is_err());
    }
}
