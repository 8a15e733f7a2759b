//! `XA START`, `END`, `PREPARE`, `COMMIT`, `ROLLBACK`.

use super::{Parser, Statement, Xid};
use crate::mysql::schema::lexer::Token;

impl Parser<'_> {
    pub(super) fn xa(&mut self) -> Option<Statement> {
        let verb = self.reader.keyword()?;
        if verb == "RECOVER" {
            return Some(Statement::Other);
        }
        let xid = self.xid()?;
        Some(match verb.as_str() {
            "START" | "BEGIN" => Statement::XaStart(xid),
            "END" => Statement::XaEnd(xid),
            "PREPARE" => Statement::XaPrepare(xid),
            "COMMIT" => Statement::XaCommit(xid, self.reader.accept("ONE")),
            "ROLLBACK" => Statement::XaRollback(xid),
            _ => return None,
        })
    }

    /// `X'31',X'',1`, as servers log it; a person may write `'1'`.
    fn xid(&mut self) -> Option<Xid> {
        let mut xid = Xid { format: 1, gtrid: self.xid_part()?, bqual: Vec::new() };
        if self.reader.accept_sign(b',') {
            xid.bqual = self.xid_part()?;
        }
        if self.reader.accept_sign(b',') {
            let Some(Token::Number(number)) = self.reader.take() else { return None };
            let number = std::str::from_utf8(number).ok()?;
            xid.format = match number.strip_prefix("0x") {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
        }
        (xid.gtrid.len() <= 64 && xid.bqual.len() <= 64).then_some(xid)
    }

    fn xid_part(&mut self) -> Option<Vec<u8>> {
        if self.reader.accept("X") {
            let Some(Token::Text(hex, _)) = self.reader.take() else { return None };
            return from_hex(hex);
        }
        if let Some(Token::Number([b'0', b'x', hex @ ..])) = self.reader.peek() {
            self.reader.take();
            return from_hex(hex);
        }
        self.reader.text()
    }
}

fn from_hex(hex: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pair = |pair: &[u8]| match pair {
        [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
        _ => None,
    };
    hex.chunks(2).map(pair).collect()
}
