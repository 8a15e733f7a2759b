//! JSON in a text column: checked, and copied without white space.
//!
//! MariaDB stores JSON as it was given, and its check can be switched off or be laxer than RFC 8259; what is embedded in an
//! event must be JSON for every reader.

/// Arrays and objects inside each other; MariaDB itself refuses far fewer.
const MAX_DEPTH: usize = 1024;

/// Not JSON, or nested too deeply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotJson;

type Scanned<T = ()> = Result<T, NotJson>;

/// Which of the open brackets are braces, one bit each.
struct Open {
    braces: [u64; MAX_DEPTH / 64],
    depth: usize,
}

impl Open {
    fn push(&mut self, brace: bool) -> Scanned {
        let word = self.braces.get_mut(self.depth / 64).ok_or(NotJson)?;
        let bit = 1 << (self.depth % 64);
        *word = if brace { *word | bit } else { *word & !bit };
        self.depth += 1;
        Ok(())
    }

    /// Whether the innermost bracket is a brace; `None` outside of all.
    fn last(&self) -> Option<bool> {
        let at = self.depth.checked_sub(1)?;
        Some(self.braces[at / 64] >> (at % 64) & 1 == 1)
    }
}

/// What may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    CommaOrEnd,
}

/// Appends a JSON text without the white space between its tokens; numbers, escapes, the order of members and repeated
/// members stay as they are. After an error `out` holds a part.
pub(super) fn compact(text: &str, out: &mut Vec<u8>) -> Scanned {
    let bytes = text.as_bytes();
    out.reserve(bytes.len());
    let mut open = Open { braces: [0; MAX_DEPTH / 64], depth: 0 };
    let mut next = Next::Value;
    let (mut at, mut copied) = (0, 0);
    loop {
        let token = at;
        at = white_space_end(bytes, at);
        if at > token {
            out.extend_from_slice(&bytes[copied..token]);
            copied = at;
        }
        let Some(byte) = bytes.get(at) else {
            out.extend_from_slice(&bytes[copied..]);
            return if next == Next::CommaOrEnd && open.depth == 0 { Ok(()) } else { Err(NotJson) };
        };
        (at, next) = match (next, byte) {
            (Next::Value | Next::ValueOrEnd, b'{') => {
                open.push(true)?;
                (at + 1, Next::KeyOrEnd)
            }
            (Next::Value | Next::ValueOrEnd, b'[') => {
                open.push(false)?;
                (at + 1, Next::ValueOrEnd)
            }
            (Next::KeyOrEnd, b'}') | (Next::ValueOrEnd, b']') => {
                open.depth -= 1;
                (at + 1, Next::CommaOrEnd)
            }
            (Next::CommaOrEnd, b'}' | b']') if open.last() == Some(*byte == b'}') => {
                open.depth -= 1;
                (at + 1, Next::CommaOrEnd)
            }
            (Next::CommaOrEnd, b',') => match open.last() {
                Some(true) => (at + 1, Next::Key),
                Some(false) => (at + 1, Next::Value),
                None => return Err(NotJson),
            },
            (Next::Key | Next::KeyOrEnd, b'"') => {
                let end = string_end(bytes, at)?;
                let colon = white_space_end(bytes, end);
                if bytes.get(colon) != Some(&b':') {
                    return Err(NotJson);
                }
                if colon > end {
                    out.extend_from_slice(&bytes[copied..end]);
                    copied = colon;
                }
                (colon + 1, Next::Value)
            }
            (Next::Value | Next::ValueOrEnd, _) => (scalar_end(bytes, at)?, Next::CommaOrEnd),
            _ => return Err(NotJson),
        };
    }
}

fn white_space_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = bytes.get(at) {
        at += 1;
    }
    at
}

fn scalar_end(bytes: &[u8], at: usize) -> Scanned<usize> {
    let word = |word: &[u8]| if bytes[at..].starts_with(word) { Ok(at + word.len()) } else { Err(NotJson) };
    match bytes[at] {
        b'"' => string_end(bytes, at),
        b't' => word(b"true"),
        b'f' => word(b"false"),
        b'n' => word(b"null"),
        _ => number_end(bytes, at),
    }
}

/// Where the string that begins at `at` ends, its quotes included.
fn string_end(bytes: &[u8], at: usize) -> Scanned<usize> {
    let mut at = at + 1;
    loop {
        let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
        at += bytes[at..].iter().position(special).ok_or(NotJson)?;
        match (bytes[at], bytes.get(at + 1)) {
            (b'"', _) => return Ok(at + 1),
            (b'\\', Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't')) => at += 2,
            (b'\\', Some(b'u')) => {
                let digits = bytes.get(at + 2..at + 6).ok_or(NotJson)?;
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err(NotJson);
                }
                at += 6;
            }
            _ => return Err(NotJson),
        }
    }
}

fn number_end(bytes: &[u8], mut at: usize) -> Scanned<usize> {
    let digits_end = |from: usize| {
        let length = bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if length == 0 { Err(NotJson) } else { Ok(from + length) }
    };
    if bytes[at] == b'-' {
        at += 1;
    }
    at = if bytes.get(at) == Some(&b'0') { at + 1 } else { digits_end(at)? };
    if bytes.get(at) == Some(&b'.') {
        at = digits_end(at + 1)?;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        let signed = matches!(bytes.get(at + 1), Some(b'+' | b'-'));
        at = digits_end(at + 1 + usize::from(signed))?;
    }
    Ok(at)
}
