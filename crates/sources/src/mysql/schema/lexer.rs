//! SQL text cut into tokens, as far as recognising a statement needs it.
//!
//! Source: MySQL Reference Manual, "Language Structure" (literals, object names, comments) and "SQL Modes"; MariaDB
//! documentation, "Comment Syntax".
//!
//! **Comments with code in them.** `/*!50100 … */` is code for servers from that version on. A server that skips such a
//! comment takes the `!` out of the text that it logs, so what still has one in the log was run, whatever the number.
//! `/*M! … */` is the same for MariaDB and a plain comment for MySQL.

/// How the session that sent a statement reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dialect {
    pub(super) mariadb: bool,
    /// `sql_mode` has `ANSI_QUOTES`: `"a"` is a name.
    pub(super) ansi_quotes: bool,
    /// `sql_mode` has `NO_BACKSLASH_ESCAPES`.
    pub(super) no_backslash_escapes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A keyword, or a name without quotes.
    Word(&'a [u8]),
    /// A name as it stands between its quotes.
    Name(&'a [u8], u8),
    /// A text literal as it stands between its quotes.
    Text(&'a [u8], u8),
    Number(&'a [u8]),
    /// Any other character.
    Sign(u8),
}

/// A token and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spanned<'a> {
    pub(super) token: Token<'a>,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// A quote or a comment is not closed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unclosed;

#[derive(Clone, Debug)]
pub(super) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    dialect: Dialect,
    /// Inside a comment with code in it.
    in_code_comment: bool,
    /// After a dot stands a name, even if it looks like a number.
    after_dot: bool,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a [u8], dialect: Dialect) -> Lexer<'a> {
        Lexer { text, at: 0, dialect, in_code_comment: false, after_dot: false }
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The next token; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Spanned<'a>>, Unclosed> {
        self.skip_blank()?;
        let start = self.at;
        let Some(&first) = self.text.get(start) else { return Ok(None) };
        let token = match first {
            b'`' => Token::Name(self.quoted(first, false)?, first),
            b'"' if self.dialect.ansi_quotes => Token::Name(self.quoted(first, false)?, first),
            b'"' | b'\'' => Token::Text(self.quoted(first, !self.dialect.no_backslash_escapes)?, first),
            _ if is_word(first) => self.word(),
            sign => {
                self.at += 1;
                Token::Sign(sign)
            }
        };
        self.after_dot = token == Token::Sign(b'.');
        Ok(Some(Spanned { token, start, end: self.at }))
    }

    fn skip_blank(&mut self) -> Result<(), Unclosed> {
        loop {
            match self.text.get(self.at..).unwrap_or_default() {
                [b' ' | b'\t'..=b'\r', ..] => self.at += 1,
                [b'#', ..] | [b'-', b'-', ..=b' ', ..] | [b'-', b'-'] => self.skip_line(),
                [b'/', b'*', b'!', ..] => self.open_code_comment(3),
                [b'/', b'*', b'M', b'!', ..] if self.dialect.mariadb => self.open_code_comment(4),
                [b'/', b'*', rest @ ..] => {
                    let end = rest.windows(2).position(|two| two == b"*/").ok_or(Unclosed)?;
                    self.at += end + 4;
                }
                [b'*', b'/', ..] if self.in_code_comment => {
                    self.in_code_comment = false;
                    self.at += 2;
                }
                [] if self.in_code_comment => return Err(Unclosed),
                _ => return Ok(()),
            }
        }
    }

    fn skip_line(&mut self) {
        let rest = self.text.get(self.at..).unwrap_or_default();
        self.at += rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
    }

    /// Goes behind `/*!` and a version of five or six digits.
    fn open_code_comment(&mut self, marker: usize) {
        self.in_code_comment = true;
        self.at += marker;
        let rest = self.text.get(self.at..).unwrap_or_default();
        self.at += rest.iter().take(6).take_while(|b| b.is_ascii_digit()).count();
    }

    /// What stands between quotes; a doubled quote is part of it.
    fn quoted(&mut self, quote: u8, escapes: bool) -> Result<&'a [u8], Unclosed> {
        let start = self.at + 1;
        let mut at = start;
        loop {
            match *self.text.get(at).ok_or(Unclosed)? {
                b'\\' if escapes => at += 2,
                byte if byte != quote => at += 1,
                _ if self.text.get(at + 1) == Some(&quote) => at += 2,
                _ => break,
            }
        }
        self.at = at + 1;
        Ok(&self.text[start..at])
    }

    fn word(&mut self) -> Token<'a> {
        let rest = &self.text[self.at..];
        let mut end = run(rest);
        if !self.after_dot && rest[0].is_ascii_digit() {
            let word = &rest[..end];
            let digits = |bytes: &[u8]| bytes.iter().take_while(|b| b.is_ascii_digit()).count();
            let whole = digits(word);
            if whole == end {
                if rest.get(end) == Some(&b'.') && rest.get(end + 1).is_some_and(u8::is_ascii_digit) {
                    end += 1 + run(&rest[end + 1..]);
                }
                self.at += end;
                return Token::Number(&rest[..end]);
            }
            let is_number = match word {
                [b'0', b'x', hex @ ..] => !hex.is_empty() && hex.iter().all(u8::is_ascii_hexdigit),
                [b'0', b'b', bits @ ..] => !bits.is_empty() && bits.iter().all(|b| matches!(b, b'0' | b'1')),
                _ => matches!(word[whole], b'e' | b'E') && whole + 1 + digits(&word[whole + 1..]) == end,
            };
            if is_number {
                self.at += end;
                return Token::Number(word);
            }
        }
        self.at += end;
        Token::Word(&rest[..end])
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..)
}

fn run(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|b| is_word(**b)).count()
}

/// A name without its quotes; `None` when it is not UTF-8 or is empty.
pub(super) fn name(token: Token<'_>) -> Option<String> {
    let bytes = match token {
        Token::Word(word) => word.to_vec(),
        Token::Name(raw, quote) => undouble(raw, quote),
        _ => return None,
    };
    String::from_utf8(bytes).ok().filter(|name| !name.is_empty())
}

fn undouble(raw: &[u8], quote: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter();
    while let Some(byte) = bytes.next() {
        out.push(*byte);
        if *byte == quote {
            bytes.next();
        }
    }
    out
}

/// The value of a text literal.
pub(super) fn text(raw: &[u8], quote: u8, dialect: Dialect) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter();
    while let Some(&byte) = bytes.next() {
        if byte == b'\\' && !dialect.no_backslash_escapes {
            match bytes.next() {
                Some(b'0') => out.push(0),
                Some(b'b') => out.push(8),
                Some(b'n') => out.push(b'\n'),
                Some(b'r') => out.push(b'\r'),
                Some(b't') => out.push(b'\t'),
                Some(b'Z') => out.push(0x1a),
                // For LIKE patterns the backslash stays.
                Some(like @ (b'%' | b'_')) => out.extend([b'\\', *like]),
                Some(other) => out.push(*other),
                None => {}
            }
            continue;
        }
        out.push(byte);
        if byte == quote {
            bytes.next();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "in a test, a panic with a clear message is how a failure is reported"
    )]
    use super::*;

    fn all(sql: &str, dialect: Dialect) -> Result<Vec<String>, Unclosed> {
        let mut lexer = Lexer::new(sql.as_bytes(), dialect);
        let mut out = Vec::new();
        while let Some(spanned) = lexer.next()? {
            let own = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            out.push(match spanned.token {
                Token::Word(word) => own(word),
                token @ Token::Name(..) => format!("name {}", name(token).unwrap()),
                Token::Text(raw, quote) => format!("text {}", own(&text(raw, quote, dialect))),
                Token::Number(number) => format!("number {}", own(number)),
                Token::Sign(sign) => own(&[sign]),
            });
        }
        Ok(out)
    }

    fn mysql(sql: &str) -> Vec<String> {
        all(sql, Dialect::default()).unwrap()
    }

    #[test]
    fn comments_are_seen_through() {
        assert_eq!(mysql("a/* x 'y */b -- z\nc #d\ne--f"), ["a", "b", "c", "e", "-", "-", "f"]);
        assert_eq!(mysql("--\ta\n--"), [""; 0]);
        assert_eq!(mysql("DROP /*!40005 TEMPORARY */ TABLE"), ["DROP", "TEMPORARY", "TABLE"]);
        assert_eq!(mysql("/*!800001 a /* b */ c*/ * / d"), ["a", "c", "*", "/", "d"]);
        assert_eq!(mysql("a /*M!100100 b */ c"), ["a", "c"]);
        let mariadb = Dialect { mariadb: true, ..Dialect::default() };
        assert_eq!(all("a /*M!100100 b */ c", mariadb).unwrap(), ["a", "b", "c"]);
        assert_eq!(mysql("a /*+ b */ c /**/"), ["a", "c"]);
    }

    #[test]
    fn quotes_follow_the_sql_mode() {
        assert_eq!(mysql("`a``b` \"c\"\"d\" 'e''f\\'g\\n\\%'"), ["name a`b", "text c\"d", "text e'f'g\n\\%"]);
        let ansi = Dialect { ansi_quotes: true, no_backslash_escapes: true, ..Dialect::default() };
        assert_eq!(all("\"c\"\"d\" 'e\\' `x`", ansi).unwrap(), ["name c\"d", "text e\\", "name x"]);
    }

    #[test]
    fn names_may_look_like_numbers() {
        let tokens = mysql("1a 12 1.5 1.5e3 1e5 0x1F 0xZ 5.a.1 t.12 t.`1` ünï $x");
        let expected = [
            "1a",
            "number 12",
            "number 1.5",
            "number 1.5e3",
            "number 1e5",
            "number 0x1F",
            "0xZ",
            "number 5",
            ".",
            "a",
            ".",
            "1",
            "t",
            ".",
            "12",
            "t",
            ".",
            "name 1",
            "ünï",
            "$x",
        ];
        assert_eq!(tokens, expected);
    }

    #[test]
    fn what_is_not_closed_is_an_error() {
        for sql in ["'a", "'a\\'", "`a", "/* a", "/*! a", "\"a", "'a''"] {
            assert_eq!(all(sql, Dialect::default()), Err(Unclosed), "{sql}");
        }
    }
}
