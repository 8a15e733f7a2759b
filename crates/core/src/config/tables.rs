//! Table patterns: which tables a list of patterns captures.

use regex::Regex;

/// One entry of a `tables` list.
#[derive(Clone, Debug)]
pub struct TablePattern {
    text: String,
    exclude: bool,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    Halves { first: Half, table: Half },
    Regex(Regex),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Half {
    /// Exactly this name.
    Exact(String),
    /// The pieces between the `%`s, any run of characters standing for each.
    Wild(Vec<String>),
}

impl Half {
    fn matches(&self, name: &str) -> bool {
        let pieces = match self {
            Half::Exact(exact) => return exact == name,
            Half::Wild(pieces) => pieces,
        };
        let [first, middle @ .., last] = pieces.as_slice() else { return false };
        let Some(mut rest) = name.strip_prefix(first.as_str()) else { return false };
        // Leftmost matches of the middle pieces leave the most for the last one, so no backtracking is needed.
        for piece in middle {
            match rest.find(piece.as_str()) {
                Some(at) => rest = &rest[at + piece.len()..],
                None => return false,
            }
        }
        rest.ends_with(last.as_str())
    }
}

impl TablePattern {
    /// Parses a pattern; `default_first` stands for a first half that is left out, `None` when there is none to assume.
    ///
    /// # Errors
    /// One sentence saying what is wrong with it.
    pub fn parse(text: &str, default_first: Option<&str>) -> Result<TablePattern, String> {
        let written = text.trim();
        let (exclude, body) = match written.strip_prefix('!') {
            Some(rest) => (true, rest.trim_start()),
            None => (false, written),
        };
        if body.is_empty() {
            return Err("an empty table pattern".into());
        }
        let form = match body.strip_prefix('/') {
            Some(rest) => {
                let source = rest.strip_suffix('/').ok_or("a regular expression ends with `/`")?;
                let regex = Regex::new(&format!("^(?:{source})$")).map_err(|e| {
                    let reason = e.to_string();
                    format!("not a regular expression: {}", reason.lines().last().unwrap_or("").trim())
                })?;
                Form::Regex(regex)
            }
            None => halves(body, default_first)?,
        };
        Ok(TablePattern { text: written.into(), exclude, form })
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn matches(&self, first: &str, table: &str) -> bool {
        match &self.form {
            Form::Halves { first: f, table: t } => f.matches(first) && t.matches(table),
            Form::Regex(regex) => regex.is_match(&format!("{first}.{table}")),
        }
    }
}

fn halves(body: &str, default_first: Option<&str>) -> Result<Form, String> {
    let mut rest = body;
    let first = take_half(&mut rest)?;
    if rest.is_empty() {
        let default = default_first.ok_or_else(|| format!("`{body}` needs the form `database.table`"))?;
        return Ok(Form::Halves { first: Half::Exact(default.into()), table: first });
    }
    rest = &rest[1..];
    let table = take_half(&mut rest)?;
    if !rest.is_empty() {
        return Err(format!(
            "`{body}` has more than two parts; quote a part that contains a dot: `\"a.b\".c`"
        ));
    }
    Ok(Form::Halves { first, table })
}

/// Takes a half off the front of `rest`, up to a dot or the end.
fn take_half(rest: &mut &str) -> Result<Half, String> {
    if let Some(quote @ ('"' | '`')) = rest.chars().next() {
        let mut name = String::new();
        let mut chars = rest.char_indices().skip(1).peekable();
        while let Some((at, c)) = chars.next() {
            if c != quote {
                name.push(c);
            } else if chars.peek().is_some_and(|(_, next)| *next == quote) {
                chars.next();
                name.push(quote);
            } else {
                *rest = &rest[at + 1..];
                return match (name.is_empty(), rest.is_empty() || rest.starts_with('.')) {
                    (false, true) => Ok(Half::Exact(name)),
                    (true, _) => Err("an empty quoted name".into()),
                    (_, false) => {
                        Err(format!("`{rest}` follows a closing quote; a dot or the end was expected"))
                    }
                };
            }
        }
        return Err(format!("a quote {quote} that is not closed"));
    }
    let end = rest.find('.').unwrap_or(rest.len());
    let half = &rest[..end];
    *rest = &rest[end..];
    if half.is_empty() {
        return Err("a part before or after the dot is empty".into());
    }
    if half == "*" {
        return Ok(Half::Wild(vec![String::new(), String::new()]));
    }
    if half.contains('*') {
        return Err(format!("`*` stands only for a whole part; write `{}`", half.replace('*', "%")));
    }
    if half.contains(['"', '`']) {
        return Err(format!("a quote inside `{half}`; quotes enclose a whole part"));
    }
    if half.contains('%') {
        return Ok(Half::Wild(half.split('%').map(Into::into).collect()));
    }
    Ok(Half::Exact(half.into()))
}

/// A list of patterns. Exclusions win, whatever the order.
#[derive(Clone, Debug, Default)]
pub struct TableFilter {
    patterns: Vec<TablePattern>,
}

impl TableFilter {
    /// Takes parsed patterns; without an including one, every table is included.
    pub fn new(patterns: Vec<TablePattern>) -> TableFilter {
        TableFilter { patterns }
    }

    /// Whether `first.table` is captured; `first` is the schema for PostgreSQL, the database for MySQL.
    pub fn matches(&self, first: &str, table: &str) -> bool {
        let mut including = self.patterns.iter().filter(|p| !p.exclude).peekable();
        let included = including.peek().is_none() || including.any(|p| p.matches(first, table));
        included && !self.patterns.iter().any(|p| p.exclude && p.matches(first, table))
    }

    /// Including patterns that match none of these tables.
    pub fn unmatched<'a>(&'a self, tables: &'a [(String, String)]) -> impl Iterator<Item = &'a str> {
        let unmatched = move |p: &&TablePattern| !p.exclude && !tables.iter().any(|(f, t)| p.matches(f, t));
        self.patterns.iter().filter(unmatched).map(TablePattern::as_str)
    }

    /// Whether there is no including pattern, so that every table is captured.
    pub fn is_all(&self) -> bool {
        self.patterns.iter().all(|p| p.exclude)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(patterns: &[&str]) -> TableFilter {
        let parse = |p: &&str| TablePattern::parse(p, Some("public")).unwrap_or_else(|e| panic!("{p}: {e}"));
        TableFilter::new(patterns.iter().map(parse).collect())
    }

    #[test]
    fn every_form_of_the_table() {
        type Names = &'static [(&'static str, &'static str)];
        let cases: &[(&[&str], Names, Names)] = &[
            (
                &["shop.orders"],
                &[("shop", "orders")],
                &[("shop", "Orders"), ("shop", "orders2"), ("x", "orders")],
            ),
            (
                &["shop.order_%"],
                &[("shop", "order_"), ("shop", "order_1")],
                &[("shop", "orders"), ("shop", "xorder_1")],
            ),
            (&["shop.*"], &[("shop", "a"), ("shop", "b.c")], &[("shop2", "a")]),
            (&["shop.%"], &[("shop", "a")], &[("shop2", "a")]),
            (&["%.audit_log"], &[("a", "audit_log"), ("b", "audit_log")], &[("a", "audit_logs")]),
            (&["orders"], &[("public", "orders")], &[("shop", "orders")]),
            (&["shop.*", "!shop.tmp_%"], &[("shop", "a")], &[("shop", "tmp_a")]),
            (&["!shop.tmp_%", "shop.*"], &[("shop", "a")], &[("shop", "tmp_a")]),
            (&["!shop.tmp_%"], &[("other", "tmp_a")], &[("shop", "tmp_a")]),
            (
                &["/shop\\.orders_[0-9]+/"],
                &[("shop", "orders_12")],
                &[("shop", "orders_"), ("shop", "orders_1x")],
            ),
            (&["\"odd.name\".t"], &[("odd.name", "t")], &[("odd", "t")]),
            (&["`odd%`.`t``x`"], &[("odd%", "t`x")], &[("odd1", "t`x")]),
            (&["s.a%b%c"], &[("s", "abc"), ("s", "a1b2bc"), ("s", "abcc")], &[("s", "ac"), ("s", "abcd")]),
            (&[], &[("any", "thing")], &[]),
        ];
        for (patterns, captured, not) in cases {
            let filter = filter(patterns);
            for (first, table) in *captured {
                assert!(filter.matches(first, table), "{patterns:?} must match {first}.{table}");
            }
            for (first, table) in *not {
                assert!(!filter.matches(first, table), "{patterns:?} must not match {first}.{table}");
            }
        }
    }

    #[test]
    fn what_does_not_parse_says_why() {
        let cases = [
            ("", "empty table pattern"),
            ("!", "empty table pattern"),
            ("a.b.c", "more than two parts"),
            (".t", "is empty"),
            ("s.", "is empty"),
            ("s.ord*", "write `ord%`"),
            ("\"s.t", "not closed"),
            ("\"s\"x.t", "closing quote"),
            ("/(/", "not a regular expression"),
            ("/x", "ends with `/`"),
        ];
        for (pattern, expected) in cases {
            let error = TablePattern::parse(pattern, Some("public")).err().unwrap_or_default();
            assert!(error.contains(expected), "{pattern}: {error}");
        }
        let error = TablePattern::parse("orders", None).err().unwrap_or_default();
        assert!(error.contains("database.table"), "{error}");
    }

    #[test]
    fn patterns_without_a_table_are_named() {
        let tables = [("public".to_string(), "a".to_string())];
        let filter = filter(&["a", "b%", "!c"]);
        assert_eq!(filter.unmatched(&tables).collect::<Vec<_>>(), ["b%"]);
    }
}
