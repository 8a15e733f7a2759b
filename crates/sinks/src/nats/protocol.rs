//! What a server sends: `INFO`, `PING`, `PONG`, `-ERR`, and messages with or without headers.

use std::ops::Range;

/// One operation of the server; ranges point into the bytes that were parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Info(Range<usize>),
    Ping,
    Pong,
    Ok,
    /// The text between the quotes.
    Err(Range<usize>),
    Message {
        subject: Range<usize>,
        head: Range<usize>,
        payload: Range<usize>,
    },
}

/// The peer does not speak the protocol.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// The longest line; `INFO` of a large cluster is the longest there is.
const LONGEST_LINE: usize = 1024 * 1024;
/// Larger than any `max_payload`, which is at most 64 MiB.
const LONGEST_MESSAGE: usize = 128 * 1024 * 1024;

/// The operation at the beginning of `bytes` and how many bytes it takes; `None` while it is not whole.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Op, usize)>, Malformed> {
    let Some(end) = memchr::memchr(b'\n', bytes) else {
        return if bytes.len() > LONGEST_LINE { Err(Malformed("a line without an end")) } else { Ok(None) };
    };
    let line_end = if end > 0 && bytes[end - 1] == b'\r' { end - 1 } else { end };
    let line = &bytes[..line_end];
    let word_end = line.iter().position(|b| matches!(b, b' ' | b'\t')).unwrap_or(line.len());
    let rest = word_end.saturating_add(1).min(line_end)..line_end;
    let op = match &line[..word_end] {
        word if word.eq_ignore_ascii_case(b"MSG") => return message(bytes, rest, end + 1, false),
        word if word.eq_ignore_ascii_case(b"HMSG") => return message(bytes, rest, end + 1, true),
        word if word.eq_ignore_ascii_case(b"PING") => Op::Ping,
        word if word.eq_ignore_ascii_case(b"PONG") => Op::Pong,
        b"+OK" => Op::Ok,
        b"-ERR" => Op::Err(rest),
        word if word.eq_ignore_ascii_case(b"INFO") => Op::Info(rest),
        _ => return Err(Malformed("an unknown operation")),
    };
    Ok(Some((op, end + 1)))
}

/// `MSG subject sid [reply] size`, `HMSG subject sid [reply] head size`.
fn message(
    bytes: &[u8],
    line: Range<usize>,
    begin: usize,
    headed: bool,
) -> Result<Option<(Op, usize)>, Malformed> {
    let mut words = [(0, 0); 5];
    let mut count = 0;
    let mut at = line.start;
    while at < line.end {
        let rest = &bytes[at..line.end];
        let word = rest.iter().position(|b| *b == b' ').unwrap_or(rest.len());
        if word > 0 {
            let slot = words.get_mut(count).ok_or(Malformed("a message with too many words"))?;
            *slot = (at, at + word);
            count += 1;
        }
        at += word + 1;
    }
    let least = if headed { 4 } else { 3 };
    if count < least {
        return Err(Malformed("a message with too few words"));
    }
    let number = |at: usize| -> Result<usize, Malformed> {
        let digits = &bytes[words[at].0..words[at].1];
        let number = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok());
        number.filter(|n| *n <= LONGEST_MESSAGE).ok_or(Malformed("a message of no length"))
    };
    let size = number(count - 1)?;
    let head = if headed { number(count - 2)? } else { 0 };
    if head > size {
        return Err(Malformed("headers longer than their message"));
    }
    let end = begin + size;
    let Some(tail) = bytes.get(end..end + 2) else { return Ok(None) };
    if tail != b"\r\n" {
        return Err(Malformed("a message without an end"));
    }
    let op = Op::Message {
        subject: words[0].0..words[0].1,
        head: begin..begin + head,
        payload: begin + head..end,
    };
    Ok(Some((op, end + 2)))
}

/// The status of a message without a payload: `NATS/1.0 503`.
pub(super) fn status(head: &[u8]) -> Option<u16> {
    let line = head.strip_prefix(b"NATS/1.0 ")?;
    std::str::from_utf8(line.get(..3)?).ok()?.parse().ok()
}

/// The value of a header; names are compared as they are written.
pub(super) fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let text = std::str::from_utf8(head).ok()?;
    text.split("\r\n").skip(1).find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_whole_and_in_parts() {
        let text = b"INFO {\"a\":1} \r\nPING\r\nPONG\r\n+OK\r\n-ERR 'Authorization Violation'\r\nMSG in.7 1 2\r\nhi\r\nMSG a 1 r 0\r\n\r\n\
            HMSG in.8 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n";
        let ops = |bytes: &[u8]| {
            let mut at = 0;
            let mut found = Vec::new();
            while let Some((op, used)) = parse(&bytes[at..]).unwrap() {
                let text =
                    |r: &Range<usize>| String::from_utf8_lossy(&bytes[at + r.start..at + r.end]).into_owned();
                found.push(match &op {
                    Op::Message { subject, head, payload } => {
                        format!(
                            "{} {:?} {}",
                            text(subject),
                            status(&bytes[at + head.start..at + head.end]),
                            text(payload)
                        )
                    }
                    Op::Err(r) | Op::Info(r) => text(r),
                    other => format!("{other:?}"),
                });
                at += used;
            }
            found
        };
        let all = ops(text);
        assert_eq!(
            all,
            [
                "{\"a\":1} ",
                "Ping",
                "Pong",
                "Ok",
                "'Authorization Violation'",
                "in.7 None hi",
                "a None ",
                "in.8 Some(503) "
            ]
        );
        for cut in 0..text.len() {
            let part = ops(&text[..cut]);
            assert_eq!(part, all[..part.len()], "cut at {cut}");
        }
    }

    #[test]
    fn what_is_not_the_protocol() {
        for bad in [
            "HTTP/1.1 400\r\n",
            "MSG a 1\r\n",
            "MSG a 1 x\r\n",
            "MSG a 1 99999999999\r\n",
            "HMSG a 1 9 2\r\n",
            "MSG a 1 1\r\nabcd\r\n",
            "\r\n",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn headers() {
        let head = b"NATS/1.0\r\nNats-Msg-Id: x\r\ndf-position:  {\"a\": 1}\r\n\r\n";
        assert_eq!(header(head, "Nats-Msg-Id"), Some("x"));
        assert_eq!(header(head, "df-position"), Some("{\"a\": 1}"));
        assert_eq!(header(head, "df"), None);
    }
}
