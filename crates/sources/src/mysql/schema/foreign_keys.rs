//! Foreign keys as MariaDB's `SHOW CREATE TABLE` prints them: the one place that shows what they do to somebody who may only
//! read (`information_schema.REFERENTIAL_CONSTRAINTS` wants another right than SELECT there).

use super::lexer::{Dialect, Token};
use super::reader::Reader;

/// What a foreign key does in the table that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForeignKey {
    pub(crate) name: String,
    /// As `information_schema` calls it: `CASCADE`, `SET NULL`, `SET DEFAULT`, `NO ACTION`, `RESTRICT`.
    pub(crate) on_delete: String,
    pub(crate) on_update: String,
}

/// The foreign keys of a table from the text that a session with an empty `sql_mode` is shown. Read token by token: names and
/// comments may hold anything. What cannot be read ends the list.
pub(crate) fn foreign_keys(create_table: &str) -> Vec<ForeignKey> {
    let dialect = Dialect { mariadb: true, ..Dialect::default() };
    let mut reader = Reader::new(create_table.as_bytes(), dialect);
    let mut found = Vec::new();
    let _the_end = read(&mut reader, &mut found);
    found
}

fn read(reader: &mut Reader<'_>, found: &mut Vec<ForeignKey>) -> Option<()> {
    while !reader.accept_sign(b'(') {
        reader.take()?;
    }
    loop {
        if reader.accept("CONSTRAINT") {
            let name = reader.name()?;
            if reader.accept("FOREIGN") {
                found.push(foreign_key(reader, name)?);
            }
        }
        // To the next column, key or constraint.
        loop {
            match reader.take()? {
                Token::Sign(b'(') => reader.skip_to_closing()?,
                Token::Sign(b',') => break,
                Token::Sign(b')') => return Some(()),
                _ => {}
            }
        }
    }
}

/// From `KEY` on.
fn foreign_key(reader: &mut Reader<'_>, name: String) -> Option<ForeignKey> {
    while !reader.accept("REFERENCES") {
        if reader.take()? == Token::Sign(b'(') {
            reader.skip_to_closing()?;
        }
    }
    reader.qualified()?;
    reader.expect_sign(b'(')?;
    reader.skip_to_closing()?;
    // What is not printed is so.
    let mut key = ForeignKey { name, on_delete: "RESTRICT".into(), on_update: "RESTRICT".into() };
    while reader.accept("ON") {
        let event = reader.keyword()?;
        let mut rule = reader.keyword()?;
        if matches!(rule.as_str(), "SET" | "NO") {
            rule = format!("{rule} {}", reader.keyword()?);
        }
        match event.as_str() {
            "DELETE" => key.on_delete = rule,
            _ => key.on_update = rule,
        }
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sql: &str) -> Vec<[String; 3]> {
        foreign_keys(sql).into_iter().map(|key| [key.name, key.on_delete, key.on_update]).collect()
    }

    #[test]
    fn only_what_is_a_foreign_key_is_taken_for_one() {
        // As MariaDB 10.11 prints it; the column's name goes over two lines.
        let sql = "CREATE TABLE `ch``i` (
  `id` int(11) NOT NULL,
  `p` int(11) DEFAULT 3 COMMENT 'x\\n  CONSTRAINT `q` FOREIGN KEY (`p`) REFERENCES `b` (`a`) ON DELETE CASCADE,',
  `x
  CONSTRAINT ``y`` FOREIGN KEY (p) REFERENCES a (b) ON DELETE CASCADE,` int(11) DEFAULT NULL,
  `g` int(11) GENERATED ALWAYS AS (if(`p` > (1), ')', 2)) VIRTUAL,
  PRIMARY KEY (`id`),
  KEY `fk``1` (`p`),
  CONSTRAINT `FOREIGN KEY ( ) ON DELETE CASCADE` FOREIGN KEY (`g`) REFERENCES `parent` (`id`) ON DELETE NO ACTION,
  CONSTRAINT `ch``i_ibfk_1` FOREIGN KEY (`id`, `p`) REFERENCES `other`.`ON UPDATE` (`a`, `b`) ON UPDATE CASCADE,
  CONSTRAINT `fk``1` FOREIGN KEY (`p`) REFERENCES `parent` (`id`) ON DELETE CASCADE ON UPDATE SET NULL,
  CONSTRAINT `CONSTRAINT_1` CHECK (`g` > 0 or 'ON DELETE CASCADE' = 'x')
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT='a\\n  CONSTRAINT `z` FOREIGN KEY (`p`) REFERENCES `b` (`a`)'";
        let expected = [
            ["FOREIGN KEY ( ) ON DELETE CASCADE", "NO ACTION", "RESTRICT"],
            ["ch`i_ibfk_1", "RESTRICT", "CASCADE"],
            ["fk`1", "CASCADE", "SET NULL"],
        ];
        assert_eq!(of(sql), expected.map(|key| key.map(String::from)));
        // With `sql_quote_show_create = 0`.
        let sql = "CREATE TABLE c (\n  p int(11),\n  CONSTRAINT fk FOREIGN KEY (p) REFERENCES t (id) ON DELETE SET DEFAULT\n)";
        assert_eq!(of(sql), [["fk", "SET DEFAULT", "RESTRICT"].map(String::from)]);
    }

    #[test]
    fn what_is_cut_or_none_gives_what_is_there() {
        let whole = "CREATE TABLE a (CONSTRAINT k FOREIGN KEY (p) REFERENCES t (id), CONSTRAINT l FOREIGN KEY (q) REFERENCES t (id))";
        assert_eq!(of(whole).len(), 2);
        for end in 0..whole.len() {
            assert!(of(&whole[..end]).len() <= 2);
        }
        assert_eq!(of(&whole[..70]).len(), 1);
        assert_eq!(of("CREATE VIEW v AS SELECT 1"), [[""; 3]; 0].map(|key| key.map(String::from)));
    }
}
