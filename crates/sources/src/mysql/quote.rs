//! Names and texts inside statements. Every statement that this program makes goes through these two.

/// A name in backticks.
pub(crate) fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text as a literal, for sessions with an empty `sql_mode` and `utf8mb4`, which every connection is given.
pub(crate) fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('\'');
    for c in text.chars() {
        match c {
            '\'' => out.push_str("''"),
            '\\' => out.push_str("\\\\"),
            // The server reads it too; written so, logs and clients are not cut.
            '\0' => out.push_str("\\0"),
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_its_quotes() {
        assert_eq!(identifier("orders"), "`orders`");
        assert_eq!(identifier("a`; DROP TABLE b; --"), "`a``; DROP TABLE b; --`");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("\\' OR 1=1 -- "), "'\\\\'' OR 1=1 -- '");
        assert_eq!(literal("a\0b\nü"), "'a\\0b\nü'");
        assert_eq!(literal(""), "''");
    }
}
