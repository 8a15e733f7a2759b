//! The protocol of Redis, RESP2 (<https://redis.io/docs/latest/develop/reference/protocol-spec/>): writing commands and
//! taking replies apart. Pure: no I/O, and no allocation per reply.

/// A command in one line: `command(out, &[b"SELECT", b"2"])`.
pub(super) fn command(out: &mut Vec<u8>, words: &[&[u8]]) {
    array(out, words.len());
    for word in words {
        bulk(out, word);
    }
}

/// The head of a command of `count` words.
pub(super) fn array(out: &mut Vec<u8>, count: usize) {
    number(out, b'*', count);
}

/// One word of a command.
pub(super) fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn number(out: &mut Vec<u8>, mark: u8, n: usize) {
    out.push(mark);
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// One word of a command that `write` appends in place and whose length is known only then.
///
/// The length stands before the content and Redis takes no leading zeros, so room is left for as many digits as the last
/// word of this kind had; where that was wrong, the content moves by the difference. Gives the content's length.
pub(super) fn bulk_with(out: &mut Vec<u8>, digits: &mut usize, write: impl FnOnce(&mut Vec<u8>)) -> usize {
    let head = out.len() + 1;
    let guessed = head + *digits + 2;
    out.push(b'$');
    out.resize(guessed, 0);
    write(out);
    let len = out.len() - guessed;
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(len).as_bytes();
    let begin = head + text.len() + 2;
    if begin != guessed {
        let end = out.len();
        out.resize(end.max(begin + len), 0);
        out.copy_within(guessed..end, begin);
        out.truncate(begin + len);
        *digits = text.len();
    }
    out[head..begin - 2].copy_from_slice(text);
    out[begin - 2..begin].copy_from_slice(b"\r\n");
    out.extend_from_slice(b"\r\n");
    len
}

/// A reply, or the head of one that holds others.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// `+OK`
    Simple(&'a [u8]),
    /// `-ERR …`
    Error(&'a [u8]),
    /// `:1`
    Int(i64),
    /// `$3…`
    Bulk(&'a [u8]),
    /// `$-1`, `*-1`
    Null,
    /// `*2`: that many replies follow.
    Array(usize),
}

/// What the peer sent is not RESP2, or longer than anything we ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// Longest line: errors and numbers.
const LONGEST_LINE: usize = 64 * 1024;
/// Longest bulk reply: the answer to INFO is some kilobytes. Checked before room is made for it.
const LONGEST_BULK: i64 = 4 * 1024 * 1024;
/// Most replies inside one: `CLUSTER SLOTS` of a large cluster. (The ids of a transaction are counted by who asked.)
const LONGEST_ARRAY: i64 = 16 * 1024 * 1024;

/// The first token of `bytes` and how many bytes it takes; `None` when it has not arrived whole.
pub(super) fn token(bytes: &[u8]) -> Result<Option<(Token<'_>, usize)>, Malformed> {
    let Some((&mark, rest)) = bytes.split_first() else { return Ok(None) };
    let Some(end) = memchr::memchr(b'\n', &rest[..rest.len().min(LONGEST_LINE)]) else {
        return if rest.len() >= LONGEST_LINE { Err(Malformed("a line without an end")) } else { Ok(None) };
    };
    let Some(line) = rest[..end].strip_suffix(b"\r") else {
        return Err(Malformed("a line that ends in LF alone"));
    };
    let taken = 1 + end + 1;
    let token = match mark {
        b'+' => Token::Simple(line),
        b'-' => Token::Error(line),
        b':' => Token::Int(integer(line)?),
        b'$' => match integer(line)? {
            -1 => Token::Null,
            len if (0..=LONGEST_BULK).contains(&len) => {
                let len = len as usize;
                let Some(body) = bytes.get(taken..taken + len + 2) else { return Ok(None) };
                let Some(content) = body.strip_suffix(b"\r\n") else {
                    return Err(Malformed("a bulk without its end"));
                };
                return Ok(Some((Token::Bulk(content), taken + len + 2)));
            }
            _ => return Err(Malformed("a bulk of an impossible length")),
        },
        b'*' => match integer(line)? {
            -1 => Token::Null,
            len if (0..=LONGEST_ARRAY).contains(&len) => Token::Array(len as usize),
            _ => return Err(Malformed("an array of an impossible length")),
        },
        _ => return Err(Malformed("a reply of an unknown kind: the peer may not be a Redis")),
    };
    Ok(Some((token, taken)))
}

fn integer(line: &[u8]) -> Result<i64, Malformed> {
    std::str::from_utf8(line)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(Malformed("a number that is none"))
}

/// A whole reply to one of the few commands that are not on the road of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// Simple or bulk.
    Text(Vec<u8>),
    /// An error, as the server wrote it.
    Error(Vec<u8>),
    /// A number.
    Int(i64),
    /// Nothing.
    Null,
    /// Several.
    Array(Vec<Value>),
}

impl Value {
    /// The text of a text.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Value::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The members of an array.
    pub(super) fn items(&self) -> &[Value] {
        match self {
            Value::Array(items) => items,
            _ => &[],
        }
    }
}

/// The first whole reply of `bytes`, nested at most `depth` deep, and how many bytes it takes.
pub(super) fn value(bytes: &[u8], depth: usize) -> Result<Option<(Value, usize)>, Malformed> {
    let Some((first, mut taken)) = token(bytes)? else { return Ok(None) };
    let value = match first {
        Token::Simple(text) | Token::Bulk(text) => Value::Text(text.to_vec()),
        Token::Error(text) => Value::Error(text.to_vec()),
        Token::Int(n) => Value::Int(n),
        Token::Null => Value::Null,
        Token::Array(count) => {
            if depth == 0 {
                return Err(Malformed("replies nested too deep"));
            }
            // Grows with what arrives, not with what is announced.
            let mut items = Vec::new();
            for _ in 0..count {
                let Some((item, more)) = value(&bytes[taken..], depth - 1)? else { return Ok(None) };
                items.push(item);
                taken += more;
            }
            Value::Array(items)
        }
    };
    Ok(Some((value, taken)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        let mut out = Vec::new();
        command(&mut out, &[b"SELECT", b"12"]);
        assert_eq!(out, b"*2\r\n$6\r\nSELECT\r\n$2\r\n12\r\n");
    }

    #[test]
    fn a_word_written_in_place_moves_when_its_length_has_other_digits_than_the_last() {
        let mut digits = 3;
        for len in [0, 9, 10, 99, 100, 5, 12_345, 999, 1] {
            let content: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let mut out = b"before".to_vec();
            assert_eq!(bulk_with(&mut out, &mut digits, |out| out.extend_from_slice(&content)), len);
            let mut expected = b"before".to_vec();
            bulk(&mut expected, &content);
            assert_eq!(out, expected, "{len}");
            assert_eq!(digits, len.to_string().len());
        }
    }

    #[test]
    fn tokens_whole_and_in_pieces() {
        let cases: [(&[u8], Token<'_>); 8] = [
            (b"+OK\r\n", Token::Simple(b"OK")),
            (b"-ERR no\r\n", Token::Error(b"ERR no")),
            (b":-5\r\n", Token::Int(-5)),
            (b"$0\r\n\r\n", Token::Bulk(b"")),
            (b"$4\r\na\r\nb\r\n", Token::Bulk(b"a\r\nb")),
            (b"$-1\r\n", Token::Null),
            (b"*-1\r\n", Token::Null),
            (b"*3\r\n", Token::Array(3)),
        ];
        for (bytes, expected) in cases {
            for cut in 0..bytes.len() {
                assert_eq!(token(&bytes[..cut]), Ok(None), "{:?}", &bytes[..cut]);
            }
            assert_eq!(token(bytes), Ok(Some((expected, bytes.len()))));
        }
    }

    #[test]
    fn what_is_not_the_protocol_is_refused_before_room_is_made() {
        let long = [b"+".as_slice(), &vec![b'x'; LONGEST_LINE]].concat();
        let cases: [&[u8]; 8] = [
            b"HTTP/1.1 400\r\n",
            b"+OK\n",
            b":x\r\n",
            b"$99999999999\r\n",
            b"$-2\r\n",
            b"*999999999\r\n",
            b"$1\r\nabc",
            &long,
        ];
        for bytes in cases {
            assert!(token(bytes).is_err(), "{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(20)]));
        }
        let deep: Vec<u8> = b"*1\r\n".repeat(50);
        assert!(value(&deep, 8).is_err());
    }

    #[test]
    fn nested_values() {
        let bytes = b"*2\r\n*1\r\n$1\r\na\r\n:7\r\n+next\r\n";
        let expected = Value::Array(vec![Value::Array(vec![Value::Text(b"a".to_vec())]), Value::Int(7)]);
        assert_eq!(value(bytes, 4), Ok(Some((expected, bytes.len() - 7))));
        assert_eq!(value(&bytes[..15], 4), Ok(None));
    }
}
