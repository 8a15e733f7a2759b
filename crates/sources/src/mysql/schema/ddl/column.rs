//! A column's definition.

use super::super::lexer::Token;
use super::super::reader::Reader;
use super::super::shape::ShapeColumn;
use super::types::{self, Written};
use super::{Scope, render};
use sqlparser::ast::ColumnOption;
use sqlparser::dialect::MySqlDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token as Parsed;

/// Most tokens behind a type. An expression is a tree as deep as it is long, and it is taken down by recursion.
const MOST_TOKENS: usize = 600;
/// How deep brackets may be.
const DEPTH: usize = 20;

/// A definition whose character set may still depend on the table.
#[derive(Clone, Debug)]
pub(super) struct Definition {
    pub(super) name: String,
    written: Written,
    collated: Option<&'static str>,
    nullable: bool,
    pub(super) primary: bool,
    pub(super) unique: bool,
    /// It has a CHECK of its own; on MariaDB whether that is the one of JSON.
    check: Option<bool>,
}

impl Definition {
    /// Reads name, type and options, up to a comma, a bracket or a place (`FIRST`, `AFTER`).
    pub(super) fn read(reader: &mut Reader<'_>, scope: &Scope) -> Option<Definition> {
        let name = reader.name()?;
        let written = types::read(reader, scope)?;
        let mut definition = Definition {
            name,
            collated: None,
            nullable: !written.serial,
            primary: false,
            unique: written.serial,
            check: None,
            written,
        };
        let mut said_null = None;
        let text = definition.rest(reader, scope)?;
        let sql = format!("`c` INT {text}");
        let dialect = MySqlDialect {};
        let mut parser = Parser::new(&dialect).with_recursion_limit(DEPTH).try_with_sql(&sql).ok()?;
        let parsed = parser.parse_column_def().ok()?;
        if parser.peek_token_ref().token != Parsed::EOF {
            return None;
        }
        for option in parsed.options {
            match option.option {
                ColumnOption::Null => said_null = Some(true),
                ColumnOption::NotNull => said_null = Some(false),
                ColumnOption::PrimaryKey(_) => definition.primary = true,
                ColumnOption::Unique(_) => definition.unique = true,
                ColumnOption::Collation(name) => {
                    let name = name.0.last().and_then(|part| part.as_ident())?;
                    definition.collated = Some(scope.charset_of_collation(&name.value)?);
                }
                // AUTO_INCREMENT.
                ColumnOption::DialectSpecific(_)
                | ColumnOption::Default(_)
                | ColumnOption::OnUpdate(_)
                | ColumnOption::Comment(_)
                | ColumnOption::Generated { .. }
                | ColumnOption::ForeignKey(_)
                | ColumnOption::Check(_)
                | ColumnOption::Srid(_)
                | ColumnOption::Invisible => {}
                _ => return None,
            }
        }
        if definition.written.timestamp && said_null.is_none() && !scope.explicit_timestamps {
            return None;
        }
        definition.nullable &= said_null.unwrap_or(true) && !definition.primary;
        Some(definition)
    }

    /// The options behind a type as text; those that `sqlparser` does not know and that do not matter are left out.
    fn rest(&mut self, reader: &mut Reader<'_>, scope: &Scope) -> Option<String> {
        let mut tokens = Vec::new();
        let mut depth = 0usize;
        let mut json_checks = 0;
        while let Some(token) = reader.peek() {
            match token {
                Token::Sign(b'(') => depth += 1,
                Token::Sign(b',' | b')' | b';') if depth == 0 => break,
                Token::Sign(b')') => depth -= 1,
                Token::Word(_) if depth == 0 => {
                    if reader.is_one_of(&["FIRST", "AFTER"]) {
                        break;
                    }
                    if reader.accept("VISIBLE") {
                        continue;
                    }
                    if reader.accept("COLUMN_FORMAT") || reader.accept("STORAGE") {
                        reader.take()?;
                        continue;
                    }
                    if reader.is_word("CHECK") {
                        self.check = Some(self.check.is_none() && is_json_check(reader, &self.name));
                    }
                }
                Token::Word(_) => json_checks += usize::from(reader.is_word("JSON_VALID")),
                _ => {}
            }
            tokens.push(reader.spanned()?);
            if tokens.len() > MOST_TOKENS {
                return None;
            }
        }
        // What a check that is more than that one says of JSON is not told.
        if scope.mariadb && json_checks != usize::from(self.check == Some(true)) {
            return None;
        }
        render(&tokens, reader)
    }

    /// The column, in a table with this default character set.
    pub(super) fn column(&self, default: Option<&str>, scope: &Scope) -> Option<ShapeColumn> {
        let printed = self.written.print(self.collated, default, scope)?;
        Some(ShapeColumn {
            name: self.name.clone(),
            column_type: printed.column_type,
            charset: printed.charset.map(String::from),
            nullable: self.nullable,
            // A check of the column's own stands in the place of the one that comes with JSON.
            json: scope.mariadb && self.check.unwrap_or(printed.json),
            hidden: false,
        })
    }
}

/// Whether `CHECK (json_valid(name))` comes next.
fn is_json_check(reader: &Reader<'_>, name: &str) -> bool {
    let mut ahead = reader.clone();
    let mut check = || {
        ahead.expect("CHECK")?;
        ahead.expect_sign(b'(')?;
        ahead.expect("JSON_VALID")?;
        ahead.expect_sign(b'(')?;
        let same = ahead.name()?.to_lowercase() == name.to_lowercase();
        ahead.expect_sign(b')')?;
        ahead.expect_sign(b')')?;
        Some(same)
    };
    check() == Some(true)
}
