//! Places in the write-ahead log.

use deltaforge_core::Position;
use serde_json::Value as Json;
use std::cmp::Ordering;
use std::fmt;

/// A log sequence number: a byte offset in the write-ahead log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Parses `16/B374D848`.
    pub fn parse(text: &str) -> Option<Lsn> {
        let (high, low) = text.split_once('/')?;
        let half = |h: &str| {
            let digits = (1..=8).contains(&h.len()) && h.bytes().all(|b| b.is_ascii_hexdigit());
            digits.then(|| u64::from_str_radix(h, 16).ok()).flatten()
        };
        Some(Lsn(half(high)? << 32 | half(low)?))
    }

    /// Appends the text form.
    pub fn write(self, out: &mut Vec<u8>) {
        hex(out, (self.0 >> 32) as u32);
        out.push(b'/');
        hex(out, self.0 as u32);
    }
}

/// Upper-case hexadecimal without leading zeros, as the server prints the halves.
fn hex(out: &mut Vec<u8>, half: u32) {
    let digits = (35 - half.leading_zeros().min(31)) / 4;
    for i in (0..digits).rev() {
        out.push(b"0123456789ABCDEF"[(half >> (4 * i)) as usize & 15]);
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 as u32)
    }
}

/// Which server a position belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// `system_identifier`, made by initdb; the same on all standbys.
    pub system_id: String,
    /// Timeline when it was noted.
    pub timeline: u32,
}

impl Server {
    /// The members that every position of this server ends with.
    pub fn json_tail(&self) -> Vec<u8> {
        let system_id = Json::String(self.system_id.clone());
        format!(",\"server\":{{\"system_id\":{system_id},\"timeline\":{}}}}}", self.timeline).into_bytes()
    }
}

/// A position of this source: `{"lsn","tx_id","server"}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgPosition {
    /// End of a commit, or a place up to which everything was read.
    pub lsn: Lsn,
    /// Transaction that ended there, when one did.
    pub tx_id: Option<u32>,
    /// Which server; `None` in a checkpoint made by hand.
    pub server: Option<Server>,
}

impl PgPosition {
    /// Reads a position's JSON.
    ///
    /// # Errors
    /// A sentence naming the member that is wrong.
    pub fn parse(position: &Position) -> Result<PgPosition, String> {
        let json: Json = serde_json::from_str(position.as_json()).map_err(|e| format!("not JSON: {e}"))?;
        let lsn = json.get("lsn").and_then(Json::as_str).and_then(Lsn::parse);
        let lsn = lsn.ok_or("`lsn` is missing or not of the form `16/B374D848`")?;
        let tx_id = match json.get("tx_id") {
            None | Some(Json::Null) => None,
            Some(n) => Some(
                n.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or("`tx_id` is not a transaction id")?,
            ),
        };
        let server = json.get("server").and_then(|server| {
            Some(Server {
                system_id: server.get("system_id")?.as_str()?.into(),
                timeline: server.get("timeline").and_then(Json::as_u64).unwrap_or(0) as u32,
            })
        });
        Ok(PgPosition { lsn, tx_id, server })
    }

    /// Orders two positions; `None` when they are of different servers or not of this source.
    pub fn compare(a: &Position, b: &Position) -> Option<Ordering> {
        let (a, b) = (PgPosition::parse(a).ok()?, PgPosition::parse(b).ok()?);
        let same = match (&a.server, &b.server) {
            (Some(a), Some(b)) => a.system_id == b.system_id,
            _ => true,
        };
        same.then(|| a.lsn.cmp(&b.lsn))
    }
}

/// Appends a position's JSON; `server_tail` is [`Server::json_tail`].
pub(super) fn write_position(out: &mut Vec<u8>, lsn: Lsn, tx_id: Option<u32>, server_tail: &[u8]) {
    out.extend_from_slice(b"{\"lsn\":\"");
    lsn.write(out);
    out.extend_from_slice(b"\",\"tx_id\":");
    match tx_id {
        Some(id) => out.extend_from_slice(itoa::Buffer::new().format(id).as_bytes()),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(server_tail);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsns_print_as_the_server_does_and_read_back() {
        for (n, text) in
            [(0, "0/0"), (0x016B_6C50, "0/16B6C50"), (u64::MAX, "FFFFFFFF/FFFFFFFF"), (1 << 32, "1/0")]
        {
            let mut out = Vec::new();
            Lsn(n).write(&mut out);
            assert_eq!(String::from_utf8_lossy(&out), text);
            assert_eq!(Lsn(n).to_string(), text);
            assert_eq!(Lsn::parse(text), Some(Lsn(n)));
        }
        for bad in ["", "0", "/", "0/", "/0", "0/123456789", "g/0", "0/0/0", "+1/0", " 0/0"] {
            assert_eq!(Lsn::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn positions_read_back_and_compare_as_numbers_of_one_server() {
        let make = |lsn: &str, system_id: &str| {
            let server = Server { system_id: system_id.into(), timeline: 1 };
            let mut out = Vec::new();
            write_position(&mut out, Lsn::parse(lsn).expect("an LSN"), Some(755), &server.json_tail());
            Position::from_json(std::str::from_utf8(&out).expect("UTF-8"))
        };
        let low = make("0/FFFFFFFF", "7");
        assert_eq!(
            low.as_json(),
            r#"{"lsn":"0/FFFFFFFF","tx_id":755,"server":{"system_id":"7","timeline":1}}"#
        );
        assert_eq!(PgPosition::parse(&low).map(|p| p.tx_id), Ok(Some(755)));
        assert_eq!(PgPosition::compare(&low, &make("1/0", "7")), Some(Ordering::Less));
        assert_eq!(PgPosition::compare(&make("10/0", "7"), &make("9/0", "7")), Some(Ordering::Greater));
        assert_eq!(PgPosition::compare(&low, &make("1/0", "8")), None);
        assert_eq!(PgPosition::compare(&low, &Position::from_json("{\"pos\":1}")), None);
        let by_hand = Position::from_json(r#"{"lsn":"0/1"}"#);
        assert_eq!(PgPosition::compare(&by_hand, &low), Some(Ordering::Less));
    }
}
