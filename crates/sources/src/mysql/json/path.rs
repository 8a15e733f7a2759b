//! Paths of partial updates: `$.member."a b"[2][last-1]`, as `Json_path::to_string` writes them.

use super::{Malformed, Result};
use std::borrow::Cow;

const BAD: Malformed = Malformed("JSON: a path that does not parse");

/// One step down.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Leg<'a> {
    /// A member of an object.
    Member(Cow<'a, [u8]>),
    /// An element of an array.
    Cell(Cell),
}

/// The index of an element, from the end where that is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) index: u32,
    pub(super) from_end: bool,
}

impl Cell {
    /// The place of the element that is meant, `None` if an array of this length has none such.
    pub(super) fn of(self, length: usize) -> Option<usize> {
        let index = self.index as usize;
        if index >= length {
            return None;
        }
        Some(if self.from_end { length - 1 - index } else { index })
    }

    /// Where an element is inserted: beyond the end at the end, before the start at the start.
    pub(super) fn insert_at(self, length: usize) -> usize {
        self.of(length).unwrap_or(if self.from_end { 0 } else { length })
    }
}

/// The legs of a path from its root. No leg matches more than one value: wildcards and ranges are not in diffs.
pub(super) struct Legs<'a>(&'a [u8]);

impl<'a> Legs<'a> {
    pub(super) fn new(path: &'a [u8]) -> Result<Legs<'a>> {
        path.strip_prefix(b"$").map(Legs).ok_or(BAD)
    }

    pub(super) fn next(&mut self) -> Result<Option<Leg<'a>>> {
        match self.0 {
            [] => Ok(None),
            [b'[', rest @ ..] => {
                let end = rest.iter().position(|b| *b == b']').ok_or(BAD)?;
                self.0 = &rest[end + 1..];
                cell(&rest[..end]).map(|cell| Some(Leg::Cell(cell)))
            }
            [b'.', b'"', rest @ ..] => {
                let mut end = 0;
                while *rest.get(end).ok_or(BAD)? != b'"' {
                    end += if rest[end] == b'\\' { 2 } else { 1 };
                }
                self.0 = &rest[end + 1..];
                unescape(&rest[..end]).map(Leg::Member).map(Some)
            }
            [b'.', rest @ ..] => {
                let ends = |b: &u8| matches!(b, b'.' | b'[' | b'*' | b'"' | b'\\') || b.is_ascii_whitespace();
                let end = rest.iter().position(ends).unwrap_or(rest.len());
                let (name, rest) = rest.split_at(end);
                if name.is_empty() {
                    return Err(BAD);
                }
                self.0 = rest;
                Ok(Some(Leg::Member(Cow::Borrowed(name))))
            }
            _ => Err(BAD),
        }
    }
}

/// `2`, `last`, `last-2`.
fn cell(text: &[u8]) -> Result<Cell> {
    let (from_end, digits) = match text.strip_prefix(b"last") {
        Some([]) => return Ok(Cell { index: 0, from_end: true }),
        Some([b'-', digits @ ..]) => (true, digits),
        Some(_) => return Err(BAD),
        None => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(BAD);
    }
    let index = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(BAD)?;
    Ok(Cell { index, from_end })
}

/// A name between quotes, its escapes undone.
fn unescape(name: &[u8]) -> Result<Cow<'_, [u8]>> {
    if !name.contains(&b'\\') {
        return Ok(Cow::Borrowed(name));
    }
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'\\' {
            out.push(*first);
            continue;
        }
        let (escape, after) = rest.split_first().ok_or(BAD)?;
        rest = after;
        out.push(match escape {
            b'"' | b'\\' | b'/' => *escape,
            b'b' => 0x08,
            b't' => b'\t',
            b'n' => b'\n',
            b'f' => 0x0c,
            b'r' => b'\r',
            b'u' => {
                let (digits, after) = rest.split_at_checked(4).ok_or(BAD)?;
                rest = after;
                // Control characters are all that the server escapes like this.
                match std::str::from_utf8(digits).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                    Some(control @ 0..=0x1f) if digits.starts_with(b"00") => control,
                    _ => return Err(BAD),
                }
            }
            _ => return Err(BAD),
        });
    }
    Ok(Cow::Owned(out))
}
