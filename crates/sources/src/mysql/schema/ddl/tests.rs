//! What must not be guessed, and what must not take the process down. That what is understood is right is tested against real
//! servers (`live_tests`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test, a panic with a clear message is how a failure is reported"
)]

use super::*;

fn context(flavour: Flavour) -> Context<'static> {
    Context { flavour, database: "d", sql_mode: 0, fold_names: false }
}

fn defaults(version: &str) -> Defaults {
    Defaults { version: Version::parse(version, ""), utf8: "utf8mb3", explicit_timestamps: true }
}

fn mysql(sql: &str) -> Applied {
    create(sql.as_bytes(), &context(Flavour::MySql), &defaults("9.7.0"), Some("utf8mb4"))
}

fn mariadb(sql: &str) -> Applied {
    create(sql.as_bytes(), &context(Flavour::MariaDb), &defaults("11.8.2-MariaDB"), Some("utf8mb4"))
}

/// `name type[ null]` of each column.
fn columns(applied: &Applied) -> String {
    let Applied::Known(shape) = applied else { return "?".into() };
    let column = |c: &ShapeColumn| {
        let charset = c.charset.as_deref().map(|c| format!(" {c}")).unwrap_or_default();
        format!("{} {}{charset}{}", c.name, c.column_type, if c.nullable { " null" } else { "" })
    };
    shape.columns.iter().map(column).collect::<Vec<_>>().join(", ")
}

fn base() -> Shape {
    let made = mysql("CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(10), b TEXT) CHARSET latin1");
    assert_eq!(columns(&made), "id int, a varchar(10) latin1 null, b text latin1 null");
    match made {
        Applied::Known(shape) => shape,
        Applied::Unknown => panic!("not understood"),
    }
}

fn altered(shape: &Shape, sql: &str) -> Applied {
    alter(shape, sql.as_bytes(), &context(Flavour::MySql), &defaults("9.7.0"), Some("utf8mb4"))
}

#[test]
fn an_alter_first_goes_through_the_old_columns() {
    let base = base();
    for (sql, expected) in [
        (
            "ADD c INT AFTER id, ADD d INT AFTER id",
            "id int, d int null, c int null, a varchar(10) latin1 null, b text latin1 null",
        ),
        ("ADD c INT FIRST, DROP a, MODIFY b BLOB AFTER c", "c int null, b blob null, id int"),
        ("CHANGE a aa INT, ADD c INT AFTER aa", "id int, aa int null, c int null, b text latin1 null"),
        ("MODIFY id BIGINT FIRST", "id bigint, a varchar(10) latin1 null, b text latin1 null"),
        (
            "ADD c VARCHAR(5), DEFAULT CHARSET utf8mb4",
            "id int, a varchar(10) latin1 null, b text latin1 null, c varchar(5) utf8mb4 null",
        ),
        ("CONVERT TO CHARACTER SET utf8mb4", "id int, a varchar(10) utf8mb4 null, b mediumtext utf8mb4 null"),
        ("ENGINE=InnoDB", "id int, a varchar(10) latin1 null, b text latin1 null"),
    ] {
        assert_eq!(columns(&altered(&base, &format!("ALTER TABLE t {sql}"))), expected, "{sql}");
    }
    let Applied::Known(moved) = altered(&base, "ALTER TABLE t MODIFY id INT AFTER b") else {
        panic!("not understood")
    };
    assert_eq!(moved.primary_key, [2]);
}

#[test]
fn what_is_not_certain_is_unknown() {
    let base = base();
    for sql in [
        // Not in the shape, or there already: it is another table than the one that is known.
        "DROP zz",
        "MODIFY zz INT",
        "CHANGE zz a2 INT",
        "RENAME COLUMN zz TO a2",
        "ADD c INT AFTER zz",
        "ADD a INT",
        "CHANGE a b INT",
        "DROP a, ADD a INT",
        "MODIFY a INT, RENAME COLUMN a TO c",
        // Keys that are not known.
        "DROP PRIMARY KEY",
        "DROP COLUMN id",
        "ADD PRIMARY KEY (a)",
        "DROP INDEX `PRIMARY`",
        // Types that the mode of the session may change into others.
        "ADD c VARCHAR(70000)",
        "ADD c CHAR(256)",
        "ADD c ENUM('a') CHARACTER SET binary",
        // Not read.
        "ADD c HOLOGRAM",
        "ADD c INT GENERATED ALWAYS AS ROW START",
        "FROBNICATE",
        "ADD c INT DEFAULT",
        "ADD c INT b INT",
        "ADD",
        "ADD c INT,",
        "ADD (c INT",
        "ADD c VARCHAR(5) CHARACTER SET klingon",
        "ADD c VARCHAR(5) COLLATE uca1400_ai_ci",
        "ADD c INT; DROP a",
        "ADD SYSTEM VERSIONING",
        "CONVERT TO CHARACTER SET utf8mb4, ADD c TEXT",
        "ADD c ENUM(_latin1'x')",
        "ADD c TIME(7)",
        "CONVERT TO CHARACTER SET utf8mb4 COLLATE latin1_bin",
    ] {
        assert_eq!(altered(&base, &format!("ALTER TABLE t {sql}")), Applied::Unknown, "{sql}");
    }
    let timestamps = Defaults { explicit_timestamps: false, ..defaults("9.7.0") };
    let sql = b"ALTER TABLE t ADD c TIMESTAMP";
    assert_eq!(alter(&base, sql, &context(Flavour::MySql), &timestamps, None), Applied::Unknown);
    let no_charset = Shape { charset: None, ..base.clone() };
    assert_eq!(altered(&no_charset, "ALTER TABLE t ADD c TEXT"), Applied::Unknown);
    assert_ne!(altered(&no_charset, "ALTER TABLE t ADD c BLOB"), Applied::Unknown);
    let versioned = Shape { versioned: true, ..base.clone() };
    assert_eq!(altered(&versioned, "ALTER TABLE t ADD c INT"), Applied::Unknown);
    let no_key = Shape { primary_key: vec![], ..base };
    for sql in ["DROP a", "ADD UNIQUE (a)", "MODIFY a INT NOT NULL"] {
        assert_eq!(altered(&no_key, &format!("ALTER TABLE t {sql}")), Applied::Unknown, "{sql}");
    }
    assert_ne!(altered(&no_key, "ALTER TABLE t ADD c INT"), Applied::Unknown);
}

#[test]
fn a_table_that_its_text_does_not_tell_is_unknown() {
    for sql in [
        "CREATE TABLE t SELECT 1",
        "CREATE TABLE t (a INT) SELECT 1 AS b",
        "CREATE TABLE t (a INT) ENGINE=InnoDB AS (SELECT 1 AS b)",
        "CREATE TABLE t (a INT) REPLACE (SELECT 1 AS b)",
        "CREATE TABLE t (a INT) ((SELECT 1 AS b))",
        "CREATE TABLE t LIKE u",
        "CREATE TABLE t ()",
        "CREATE TABLE t (PRIMARY KEY (a))",
        "CREATE TABLE t (a INT, PRIMARY KEY (b))",
        "CREATE TABLE t (a INT PRIMARY KEY, PRIMARY KEY (a))",
        "ALTER TABLE t ADD a INT",
        "",
        "CREATE TABLE t (a INT",
        "CREATE TABLE t (a VARCHAR(5) DEFAULT 'x) CHARSET latin1",
    ] {
        assert_eq!(mysql(sql), Applied::Unknown, "{sql}");
    }
    for sql in [
        "CREATE TABLE t (a TEXT, UNIQUE (a))",
        "CREATE TABLE t (a VARCHAR(300), UNIQUE (a))",
        "CREATE TABLE t (a INT, UNIQUE USING HASH (a))",
        "CREATE TABLE t (a INT) WITH SYSTEM VERSIONING",
        "CREATE TABLE t (a DATE, b DATE, PERIOD FOR p (a, b))",
        "CREATE TABLE t (a TEXT, CHECK (JSON_VALID(a)))",
        "CREATE TABLE t (a TEXT CHECK (JSON_VALID(a) AND 1))",
        "CREATE TABLE t (a TEXT CHECK (JSON_VALID(b)), b INT)",
    ] {
        assert_eq!(mariadb(sql), Applied::Unknown, "{sql}");
    }
    let json = mariadb("CREATE TABLE t (a JSON, b JSON CHECK (b <> ''), c TEXT CHECK (json_valid(`C`)))");
    let Applied::Known(shape) = json else { panic!("not understood") };
    assert_eq!(shape.columns.iter().map(|c| c.json).collect::<Vec<_>>(), [true, false, true]);
    let oracle = Context { sql_mode: 1 << 9, ..context(Flavour::MariaDb) };
    assert_eq!(
        create(b"CREATE TABLE t (a INT)", &oracle, &defaults("11.8.2-MariaDB"), None),
        Applied::Unknown
    );
}

#[test]
fn odd_sizes_take_nothing_down() {
    let deep = format!("CREATE TABLE t (a INT DEFAULT ({}1{}))", "(".repeat(50_000), ")".repeat(50_000));
    assert_eq!(mysql(&deep), Applied::Unknown);
    let long = format!("CREATE TABLE t (a INT DEFAULT (1{}))", "+1".repeat(50_000));
    assert_eq!(mysql(&long), Applied::Unknown);
    let not = format!("CREATE TABLE t (a INT DEFAULT ({} 1))", "NOT ".repeat(500));
    assert_eq!(mysql(&not), Applied::Unknown);
    let sum = format!("CREATE TABLE t (a INT DEFAULT (1{}))", "+1".repeat(290));
    assert_eq!(columns(&mysql(&sum)), "a int null");
    let wide: Vec<String> = (0..4097).map(|n| format!("c{n} INT")).collect();
    assert_eq!(mysql(&format!("CREATE TABLE t ({})", wide.join(","))), Applied::Unknown);
    assert_ne!(mysql(&format!("CREATE TABLE t ({})", wide[1..].join(","))), Applied::Unknown);
}

/// Statements put together from words and bytes at random: whatever they are, they are read to their end or refused.
#[test]
fn no_text_takes_anything_down() {
    const WORDS: &[&str] = &[
        "ALTER",
        "TABLE",
        "CREATE",
        "DROP",
        "ADD",
        "COLUMN",
        "(",
        ")",
        ",",
        "INT",
        "VARCHAR",
        "ENUM",
        "'a'",
        "'",
        "`",
        "`b`",
        "/*!",
        "*/",
        "/*",
        "--",
        "\n",
        "CHECK",
        "PRIMARY",
        "KEY",
        "UNIQUE",
        "DEFAULT",
        "AFTER",
        "FIRST",
        "SET",
        "STATEMENT",
        "FOR",
        "CHARACTER",
        "CONVERT",
        "TO",
        "RENAME",
        "PARTITION",
        "ORDER",
        "BY",
        "id",
        "a",
        "t",
        ".",
        "5",
        "0x",
        "1e",
        ";",
        "=",
        "UPDATE",
        "WITH",
        "AS",
        "SELECT",
        "XA",
        "X'3'",
        "ON",
        "IF",
        "EXISTS",
        "\u{fc}",
        "\0",
        "GENERATED",
        "ALWAYS",
        "VISIBLE",
        "STORAGE",
        "COLLATE",
        "JSON_VALID",
    ];
    let base = base();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |end: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 33) as usize % end
    };
    for _ in 0..20_000 {
        let mut sql =
            ["", "ALTER TABLE t ", "CREATE TABLE t (", "ALTER TABLE t ADD a "][next(4)].as_bytes().to_vec();
        for _ in 0..next(25) {
            match next(30) {
                0 => sql.push(next(256) as u8),
                _ => sql.extend_from_slice(WORDS[next(WORDS.len())].as_bytes()),
            }
            if next(4) != 0 {
                sql.push(b' ');
            }
        }
        for flavour in [Flavour::MySql, Flavour::MariaDb] {
            let context = context(flavour);
            let defaults = defaults(if flavour == Flavour::MySql { "8.0.11" } else { "10.5.9-MariaDB" });
            let statement = super::super::statement::classify(&sql, &context);
            create(&sql, &context, &defaults, Some("latin1"));
            alter(&base, &sql, &context, &defaults, None);
            drop(statement);
        }
    }
}
