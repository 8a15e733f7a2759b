//! Where secrets stand inside a text: passwords in URLs and `key=value` words, values of secret names.
//!
//! In doubt a range is too long rather than too short: a masked port is a nuisance, a shown password is a leak.

use std::borrow::Cow;
use std::ops::Range;

/// What stands for a secret wherever something is shown.
pub const MASK: &str = "***";

/// Whether the value of a key, header or query parameter of this name is a secret.
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('_', "-");
    // The seed of a user's key; `nkey-file` names a file.
    let is_seed = name == "nkey" || name.ends_with("-nkey") || name.ends_with(".nkey");
    is_seed
        || ["password", "passwd", "pwd", "token", "secret", "auth", "api-key", "apikey"]
            .iter()
            .any(|word| name.contains(word))
}

/// The text with every secret in it masked.
pub fn mask(text: &str) -> Cow<'_, str> {
    let ranges = secret_ranges(text);
    if ranges.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    let mut from = 0;
    for range in ranges {
        shown.push_str(&text[from..range.start]);
        shown.push_str(MASK);
        from = range.end;
    }
    shown.push_str(&text[from..]);
    Cow::Owned(shown)
}

/// Byte ranges of the secrets in a text, in order, apart from each other and never empty.
pub fn secret_ranges(text: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    found.extend(text.match_indices("://").filter_map(|(at, _)| url_password(text, at)));
    found.extend(text.match_indices('=').filter_map(|(at, _)| assigned_secret(text, at)));
    found.retain(|range| !range.is_empty());
    found.sort_by_key(|range| range.start);
    let mut apart: Vec<Range<usize>> = Vec::new();
    for range in found {
        match apart.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => apart.push(range),
        }
    }
    apart
}

/// The password of the URL whose `://` stands at `at`.
fn url_password(text: &str, at: usize) -> Option<Range<usize>> {
    let start = at + 3;
    let end = url_end(text, at);
    let url = &text[start..end];
    let path_end = url.find('?').unwrap_or(url.len());
    // As the parser of URLs does: the last `@` ends the user information, since a password may hold one, and `/`, too.
    let user_end = url[..path_end].rfind('@').or_else(|| url.rfind('@'))?;
    let of_nats = is_of_nats(text, at);
    let Some(colon) = url[..user_end].find(':') else {
        // A user alone is a token there.
        return of_nats.then_some(start..start + user_end);
    };
    let after = &url[colon + 1..user_end];
    let port = after.find(['/', '?', ',']).map(|end| &after[..end]);
    // Those have no paths, which may hold an `@`.
    if !of_nats && port.is_some_and(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())) {
        return None;
    }
    Some(start + colon + 1..start + user_end)
}

/// Whether the URL whose `://` stands at `at` is that of a NATS server.
fn is_of_nats(text: &str, at: usize) -> bool {
    let scheme = text[..at].rfind(|c: char| !c.is_ascii_alphanumeric()).map_or(0, |i| i + 1);
    let scheme = (scheme..=at).find(|i| text.is_char_boundary(*i)).unwrap_or(at);
    ["nats", "tls"].iter().any(|known| text[scheme..at].eq_ignore_ascii_case(known))
}

/// Where the URL ends whose `://` stands at `at`: at the next URL, at the quote that closes the one before it, or at white
/// space unless the text is nothing but the URL.
fn url_end(text: &str, at: usize) -> usize {
    let rest = &text[at + 3..];
    let mut end = text.len();
    let scheme = text[..at].rfind(|c: char| !is_word(c) && c != '+').map_or(0, |i| i + 1);
    let scheme = (scheme..=at).find(|i| text.is_char_boundary(*i)).unwrap_or(at);
    match text[..scheme].chars().next_back() {
        Some(quote @ ('`' | '"' | '\'')) => end = rest.find(quote).map_or(end, |i| at + 3 + i),
        Some(_) => end = rest.find(char::is_whitespace).map_or(end, |i| at + 3 + i),
        None => {}
    }
    if let Some(next) = text[at + 3..end].find("://").map(|i| at + 3 + i) {
        let comma = text[at + 3..next].rfind([',', ' ']).map(|i| at + 3 + i);
        end = comma.unwrap_or(end);
    }
    end
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

/// The value of `name=value` with its `=` at `at`, when the name is a secret one: in a query up to `&`, elsewhere up to white
/// space, with the quotes and escapes of `key=value` connection strings.
fn assigned_secret(text: &str, at: usize) -> Option<Range<usize>> {
    let before = text[..at].trim_end();
    let start = before
        .rfind(|c: char| !is_word(c))
        .map_or(0, |i| i + before[i..].chars().next().map_or(1, char::len_utf8));
    if !is_secret_name(&before[start..]) {
        return None;
    }
    let in_query = before[..start].ends_with(['?', '&']);
    let value = at + 1 + (text[at + 1..].len() - text[at + 1..].trim_start().len());
    let quoted = text[value..].starts_with('\'');
    let mut chars = text[value..].char_indices().skip(usize::from(quoted));
    while let Some((i, c)) = chars.next() {
        let ends = match c {
            '\\' => {
                chars.next();
                false
            }
            '\'' if quoted => return Some(value..value + i + 1),
            '&' | '#' => in_query,
            '`' => !quoted,
            _ => !quoted && c.is_whitespace(),
        };
        if ends {
            return Some(value..value + i);
        }
    }
    Some(value..text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_masked_wherever_they_stand() {
        let cases = [
            ("postgres://u:pw@h:5432/db", "postgres://u:***@h:5432/db"),
            ("postgres://u:p@w/x@h/db?a=b", "postgres://u:***@h/db?a=b"),
            ("postgres://u:p?w@h/db", "postgres://u:***@h/db"),
            ("postgres://u:p w@h/db", "postgres://u:***@h/db"),
            ("postgres://u@h/db", "postgres://u@h/db"),
            ("postgres://u:@h/db", "postgres://u:@h/db"),
            ("redis://:pw@h", "redis://:***@h"),
            ("http://host:8080/a@b", "http://host:8080/a@b"),
            ("https://host/a?mail=a@b", "https://host/a?mail=a@b"),
            ("nats://a:b@x,nats://c:d@y", "nats://a:***@x,nats://c:***@y"),
            ("nats://tok/en@h:4222", "nats://***@h:4222"),
            ("tls://a@x,NATS://b@y,nats://z", "tls://***@x,NATS://***@y,nats://z"),
            ("cannot reach `nats://t@h`", "cannot reach `nats://***@h`"),
            ("nats://@h", "nats://@h"),
            ("nats://h:4222,t@g", "nats://h:***@g"),
            ("http://h/?auth_token=x&y=1", "http://h/?auth_token=***&y=1"),
            ("host=h password=pw dbname=d", "host=h password=*** dbname=d"),
            ("host=h password = 'p \\' w' dbname=d", "host=h password = *** dbname=d"),
            ("password=a,b;c host=h", "password=*** host=h"),
            ("cannot read `postgres://u:p w@h`, try again", "cannot read `postgres://u:***@h`, try again"),
            ("see postgres://u:pw@h and mail a@b", "see postgres://u:***@h and mail a@b"),
            ("ünïcode=1 påssword", "ünïcode=1 påssword"),
            ("", ""),
        ];
        for (text, shown) in cases {
            assert_eq!(mask(text), shown, "{text}");
        }
    }

    #[test]
    fn names_of_secrets() {
        for name in [
            "password",
            "X-Api-Key",
            "api_key",
            "AUTH_TOKEN",
            "Authorization",
            "client.secret",
            "sslpassword",
            "nkey",
            "NKEY",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["user", "stream", "key", "nkey_file", "monkey", "slot", "keepalive"] {
            assert!(!is_secret_name(name), "{name}");
        }
    }
}
