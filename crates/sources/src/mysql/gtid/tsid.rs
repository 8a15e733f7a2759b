//! Whose transactions they are: UUIDs and tags of MySQL.

use super::show;
use std::fmt;

/// Longest tag, in bytes.
const MAX_TAG: usize = 32;

/// A tag of MySQL 8.3 and later: at most 32 of `a-z`, `0-9` and `_`, the first no digit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag {
    /// Filled up with zeros, which no tag holds, so that the derived order is that of the text.
    bytes: [u8; MAX_TAG],
    len: u8,
}

impl Tag {
    /// Takes a tag's text. Upper case becomes lower case, as on the server. `None` when it is no tag, or empty.
    pub fn new(text: &[u8]) -> Option<Tag> {
        let valid =
            |(i, b): (usize, &u8)| b.is_ascii_alphabetic() || *b == b'_' || (i > 0 && b.is_ascii_digit());
        if text.is_empty() || text.len() > MAX_TAG || !text.iter().enumerate().all(valid) {
            return None;
        }
        let mut tag = Tag { bytes: [0; MAX_TAG], len: text.len() as u8 };
        for (to, from) in tag.bytes.iter_mut().zip(text) {
            *to = from.to_ascii_lowercase();
        }
        Some(tag)
    }

    /// The text, which is ASCII.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

/// Whose numbers they are: a server's UUID and perhaps a tag. MySQL calls it a TSID. Ordered as the server prints them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Tsid {
    /// `@@server_uuid` of the server that made the transaction, or a group's name.
    pub(super) uuid: [u8; 16],
    /// The tag, when there is one.
    pub(super) tag: Option<Tag>,
}

impl fmt::Debug for Tsid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, |out| self.write(out))
    }
}

impl Tsid {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        write_uuid(out, &self.uuid);
        if let Some(tag) = &self.tag {
            out.push(b':');
            out.extend_from_slice(tag.as_bytes());
        }
    }
}

/// Appends a UUID in lower case.
pub(super) fn write_uuid(out: &mut Vec<u8>, uuid: &[u8; 16]) {
    let mut text = [b'-'; 36];
    let places = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    for (byte, place) in uuid.iter().zip(places) {
        text[place] = b"0123456789abcdef"[usize::from(byte >> 4)];
        text[place + 1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    out.extend_from_slice(&text);
}

/// The bytes of `3e11fa47-71ca-11e1-9e33-c80aa9429562`.
pub(super) fn parse_uuid(text: &[u8; 36]) -> Option<[u8; 16]> {
    let mut nibbles = [0; 32];
    let mut filled = 0;
    for (i, byte) in text.iter().enumerate() {
        if matches!(i, 8 | 13 | 18 | 23) {
            if *byte != b'-' {
                return None;
            }
            continue;
        }
        nibbles[filled] = char::from(*byte).to_digit(16)? as u8;
        filled += 1;
    }
    let mut uuid = [0; 16];
    for (byte, pair) in uuid.iter_mut().zip(nibbles.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    Some(uuid)
}
