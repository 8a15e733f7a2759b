//! Tokens one by one, with one looked at ahead: what the recognisers of statements read from.

use super::lexer::{self, Dialect, Lexer, Spanned, Token};

/// A table's name as a statement gives it, its database filled in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TableRef {
    pub(crate) db: String,
    pub(crate) table: String,
}

/// Reads a statement from the front. Every method that gives an `Option` answers `None` for text that does not read on as
/// expected, a literal that is not closed included.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    lexer: Lexer<'a>,
    ahead: Option<Spanned<'a>>,
    broken: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a [u8], dialect: Dialect) -> Reader<'a> {
        let mut reader = Reader { lexer: Lexer::new(text, dialect), ahead: None, broken: false };
        reader.advance();
        reader
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.lexer.dialect()
    }

    fn advance(&mut self) {
        self.ahead = match self.lexer.next() {
            Ok(ahead) => ahead,
            Err(lexer::Unclosed) => {
                self.broken = true;
                None
            }
        };
    }

    pub(super) fn peek(&self) -> Option<Token<'a>> {
        self.ahead.map(|spanned| spanned.token)
    }

    /// Takes the next token with its place.
    pub(super) fn spanned(&mut self) -> Option<Spanned<'a>> {
        let spanned = self.ahead?;
        self.advance();
        Some(spanned)
    }

    pub(super) fn take(&mut self) -> Option<Token<'a>> {
        self.spanned().map(|spanned| spanned.token)
    }

    /// Whether the statement ends here, a semicolon aside.
    pub(super) fn at_end(&mut self) -> bool {
        while self.accept_sign(b';') {}
        self.ahead.is_none() && !self.broken
    }

    /// Whether the text stopped in the middle of a literal or a comment.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    pub(super) fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(w)) if w.eq_ignore_ascii_case(word.as_bytes()))
    }

    /// Whether one of these words, in upper case, comes next.
    pub(super) fn is_one_of(&self, words: &[&str]) -> bool {
        words.iter().any(|word| self.is_word(word))
    }

    pub(super) fn accept(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.advance();
        }
        found
    }

    /// Takes any of these words, as often as they come.
    pub(super) fn skip_words(&mut self, words: &[&str]) {
        while self.is_one_of(words) {
            self.advance();
        }
    }

    pub(super) fn expect(&mut self, word: &str) -> Option<()> {
        self.accept(word).then_some(())
    }

    pub(super) fn is_sign(&self, sign: u8) -> bool {
        self.peek() == Some(Token::Sign(sign))
    }

    pub(super) fn accept_sign(&mut self, sign: u8) -> bool {
        let found = self.is_sign(sign);
        if found {
            self.advance();
        }
        found
    }

    pub(super) fn expect_sign(&mut self, sign: u8) -> Option<()> {
        self.accept_sign(sign).then_some(())
    }

    /// The next word in upper case.
    pub(super) fn keyword(&mut self) -> Option<String> {
        let Some(Token::Word(word)) = self.peek() else { return None };
        let word = std::str::from_utf8(word).ok()?.to_ascii_uppercase();
        self.advance();
        Some(word)
    }

    /// A name, quoted or not.
    pub(super) fn name(&mut self) -> Option<String> {
        let name = lexer::name(self.peek()?)?;
        self.advance();
        Some(name)
    }

    /// A table's name with its database in front or not.
    pub(super) fn qualified(&mut self) -> Option<(Option<String>, String)> {
        // `.t` is an old way to write `t`.
        if self.accept_sign(b'.') {
            return Some((None, self.name()?));
        }
        let first = self.name()?;
        if self.accept_sign(b'.') { Some((Some(first), self.name()?)) } else { Some((None, first)) }
    }

    /// A text literal's value.
    pub(super) fn text(&mut self) -> Option<Vec<u8>> {
        let Some(Token::Text(raw, quote)) = self.peek() else { return None };
        self.advance();
        Some(lexer::text(raw, quote, self.dialect()))
    }

    /// A whole number.
    pub(super) fn number(&mut self) -> Option<u64> {
        let Some(Token::Number(digits)) = self.peek() else { return None };
        let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
        self.advance();
        Some(number)
    }

    /// `IF EXISTS`, `IF NOT EXISTS`.
    pub(super) fn if_exists(&mut self) -> Option<bool> {
        if !self.accept("IF") {
            return Some(false);
        }
        self.accept("NOT");
        self.expect("EXISTS")?;
        Some(true)
    }

    /// `WAIT 5`, `NOWAIT` (MariaDB).
    pub(super) fn wait(&mut self) -> Option<()> {
        if !self.accept("NOWAIT") && self.accept("WAIT") {
            self.take()?;
        }
        Some(())
    }

    /// Goes behind the `FOR` of MariaDB's `SET STATEMENT a = 1, b = 2 FOR …`.
    pub(super) fn skip_to_for(&mut self) -> Option<()> {
        while !self.accept("FOR") {
            if self.take()? == Token::Sign(b'(') {
                self.skip_to_closing()?;
            }
        }
        Some(())
    }

    /// Goes behind the bracket that closes the one just taken.
    pub(super) fn skip_to_closing(&mut self) -> Option<()> {
        let mut depth = 1usize;
        loop {
            match self.take()? {
                Token::Sign(b'(') => depth += 1,
                Token::Sign(b')') if depth == 1 => return Some(()),
                Token::Sign(b')') => depth -= 1,
                _ => {}
            }
        }
    }
}
