//! Places in the binary log.

use super::gtid::GtidSet;
use deltaforge_core::Position;
use serde_json::Value as Json;
use std::cmp::Ordering;

/// Offset of the first event in a log file; a magic number stands before it.
pub(super) const FIRST_OFFSET: u64 = 4;

/// Which server a position belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// What tells the server from others: `@@server_uuid`; for MariaDB what the source chose.
    pub uuid: String,
    /// How often the source had moved to another server, or found the log begun anew: file numbers start again then.
    pub term: u32,
}

impl Server {
    /// The members that every position of this server ends with.
    pub fn json_tail(&self) -> Vec<u8> {
        let uuid = Json::String(self.uuid.clone());
        format!(",\"server\":{{\"uuid\":{uuid},\"term\":{}}}}}", self.term).into_bytes()
    }
}

/// A position of this source: `{"file","pos","gtid_set","server"}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MySqlPosition {
    /// Log file. Empty when only the GTID set is known.
    pub file: String,
    /// Offset in it where the next event starts: the end of a transaction.
    pub pos: u64,
    /// What was read up to there; `None` when the server has no GTIDs.
    pub gtid_set: Option<GtidSet>,
    /// Which server; `None` in a checkpoint made by hand.
    pub server: Option<Server>,
}

impl MySqlPosition {
    /// Reads a position's JSON. One made by hand may leave out `server`, and either `gtid_set` or both `file` and `pos`.
    ///
    /// # Errors
    /// A sentence naming the member that is wrong.
    pub fn parse(position: &Position) -> Result<MySqlPosition, String> {
        let json: Json = serde_json::from_str(position.as_json()).map_err(|e| format!("not JSON: {e}"))?;
        let member = |name| json.get(name).filter(|value: &&Json| !value.is_null());
        let gtid_set = match member("gtid_set") {
            None => None,
            Some(Json::String(text)) => {
                Some(GtidSet::parse(text).map_err(|why| format!("`gtid_set`: {why}"))?)
            }
            Some(_) => return Err("`gtid_set` is not a text".into()),
        };
        let (file, pos) = match (member("file"), member("pos")) {
            (None, None) if gtid_set.is_some() => (String::new(), 0),
            (file, pos) => {
                let file = file.and_then(Json::as_str).filter(|file| numbered(file).is_some());
                let file =
                    file.ok_or("`file` is missing or not a log file's name such as `binlog.000042`")?;
                let pos = pos.and_then(Json::as_u64).filter(|pos| *pos >= FIRST_OFFSET);
                (file.to_owned(), pos.ok_or("`pos` is missing or not an offset of 4 or more")?)
            }
        };
        let server = match member("server") {
            None => None,
            Some(server) => {
                let uuid = server.get("uuid").and_then(Json::as_str).ok_or("`server.uuid` is not a text")?;
                let term =
                    server.get("term").and_then(Json::as_u64).and_then(|term| u32::try_from(term).ok());
                let term = term.ok_or("`server.term` is not a whole number below 4294967296")?;
                Some(Server { uuid: uuid.into(), term })
            }
        };
        Ok(MySqlPosition { file, pos, gtid_set, server })
    }

    /// Orders two positions: on one server by term, file number and offset; else by what their GTID sets hold. A position made
    /// by hand counts as one of the other's server. `None` when they are of different histories or not of this source.
    pub fn compare(a: &Position, b: &Position) -> Option<Ordering> {
        MySqlPosition::parse(a).ok()?.order(&MySqlPosition::parse(b).ok()?)
    }

    /// Orders two positions, as [`compare`](Self::compare) does.
    pub fn order(&self, other: &MySqlPosition) -> Option<Ordering> {
        let terms = match (&self.server, &other.server) {
            (Some(a), Some(b)) if a.uuid != b.uuid => None,
            (Some(a), Some(b)) => Some(a.term.cmp(&b.term)),
            _ => Some(Ordering::Equal),
        };
        if let (Some(terms), Some(a), Some(b)) = (terms, numbered(&self.file), numbered(&other.file))
            && a.0 == b.0
        {
            return Some(terms.then(a.1.cmp(&b.1)).then(self.pos.cmp(&other.pos)));
        }
        self.gtid_set.as_ref()?.compare(other.gtid_set.as_ref()?)
    }

    /// A position as one number: the log file's number times 2^32 plus the offset.
    pub fn number(position: &Position) -> Option<u64> {
        let position = MySqlPosition::parse(position).ok()?;
        Some(number(numbered(&position.file)?.1, position.pos))
    }
}

/// A place as one number, for metrics: the log file's number times 2^32 plus the offset.
pub(super) fn number(file_number: u32, offset: u64) -> u64 {
    (u64::from(file_number) << 32).saturating_add(offset)
}

/// A place as one number that sorts, for the schema registry: 32 bits of term, 32 of file number, 64 of offset.
pub(super) fn place(term: u32, file_number: u32, offset: u64) -> u128 {
    u128::from(term) << 96 | u128::from(file_number) << 64 | u128::from(offset)
}

/// The term of a [`place`].
pub(super) fn term(place: u128) -> u32 {
    (place >> 96) as u32
}

/// The parts of a log file's name: `binlog` and 42 of `binlog.000042`. `None` when it is no such name.
pub(super) fn numbered(file: &str) -> Option<(&str, u32)> {
    let (base, digits) = file.rsplit_once('.')?;
    // Digits only: Rust's `parse` would take a sign.
    let valid = !base.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    valid.then(|| digits.parse().ok().map(|number| (base, number))).flatten()
}

/// Appends a position's JSON; `executed` is the GTID set's text, `server_tail` is [`Server::json_tail`].
pub(super) fn write_position(
    out: &mut Vec<u8>,
    file: &str,
    pos: u64,
    executed: Option<&[u8]>,
    server_tail: &[u8],
) {
    out.extend_from_slice(b"{\"file\":");
    if file.bytes().all(|b| b >= b' ' && b != b'"' && b != b'\\') {
        out.push(b'"');
        out.extend_from_slice(file.as_bytes());
        out.push(b'"');
    } else {
        out.extend_from_slice(Json::from(file).to_string().as_bytes());
    }
    out.extend_from_slice(b",\"pos\":");
    out.extend_from_slice(itoa::Buffer::new().format(pos).as_bytes());
    match executed {
        Some(text) => {
            out.extend_from_slice(b",\"gtid_set\":\"");
            out.extend_from_slice(text);
            out.push(b'"');
        }
        None => out.extend_from_slice(b",\"gtid_set\":null"),
    }
    out.extend_from_slice(server_tail);
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn parse(json: &str) -> Result<MySqlPosition, String> {
        MySqlPosition::parse(&Position::from_json(json))
    }

    /// A position that the source wrote.
    fn written(file: &str, pos: u64, set: Option<&str>, server: &str, term: u32) -> Position {
        let tail = Server { uuid: server.into(), term }.json_tail();
        let mut out = Vec::new();
        write_position(&mut out, file, pos, set.map(str::as_bytes), &tail);
        Position::from_json(std::str::from_utf8(&out).expect("UTF-8"))
    }

    #[test]
    fn positions_are_written_and_read_back() {
        let position = written("binlog.000042", 12345, Some(&format!("{UUID}:1-42")), UUID, 1);
        assert_eq!(
            position.as_json(),
            format!(
                r#"{{"file":"binlog.000042","pos":12345,"gtid_set":"{UUID}:1-42","server":{{"uuid":"{UUID}","term":1}}}}"#
            )
        );
        let read = MySqlPosition::parse(&position).expect("a position");
        assert_eq!((read.file.as_str(), read.pos), ("binlog.000042", 12345));
        assert_eq!(read.gtid_set.as_ref().map(ToString::to_string), Some(format!("{UUID}:1-42")));
        assert_eq!(read.server, Some(Server { uuid: UUID.into(), term: 1 }));

        let without = written("binlog.000042", u64::MAX, None, "a \"quoted\" server", u32::MAX);
        assert_eq!(
            without.as_json(),
            r#"{"file":"binlog.000042","pos":18446744073709551615,"gtid_set":null,"server":{"uuid":"a \"quoted\" server","term":4294967295}}"#
        );
        assert_eq!(MySqlPosition::parse(&without).map(|p| p.gtid_set), Ok(None));
        let odd = written("a\"b\\c\n.000001", 4, None, UUID, 1);
        assert_eq!(MySqlPosition::parse(&odd).map(|p| p.file), Ok("a\"b\\c\n.000001".into()));
    }

    #[test]
    fn what_a_hand_writes_is_read_or_refused_with_the_member() {
        let by_hand = parse(r#"{"file":"binlog.000042","pos":4}"#).expect("a position");
        assert_eq!((by_hand.gtid_set, by_hand.server), (None, None));
        let both = parse(&format!(r#"{{"file":"b.000001","pos":4,"gtid_set":"{UUID}:1-5,\n{UUID}:7"}}"#));
        assert_eq!(both.map(|p| p.gtid_set.map(|s| s.to_string())), Ok(Some(format!("{UUID}:1-5:7"))));
        let maria = parse(r#"{"file":null,"pos":null,"gtid_set":"7-2-5, 0-1-100"}"#).expect("a position");
        assert_eq!((maria.file.as_str(), maria.pos), ("", 0));
        assert!(matches!(maria.gtid_set, Some(GtidSet::Maria(set)) if set.to_string() == "0-1-100,7-2-5"));

        let refused = [
            ("{", "not JSON"),
            ("{}", "`file`"),
            (r#"{"gtid_set":null}"#, "`file`"),
            (r#"{"file":"binlog","pos":4}"#, "`file`"),
            (r#"{"file":".000001","pos":4}"#, "`file`"),
            (r#"{"file":"binlog.","pos":4}"#, "`file`"),
            (r#"{"file":"binlog.+1","pos":4}"#, "`file`"),
            (r#"{"file":"binlog.4294967296","pos":4}"#, "`file`"),
            (r#"{"file":42,"pos":4}"#, "`file`"),
            (r#"{"file":"binlog.000001"}"#, "`pos`"),
            (r#"{"file":"binlog.000001","gtid_set":"0-1-2"}"#, "`pos`"),
            (r#"{"pos":4,"gtid_set":"0-1-2"}"#, "`file`"),
            (r#"{"file":"binlog.000001","pos":3}"#, "`pos`"),
            (r#"{"file":"binlog.000001","pos":-1}"#, "`pos`"),
            (r#"{"file":"binlog.000001","pos":4,"gtid_set":5}"#, "`gtid_set`"),
            (r#"{"file":"binlog.000001","pos":4,"gtid_set":"0-1"}"#, "`gtid_set`"),
            (r#"{"file":"binlog.000001","pos":4,"gtid_set":"x:1"}"#, "`gtid_set`"),
            (r#"{"file":"binlog.000001","pos":4,"server":7}"#, "`server.uuid`"),
            (r#"{"file":"binlog.000001","pos":4,"server":{"uuid":"u"}}"#, "`server.term`"),
            (r#"{"file":"binlog.000001","pos":4,"server":{"uuid":"u","term":4294967296}}"#, "`server.term`"),
        ];
        for (json, word) in refused {
            let why = parse(json).expect_err(json);
            assert!(why.contains(word), "{json}: {why}");
        }
    }

    #[test]
    fn places_of_one_server_are_ordered_by_term_file_number_and_offset() {
        let sorted = [
            written("binlog.000002", 4, None, UUID, 0),
            written("binlog.999999", 900, None, UUID, 0),
            written("binlog.1000000", 4, None, UUID, 0),
            written("binlog.1000000", 5, None, UUID, 0),
            written("binlog.1000000", 1 << 40, None, UUID, 0),
            written("binlog.4294967295", 4, None, UUID, 0),
            written("binlog.000001", 4, None, UUID, 1),
            written("binlog.000001", 4, None, UUID, u32::MAX),
        ];
        let sortable = |p: &Position| {
            let p = MySqlPosition::parse(p).expect("a position");
            let term = p.server.map_or(0, |server| server.term);
            place(term, numbered(&p.file).expect("a file's name").1, p.pos)
        };
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                assert_eq!(MySqlPosition::compare(a, b), Some(i.cmp(&j)), "{a} {b}");
                assert_eq!(sortable(a).cmp(&sortable(b)), i.cmp(&j), "{a} {b}");
            }
        }
        let by_hand = Position::from_json(r#"{"file":"binlog.1000000","pos":4}"#);
        assert_eq!(MySqlPosition::compare(&by_hand, &sorted[1]), Some(Ordering::Greater));
        assert_eq!(MySqlPosition::compare(&by_hand, &sorted[3]), Some(Ordering::Less));
        let other_base = written("relay.000001", 4, None, UUID, 0);
        assert_eq!(MySqlPosition::compare(&other_base, &sorted[0]), None);
        assert_eq!(MySqlPosition::compare(&Position::from_json(r#"{"lsn":"0/1"}"#), &sorted[0]), None);
    }

    #[test]
    fn positions_of_two_servers_are_ordered_by_their_sets() {
        let set = |last: u64| format!("{UUID}:1-{last}");
        let old = written("binlog.000900", 77, Some(&set(10)), UUID, 1);
        let compare =
            |set: Option<&str>| MySqlPosition::compare(&old, &written("binlog.000001", 4, set, "another", 2));
        assert_eq!(compare(Some(&set(11))), Some(Ordering::Less));
        assert_eq!(compare(Some(&set(10))), Some(Ordering::Equal));
        assert_eq!(compare(Some(&set(9))), Some(Ordering::Greater));
        assert_eq!(compare(Some(&format!("{UUID}:2-11"))), None);
        assert_eq!(compare(Some("0-1-5")), None);
        assert_eq!(compare(Some("")), Some(Ordering::Greater));
        assert_eq!(compare(None), None);
        let only_a_set = Position::from_json(&format!(r#"{{"gtid_set":"{}"}}"#, set(12)));
        assert_eq!(MySqlPosition::compare(&old, &only_a_set), Some(Ordering::Less));
    }

    #[test]
    fn the_number_is_the_files_times_two_to_the_32_plus_the_offset() {
        let of = |json| MySqlPosition::number(&Position::from_json(json));
        assert_eq!(of(r#"{"file":"binlog.000042","pos":12345}"#), Some((42 << 32) + 12345));
        assert_eq!(of(r#"{"file":"a.b.000001","pos":4294967300}"#), Some((2 << 32) + 4));
        assert_eq!(of(r#"{"file":"b.4294967295","pos":18446744073709551615}"#), Some(u64::MAX));
        assert_eq!(of(r#"{"gtid_set":"0-1-2"}"#), None);
        assert_eq!(of(r#"{"lsn":"0/1"}"#), None);
    }
}
