//! SQL expressions that make JSON documents, and statements that change them in part: always the same for a seed.

/// xorshift64*.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() >> 16) as usize % end.max(1)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// A name, the first ones more often, so that paths meet members.
    fn name(&mut self) -> &'static str {
        let end = 1 + self.below(NAMES.len());
        NAMES[self.below(end)]
    }
}

/// Names of members, few enough that paths meet them: plain, with what paths must quote, empty, of several scripts.
const NAMES: &[&str] = &[
    "a",
    "b",
    "id",
    "name",
    "a b",
    "a.b",
    "[0]",
    "",
    "\"",
    "\\",
    "\n",
    "\u{1}",
    "é",
    "ключ",
    "名前",
    "🦀",
    "last",
    "0",
    "_x",
    "$",
    "a*b",
    "zz",
    "\u{141}x",
    "e\u{301}",
    "\u{203f}",
    "with a rather long name, longer than sixty-four bytes in all ….",
];

const TEXTS: &[&str] = &[
    "",
    "plain",
    "a \"quoted\" \\ text",
    "\u{8}\t\n\u{c}\r",
    "\0\u{1}\u{1f}\u{7f}",
    "grüße, мир, 世界",
    "🦀🦀",
    "</script>",
    "\u{2028}\u{ffff}\u{10ffff}",
    "exactly8",
    "seven77\"",
    "ninechars",
];

/// A text as an SQL literal of its UTF-8 bytes, so that neither client nor server reads anything into it.
pub(crate) fn text_literal(text: &str) -> String {
    if text.is_empty() {
        return "''".into();
    }
    format!("_utf8mb4 0x{}", text.bytes().map(|b| format!("{b:02x}")).collect::<String>())
}

/// A random finite double: bits at random, short decimals, the neighbours of powers of two and of ten.
pub(crate) fn double(random: &mut Random) -> f64 {
    let v = match random.below(6) {
        0 | 1 => f64::from_bits(random.next()),
        2 => (random.below(2_000_001) as f64 - 1_000_000.0) / 10f64.powi(random.below(12) as i32),
        3 => {
            let exponent = random.below(2100) as i32 - 1074;
            let near = 2f64.powi(exponent).to_bits().wrapping_add(random.below(3) as u64).wrapping_sub(1);
            f64::from_bits(near)
        }
        4 => {
            let exponent = random.below(60) as i32 - 30;
            let digits = random.below(9_999_999) as f64;
            digits * 10f64.powi(exponent)
        }
        _ => {
            let power: f64 = format!("1e{}", random.below(631) as i32 - 323).parse().unwrap();
            f64::from_bits(power.to_bits().wrapping_add(random.below(3) as u64).wrapping_sub(1))
        }
    };
    let v = if random.below(2) == 0 { -v } else { v };
    if v.is_finite() { v } else { 0.5 }
}

fn digits(random: &mut Random, length: usize) -> String {
    (0..length).map(|_| (b'0' + random.below(10) as u8) as char).collect()
}

fn scalar(random: &mut Random) -> String {
    const EDGES: &[&str] = &[
        "0",
        "-1",
        "127",
        "-128",
        "255",
        "32767",
        "-32768",
        "32768",
        "65535",
        "65536",
        "2147483647",
        "-2147483648",
        "2147483648",
        "4294967295",
        "4294967296",
        "9223372036854775807",
        "-9223372036854775808",
        "9223372036854775808",
        "18446744073709551615",
    ];
    match random.below(17) {
        0 => "CAST('null' AS JSON)".into(),
        1 => random.pick(&["true", "false"]).into(),
        2 => format!("CAST('{}' AS JSON)", random.pick(EDGES)),
        3 => format!(
            "CAST({} AS UNSIGNED)",
            random.pick(&["0", "1", "65535", "65536", "4294967296", "18446744073709551615"])
        ),
        4 => format!("CAST('{}' AS JSON)", random.next() as i64 >> random.below(64)),
        5 => format!("CAST('{:e}' AS JSON)", double(random)),
        6 => format!("{:e}", double(random)),
        7 => {
            let scale = random.below(31);
            let whole = 1 + random.below(65 - scale);
            let sign = if random.below(2) == 0 { "-" } else { "" };
            let (w, f) = (digits(random, whole), digits(random, scale));
            format!("CAST('{sign}{w}.{f}' AS DECIMAL({},{scale}))", whole + scale)
        }
        8 => format!(
            "CAST('{:04}-{:02}-{:02}' AS DATE)",
            1 + random.below(9999),
            1 + random.below(12),
            1 + random.below(28)
        ),
        9 => format!(
            "CAST('{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:06}' AS DATETIME({}))",
            1 + random.below(9998),
            1 + random.below(12),
            1 + random.below(28),
            random.below(24),
            random.below(60),
            random.below(60),
            random.below(1_000_000),
            random.below(7)
        ),
        10 => format!(
            "CAST('{}{}:{:02}:{:02}.{:06}' AS TIME({}))",
            random.pick(&["", "-"]),
            random.below(838),
            random.below(60),
            random.below(60),
            random.below(1_000_000),
            random.below(7)
        ),
        11 => {
            let length = random.pick(&[0, 1, 2, 3, 56, 57, 58, 114, 115, 300]);
            let bytes: String = (0..length).map(|_| format!("{:02x}", random.next() as u8)).collect();
            if length == 0 { "CAST('' AS BINARY)".into() } else { format!("CAST(0x{bytes} AS BINARY)") }
        }
        12 => format!("CAST({} AS YEAR)", 1901 + random.below(255)),
        13 => "b'1010101'".into(),
        14 => {
            format!("REPEAT({}, {})", text_literal(random.pick(TEXTS)), random.pick(&[1, 1, 3, 20, 130, 600]))
        }
        _ => text_literal(random.pick(TEXTS)),
    }
}

/// An expression for a document whose containers nest at most `depth` deep.
pub(crate) fn document(random: &mut Random, depth: usize) -> String {
    let count = if random.below(40) == 0 { 80 } else { random.below(6) };
    match random.below(if depth == 0 { 1 } else { 5 }) {
        0 => scalar(random),
        1 | 2 => {
            let elements: Vec<String> = (0..count).map(|_| document(random, depth - 1)).collect();
            format!("JSON_ARRAY({})", elements.join(", "))
        }
        _ => {
            let member = |random: &mut Random| {
                let name = text_literal(random.name());
                format!("{name}, {}", document(random, depth - 1))
            };
            let members: Vec<String> = (0..count).map(|_| member(random)).collect();
            format!("JSON_OBJECT({})", members.join(", "))
        }
    }
}

/// A document for a column: what is a scalar of SQL becomes one of JSON.
pub(crate) fn column_value(random: &mut Random) -> String {
    let depth = random.below(6);
    format!("JSON_EXTRACT(JSON_ARRAY({}), '$[0]')", document(random, depth))
}

/// A document to be changed in part, large enough for the server to think it worth while.
pub(crate) fn large_document(random: &mut Random) -> String {
    let mut members = String::from("'padding', REPEAT('x', 300)");
    for name in ["a", "b", "id", "a b", "é"] {
        members += &format!(", {}, {}", text_literal(name), document(random, 3));
    }
    format!("JSON_OBJECT({members})")
}

/// Documents that chance does not find: the large format, names of all lengths, the deepest nesting, what is rare.
pub(crate) fn special() -> Vec<String> {
    let nested = |depth: usize| format!("CAST(CONCAT(REPEAT('[', {depth}), REPEAT(']', {depth})) AS JSON)");
    let nested_objects = |depth: usize| {
        format!("CAST(CONCAT(REPEAT('{{\"a\":', {depth}), '1', REPEAT('}}', {depth})) AS JSON)")
    };
    let numbers = |count: usize, from: u64| {
        let texts: Vec<String> = (0..count as u64).map(|i| (from + i).to_string()).collect();
        format!("CAST('[{}]' AS JSON)", texts.join(","))
    };
    let members = |count: usize| {
        let texts: Vec<String> =
            (0..count).map(|i| format!("\"key{i}\":{}", i as i64 * 37_123 - 70_000)).collect();
        format!("CAST('{{{}}}' AS JSON)", texts.join(","))
    };
    vec![
        nested(1), nested(90), nested(100), nested_objects(90), nested_objects(100),
        numbers(15_000, 0), numbers(30_000, 60_000), numbers(20_000, 4_294_960_000), members(3_000), members(9_000),
        "JSON_ARRAY(REPEAT('x', 65535), 70000, -70000, 3000000000)".into(),
        "JSON_ARRAY(REPEAT('x', 2097151), 1)".into(),
        "JSON_ARRAY(REPEAT('x', 2097152), JSON_OBJECT('k', JSON_ARRAY(1, 2, JSON_OBJECT())))".into(),
        "JSON_OBJECT(REPEAT('k', 65535), 1, REPEAT('k', 65534), true)".into(),
        "JSON_OBJECT('', JSON_OBJECT('', JSON_OBJECT('', '')))".into(),
        "CAST(CAST('0001-01-01' AS DATE) AS JSON)".into(),
        "CAST(CAST('9999-12-31 23:59:59.999999' AS DATETIME(6)) AS JSON)".into(),
        "CAST(CAST('-838:59:59' AS TIME) AS JSON)".into(),
        "CAST(TIMESTAMP '2024-02-29 12:13:14.5' AS JSON)".into(),
        "CAST(CAST('-0.000000000000000000000000000001' AS DECIMAL(65,30)) AS JSON)".into(),
        "CAST(CAST('99999999999999999999999999999999999.999999999999999999999999999999' AS DECIMAL(65,30)) AS JSON)".into(),
        "JSON_ARRAY(CAST(REPEAT('9', 40) AS DECIMAL(65)) * CAST(REPEAT('9', 40) AS DECIMAL(65)))".into(),
        "CAST(CAST(0 AS DECIMAL(65,0)) AS JSON)".into(),
        "CAST(.5 AS JSON)".into(), "CAST(-.5 AS JSON)".into(), "CAST(100.00 AS JSON)".into(),
        "CAST(1/3 AS JSON)".into(), "CAST(CAST(7 AS DECIMAL(20,10)) / 3 AS JSON)".into(),
        "CAST(ST_GeomFromText('POINT(1 2.5)') AS JSON)".into(),
        "JSON_ARRAY(-0e0, 0e0, 1e15, 1e16, 123456789012345680, 1234567890123456.5, 1.5e-7, 1e-15, 1e-16, 1e100, 5e-324)".into(),
        "CAST('-0.0' AS JSON)".into(), "CAST('1.0' AS JSON)".into(), "CAST('[1E400]' AS JSON)".into(),
        "CAST('\"\\\\ud83e\\\\udd80\"' AS JSON)".into(), "CAST('\"\\\\ud800\"' AS JSON)".into(),
        "CAST('\"\\\\udc00 x\"' AS JSON)".into(), "CAST('\"\\\\u0000\\\\/\"' AS JSON)".into(),
        "CAST('{\"b\":1,\"a\":2,\"b\":3,\"aa\":4}' AS JSON)".into(),
    ]
}

/// A path into what [`document`] makes, as a statement would have it.
fn path(random: &mut Random) -> String {
    let mut path = String::from("$");
    for leg in 0..1 + random.below(4) {
        // Rarely at first, because it makes an array of an object, on which no name works any more.
        if random.below(if leg == 0 { 60 } else { 3 }) == 0 {
            match random.below(5) {
                0 => path += "[last]",
                1 => path += &format!("[last-{}]", random.below(5)),
                _ => path += &format!("[{}]", random.below(6)),
            }
        } else {
            let name = random.name();
            let mut quoted = String::new();
            for c in name.chars() {
                match c {
                    '"' | '\\' => quoted.extend(['\\', c]),
                    '\u{0}'..='\u{1f}' => quoted += &format!("\\u{:04x}", u32::from(c)),
                    _ => quoted.push(c),
                }
            }
            path += &format!(".\"{quoted}\"");
        }
    }
    text_literal(&path)
}

/// What an UPDATE sets the column `j` to: it can be logged as a partial update.
pub(crate) fn change(random: &mut Random) -> String {
    let mut expression = String::from("j");
    for _ in 0..1 + random.below(3) {
        let function = random.pick(&["JSON_SET", "JSON_SET", "JSON_REPLACE", "JSON_REMOVE"]);
        let mut arguments = vec![expression];
        for _ in 0..1 + random.below(3) {
            arguments.push(path(random));
            if function != "JSON_REMOVE" {
                let depth = random.below(3);
                arguments.push(document(random, depth));
            }
        }
        expression = format!("{function}({})", arguments.join(", "));
    }
    expression
}
