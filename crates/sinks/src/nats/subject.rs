//! Subjects: tokens separated by dots.
//!
//! What a template takes from an event is *one* token or a part of one: a table called `a.b` must not become two tokens, `*` and
//! `>` would be wildcards, and a blank would end the subject. So in filled-in parts these characters, and `%`, are
//! percent-encoded: `a%2Eb`; so is a `$` with which a filled-in part begins the subject, as such subjects are the server's own:
//! no row may write to `$KV` or ask `$JS.API`. Whoever decodes the token has the name back, and two names never meet in one subject.

use deltaforge_core::fault::Kind;
use deltaforge_core::{Class, EventId, Fault};

const UPPER: &[u8; 16] = b"0123456789ABCDEF";

fn is_special(byte: u8) -> bool {
    byte <= b' ' || byte == 0x7f || matches!(byte, b'.' | b'*' | b'>' | b'%')
}

/// Longest subject: a server takes lines of 4,096 bytes, with the operation, the place for replies and two numbers in them.
const LONGEST: usize = 3_900;

/// Escapes what stands from `from` on in the subject that begins at `start`; to be given to
/// [`Template::render_clean`](deltaforge_encode::template::Template::render_clean).
pub(super) fn escape(out: &mut Vec<u8>, start: usize, from: usize) {
    escape_special(out, from);
    if start == from && out.get(start) == Some(&b'$') {
        out.splice(start..=start, *b"%24");
    }
}

fn escape_special(out: &mut Vec<u8>, from: usize) {
    let mut special = out.get(from..).unwrap_or_default().iter().filter(|byte| is_special(**byte)).count();
    if special == 0 {
        return;
    }
    let mut end = out.len();
    out.resize(end + 2 * special, 0);
    let mut to = out.len();
    // From the back, so that nothing is overwritten before it is moved.
    while special > 0 {
        end -= 1;
        let byte = out[end];
        if is_special(byte) {
            to -= 3;
            out[to..to + 3].copy_from_slice(&[
                b'%',
                UPPER[usize::from(byte >> 4)],
                UPPER[usize::from(byte & 15)],
            ]);
            special -= 1;
        } else {
            to -= 1;
            out[to] = byte;
        }
    }
}

/// Refuses what is no subject to publish to: it can come from literal text beside an empty value, or from a fallback.
///
/// # Errors
/// `Data`; the message does not hold the subject, which may hold a row's values.
pub(super) fn check(subject: &[u8], event: EventId) -> Result<(), Fault> {
    let empty = subject.split(|byte| *byte == b'.').any(<[u8]>::is_empty);
    let bad = subject.iter().any(|byte| *byte <= b' ' || *byte == 0x7f)
        || subject.split(|byte| *byte == b'.').any(|token| matches!(token, b"*" | b">"));
    let what = if empty {
        "a token of its subject is empty"
    } else if bad {
        "its subject holds a blank or a wildcard"
    } else if subject.starts_with(b"$") {
        "its subject begins with `$`, as only the server's own do"
    } else if subject.len() > LONGEST {
        let what = format!(
            "the event cannot be routed: its subject takes {} bytes, at most {LONGEST} can be sent",
            subject.len()
        );
        return Err(Fault::new(Class::Data, "nats.subject", what)
            .kind(Kind::Route)
            .event(event)
            .hint("use shorter columns in `subject`"));
    } else {
        return Ok(());
    };
    Err(Fault::new(Class::Data, "nats.subject", format!("the event cannot be routed: {what}"))
        .kind(Kind::Route)
        .event(event)
        .hint("give each part of the subject a fallback: `${after.region:-none}`"))
}

/// What every subject of a template matches: each token with a reference in it is `*`.
///
/// # Errors
/// What is wrong with the text between the references.
pub(super) fn filter(template: &str) -> Result<String, String> {
    let mut tokens = vec![String::new()];
    let mut rest = template;
    while let Some(c) = rest.chars().next() {
        let token = tokens.last_mut().ok_or("empty")?;
        if let Some(after) = rest.strip_prefix("$${") {
            token.push_str("${");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("${") {
            token.push('*');
            rest = after.split_once('}').map_or("", |(_, rest)| rest);
        } else {
            rest = &rest[c.len_utf8()..];
            match c {
                '.' => tokens.push(String::new()),
                '*' | '>' => return Err(format!("`{c}` is a wildcard: nothing can be published to it")),
                c if c.is_whitespace() || c.is_control() => {
                    return Err("a subject holds no blanks".into());
                }
                c => token.push(c),
            }
        }
    }
    if tokens.iter().any(String::is_empty) {
        return Err("a subject has no empty tokens".into());
    }
    if tokens.first().is_some_and(|first| first.starts_with('$')) {
        return Err("subjects that begin with `$` are the server's own".into());
    }
    let tokens: Vec<&str> =
        tokens.iter().map(|token| if token.contains('*') { "*" } else { token }).collect();
    Ok(tokens.join("."))
}

/// Refuses what is no subject of a stream.
///
/// # Errors
/// What is wrong.
pub(super) fn check_pattern(subject: &str) -> Result<(), &'static str> {
    if subject.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("a subject holds no blanks");
    }
    let mut tokens = subject.split('.').peekable();
    while let Some(token) = tokens.next() {
        match token {
            "" => return Err("a subject has no empty tokens"),
            ">" if tokens.peek().is_some() => return Err("`>` is the last token or none"),
            _ => {}
        }
    }
    Ok(())
}

/// Whether a subject of a stream takes some, or, for `all`, every subject that matches `filter`.
pub(super) fn takes(stream: &str, filter: &str, all: bool) -> bool {
    let (mut stream, mut filter) = (stream.split('.'), filter.split('.'));
    loop {
        match (stream.next(), filter.next()) {
            (Some(">"), Some(_)) => return true,
            (Some(s), Some(f)) if s == "*" || s == f => {}
            (Some(_), Some("*")) if !all => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_one_token_each_and_come_back() {
        let cases = [
            ("orders", "orders"),
            ("a b", "a%20b"),
            ("x.*", "x%2E%2A"),
            ("y>", "y%3E"),
            ("%41", "%2541"),
            ("é", "é"),
        ];
        for (name, token) in cases {
            let mut out = b"shop.".to_vec();
            out.extend_from_slice(name.as_bytes());
            escape(&mut out, 0, 5);
            assert_eq!(String::from_utf8(out).unwrap(), format!("shop.{token}"));
            assert_eq!(deltaforge_net::url::decode(token).unwrap(), name);
        }
    }

    #[test]
    fn no_row_makes_a_subject_of_the_server() {
        let escaped = |before: &str, value: &str| {
            let mut out = format!("earlier{before}{value}").into_bytes();
            escape(&mut out, 7, 7 + before.len());
            String::from_utf8(out.split_off(7)).unwrap()
        };
        assert_eq!(escaped("", "$KV"), "%24KV");
        assert_eq!(escaped("", "$JS.API.>"), "%24JS%2EAPI%2E%3E");
        assert_eq!(
            (escaped("", "a$"), escaped("a.", "$b"), escaped("", "")),
            ("a$".into(), "a.$b".into(), String::new())
        );
        let refused = |subject: &[u8]| check(subject, EventId::default()).map_err(|fault| fault.code());
        assert_eq!(refused(b"$KV.a"), Err("nats.subject"), "from a fallback");
        assert_eq!((refused(&[b'a'; LONGEST]), refused(&[b'a'; LONGEST + 1])), (Ok(()), Err("nats.subject")));
    }

    #[test]
    fn filters() {
        let good =
            [("a.b", "a.b"), ("a.${source.table}.x", "a.*.x"), ("a-${x.y:-.}-b.c", "*.c"), ("$${x}.a", "")];
        for (template, expected) in good {
            assert_eq!(filter(template).unwrap_or_default(), expected, "{template}");
        }
        for template in ["", "a..b", ".a", "a.", "a b", "a.*", "a.>", "$JS.API", "a\tb"] {
            assert!(filter(template).is_err(), "{template}");
        }
    }

    #[test]
    fn what_a_stream_takes() {
        assert!(takes("a.>", "a.*", true) && takes("a.*.c", "a.b.c", true) && takes(">", "a", true));
        assert!(!takes("a.b", "a.*", true) && takes("a.b", "a.*", false));
        assert!(!takes("a.>", "a", false) && !takes("a", "a.b", false) && !takes("b.*", "a.*", false));
    }

    #[test]
    fn subjects_of_streams() {
        for good in ["a", "a.*.b", "a.>", ">", "$KV.x.>"] {
            assert_eq!(check_pattern(good), Ok(()), "{good}");
        }
        for bad in ["", "a.", ".a", "a..b", "a b", "a.>.b"] {
            assert!(check_pattern(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn subjects_that_cannot_be() {
        let id = EventId::default();
        assert!(check(b"a.b%20c", id).is_ok());
        for bad in [b"a..b".as_slice(), b"", b"a.", b"a b", b"a.*", b">"] {
            assert_eq!(check(bad, id).unwrap_err().code(), "nats.subject");
        }
    }
}
