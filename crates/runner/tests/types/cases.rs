//! Every type of the event specification with its edges.
//!
//! A case is a value as SQL; what is expected of it is computed by the server that stores it. An oracle is an SQL expression
//! over the column `v` (and the row's number `n`) that gives the JSON text of the value. Where the server has JSON of its own
//! that follows the same rules, that is the oracle; elsewhere the rule is spelled out in SQL over the server's own text.

/// Values of one type.
pub(crate) struct Type {
    /// As in `CREATE TABLE`.
    pub(crate) name: &'static str,
    /// SQL for the JSON text of `v`.
    pub(crate) oracle: &'static str,
    /// SQL for each value.
    pub(crate) values: &'static [&'static str],
    /// First PostgreSQL release that takes these values.
    pub(crate) since: u32,
    /// The oracle holds for any `v`, so arrays and composites are made of the values as well.
    pub(crate) nests: bool,
    /// Numbers are compared as numbers, digit by digit: `1e+300`, `1e300`.
    pub(crate) float: bool,
}

const fn of(name: &'static str, oracle: &'static str, values: &'static [&'static str]) -> Type {
    Type { name, oracle, values, since: 0, nests: true, float: false }
}

const fn float(name: &'static str, values: &'static [&'static str]) -> Type {
    Type { float: true, ..of(name, JSON, values) }
}

/// Compared with what is written here: nothing in the server has this form. The oracle picks it by `n`.
const fn by_hand(name: &'static str, expected: &'static str, values: &'static [&'static str]) -> Type {
    Type { nests: false, ..of(name, expected, values) }
}

const fn since(since: u32, of: Type) -> Type {
    Type { since, ..of }
}

/// The server's own JSON: numbers, quoted texts, arrays, composites.
const JSON: &str = "to_json(v)::text";
/// The cast to text, as a number.
const DIGITS: &str = "v::text";
/// The cast to text, as a string.
const STRING: &str = "to_json(v::text)::text";
const BASE64: &str = r#"'{"_base64":"' || translate(encode(v, 'base64'), E'\n', '') || '"}'"#;
/// JSON without white space, from [`SETUP`].
const COMPACT: &str = "public.compact(v)";
const HSTORE: &str = "public.compact(public.hstore_to_json(v))";
const DATE: &str = "'\"' || case when isfinite(v) then public.iso_date(v) else v::text end || '\"'";
const TIMESTAMP: &str = "'\"' || case when isfinite(v) then public.iso_moment(v) else v::text end || '\"'";
/// The session that asks is in UTC.
const TIMESTAMPTZ: &str =
    "'\"' || case when isfinite(v) then public.iso_moment(v::timestamp) || 'Z' else v::text end || '\"'";
const TIMETZ: &str = r#"'"' || regexp_replace(v::text, '([+-]\d\d)$', '\1:00') || '"'"#;

/// What the types need, run once per database.
pub(crate) const SETUP: &str = r#"
create extension citext;
create extension hstore;
create extension ltree;
create extension cube;
create extension seg;
create extension isn;

create function public.compact(j json) returns text language plpgsql as $$
begin
  return case json_typeof(j)
    when 'object' then '{' || coalesce((select string_agg(to_json(k)::text || ':' || public.compact(e), ',' order by i)
                                        from json_each(j) with ordinality x(k, e, i)), '') || '}'
    when 'array' then '[' || coalesce((select string_agg(public.compact(e), ',' order by i)
                                       from json_array_elements(j) with ordinality x(e, i)), '') || ']'
    else btrim(j::text, E' \n\r\t') end;
end $$;
create function public.compact(j jsonb) returns text language sql as $$ select public.compact(j::json) $$;

create function public.iso_year(y int) returns text language sql as $$
  -- The server counts ..., 2 BC = -2, 1 BC = -1, AD 1 = 1, ...
  select case when y > 9999 then '+' || y when y > 0 then lpad(y::text, 4, '0')
    when y = -1 then '0000' else '-' || lpad((-y - 1)::text, 4, '0') end
$$;
create function public.iso_date(v date) returns text language sql as $$
  select public.iso_year(extract(year from v)::int) || '-' || lpad(extract(month from v)::text, 2, '0')
    || '-' || lpad(extract(day from v)::text, 2, '0')
$$;
create function public.iso_moment(v timestamp) returns text language sql as $$
  select public.iso_year(extract(year from v)::int) || to_char(v, '-MM-DD"T"HH24:MI:SS') || rtrim(rtrim(to_char(v, '.US'), '0'), '.')
$$;

create schema other;
create type mood as enum ('ok', 'so so', 'a,b', 'q"q', 'b\s', '{x}', 'null', 'grüße 🙂');
create type other.mood as enum ('other', 'mood');
create domain positive as int check (value > 0);
create domain nested_domain as positive;
create domain short as varchar(5);
create domain ints as int[];
create domain feeling as mood;
create type pair as (a int, b text);
create type deep as (p pair, many pair[], m mood, "odd "" name" text, j jsonb, empty int[]);
create type alone as (x text);
create domain pair_domain as pair;
create type float_range as range (subtype = float8);
create type text_range as range (subtype = text);
"#;

/// What the session that asks the oracles sets: the settings that the specification's texts are written under.
pub(crate) const PINNED: &str = "set datestyle = 'ISO, YMD'; set intervalstyle = 'iso_8601'; set timezone = 'UTC';
set bytea_output = 'hex'; set extra_float_digits = 3; set client_encoding = 'UTF8'; set search_path = pg_catalog;
set quote_all_identifiers = off; set xmlbinary = 'base64'; set jit = off;\n";

pub(crate) const TYPES: &[Type] = &[
    of("boolean", JSON, &["true", "false"]),
    of("smallint", JSON, &["'-32768'", "32767", "0", "-1"]),
    of("integer", JSON, &["'-2147483648'", "2147483647", "0"]),
    of(
        "bigint",
        JSON,
        &["'-9223372036854775808'", "9223372036854775807", "9007199254740993", "-9007199254740993", "0"],
    ),
    of("oid", DIGITS, &["0", "4294967295", "2147483648"]),
    float(
        "real",
        &[
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "'1e-45'",
            "0.1",
            "'3.4028235e38'",
            "'1.17549435e-38'",
            "0",
            "'-0'",
            "16777216",
            "1/3.0",
            "1e10",
            "3",
            "'-2.5e-7'",
            "123456.7",
        ],
    ),
    float(
        "double precision",
        &[
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "'5e-324'",
            "'1.7976931348623157e308'",
            "0.1",
            "'1e300'",
            "'-0'",
            "0",
            "'2.2250738585072014e-308'",
            "9007199254740993",
            "1e21",
            "1e22",
            "1e15",
            "1e16",
            "1e17",
            "1e-5",
            "1e-4",
            "0.1::float8 + 0.2::float8",
            "123456789.123456789",
            "3",
            "-1.5",
        ],
    ),
    of(
        "numeric",
        STRING,
        &[
            "1.50",
            "0",
            "0.00",
            "-0.5",
            "'NaN'",
            "'1e-16383'",
            "'9007199254740993.000000000000000001'",
            "'1e1000'",
            "repeat('9', 131072)::numeric",
            "('-0.' || repeat('9', 16383))::numeric",
            "100000000000000000000000000000",
        ],
    ),
    since(14, of("numeric", STRING, &["'Infinity'", "'-Infinity'"])),
    of("numeric(10,2)", STRING, &["1.5", "-99999999.99", "'NaN'", "0"]),
    since(15, of("numeric(3,-2)", STRING, &["12345", "99900", "-49"])),
    since(15, of("numeric(3,5)", STRING, &["0.00123", "-0.00999"])),
    of("money", STRING, &["1234.5", "'-92233720368547758.08'", "'92233720368547758.07'", "0", "-0.01"]),
    of(
        "text",
        JSON,
        &[
            "''",
            "'plain'",
            r#"'"quoted" \ back/slash'"#,
            "(select string_agg(chr(i), '') from generate_series(1, 160) i)",
            "'🙂 👩‍👩‍👧 e' || chr(769)",
            "'a' || chr(8232) || 'b' || chr(8233) || chr(65535) || chr(65279) || chr(1114111)",
            "'NULL'",
            "'null'",
            "'{}'",
            r"'\N'",
            r"'\\x41'",
            "E'line\nline\r\n\ttab'",
            "repeat('long ', 100000)",
            "' '",
            "'\u{202e}right to left'",
        ],
    ),
    of("varchar", JSON, &["''", "'x'"]),
    of("varchar(5)", JSON, &["'abcde'", "'grüße'", "' a '"]),
    of("char(5)", JSON, &["'ab'", "''", "'grüße'", "'  x'"]),
    of("bpchar", JSON, &["'ab  '", "''"]),
    of("char", JSON, &["'x'", "''", "'\"'"]),
    of("\"char\"", JSON, &["'x'", "''", r"'\'"]),
    of("name", JSON, &["'a name'", "repeat('n', 63)", "'\"q\"'"]),
    of("citext", JSON, &["'Case Kept'", "''", "'NULL'"]),
    of(
        "json",
        COMPACT,
        &[
            r#"'{"b": 1, "a": 2, "b": 3}'"#,
            "'1e400'",
            "'-0.0'",
            "'1.00'",
            r#"'  [ 1 , { "x" : [ ] } , "a b" ]  '"#,
            r#"E' {\n\t"deep" : [ [ [ 1.10 , null , true , false ] ] ] }\n'"#,
            r#"'"\u00e9 \ud83d\ude42 \" \\ \/ \b"'"#,
            "'null'",
            "'{}'",
            "'[]'",
            "'\"\"'",
            "'\"grüße 🙂\"'",
            "'123456789012345678901234567890.5'",
            "('\"' || repeat('x', 50000) || '\"')::json",
            "(repeat('[', 500) || repeat(']', 500))::json",
        ],
    ),
    by_hand(
        "json",
        r#"(array['"\ud800"', '{"\u0061\"k":"\u0000"}', '" \" : , "', '[1E5,1e+05,-1.0e-0]', '"\\\\"', '"\\\""'])[n]"#,
        &[
            r#"'"\ud800"'"#,
            r#"'{ "\u0061\"k" : "\u0000" }'"#,
            r#"'" \" : , "'"#,
            "'[1E5, 1e+05, -1.0e-0]'",
            r#"'"\\\\"'"#,
            r#"'"\\\""'"#,
        ],
    ),
    of(
        "jsonb",
        COMPACT,
        &[
            r#"'{"b": 1, "a": 2, "b": 3}'"#,
            "'1e400'",
            "'1.00'",
            "'-0'",
            r#"'[1, {"x": []}, "a b", "\u00e9\n"]'"#,
            "'null'",
            "'{}'",
            "'\"\"'",
            r#"'{"k : \" , 1": {"": [" "]}}'"#,
            "to_jsonb(repeat('long ', 30000))",
        ],
    ),
    of(
        "bytea",
        BASE64,
        &[
            "''",
            r"'\x00'",
            r"'\xff'",
            r"'\x0102'",
            r"'\x010203'",
            r"'\x01020304'",
            r"'\x5c22'",
            "(select string_agg(decode(lpad(to_hex(i), 2, '0'), 'hex'), '' order by i) from generate_series(0, 255) i)",
            "decode(repeat('00ff10', 30000), 'hex')",
        ],
    ),
    of(
        "uuid",
        JSON,
        &[
            "'00000000-0000-0000-0000-000000000000'",
            "'FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF'",
            "'{a0eebc999c0b4ef8bb6d6bb9bd380a11}'",
        ],
    ),
    of(
        "date",
        DATE,
        &[
            "'2025-01-15'",
            "'4713-11-24 BC'",
            "'0001-12-31 BC'",
            "'0044-03-15 BC'",
            "'0001-01-01'",
            "'0999-12-31'",
            "'9999-12-31'",
            "'10000-01-01'",
            "'5874897-12-31'",
            "'1969-12-31'",
            "'2000-02-29'",
            "'1900-02-28'",
            "'0005-02-28 BC'",
            "'0005-02-29 BC'",
            "'infinity'",
            "'-infinity'",
        ],
    ),
    of(
        "time",
        JSON,
        &["'00:00:00'", "'24:00:00'", "'23:59:59.999999'", "'14:32:01.5'", "'00:00:00.000001'", "'09:00'"],
    ),
    of("time(0)", JSON, &["'14:32:01.5'"]),
    of("time(3)", JSON, &["'14:32:01.5678'"]),
    of(
        "timetz",
        TIMETZ,
        &[
            "'14:32:01+02'",
            "'14:32:01.5-03:30'",
            "'00:00:00+15:59:59'",
            "'24:00:00-15:59:59'",
            "'23:59:59.999999+00'",
            "'12:00:00+05:45'",
            "'12:00:00-00:00:30'",
        ],
    ),
    of("timetz(2)", TIMETZ, &["'14:32:01.567+01'"]),
    of(
        "timestamp",
        TIMESTAMP,
        &[
            "'2025-01-15 14:32:01.847'",
            "'4713-11-24 00:00:00 BC'",
            "'294276-12-31 23:59:59.999999'",
            "'infinity'",
            "'-infinity'",
            "'1969-12-31 23:59:59.999999'",
            "'1970-01-01'",
            "'0001-01-01 00:00:00 BC'",
            "'0044-03-15 12:30:00.5 BC'",
            "'0001-01-01 00:00:00'",
            "'9999-12-31 23:59:59'",
            "'10000-01-01 00:00:00'",
            "'2025-01-15 00:00:00.000001'",
            "'2025-01-15 00:00:00.1'",
            "'2016-12-31 23:59:60'",
        ],
    ),
    of("timestamp(0)", TIMESTAMP, &["'2025-01-15 14:32:01.847'"]),
    of("timestamp(3)", TIMESTAMP, &["'2025-01-15 14:32:01.8405'"]),
    of(
        "timestamptz",
        TIMESTAMPTZ,
        &[
            "'2025-01-15 14:32:01.847+01'",
            "'4713-11-24 00:00:00+00 BC'",
            "'294276-12-31 23:59:59.999999+00'",
            "'infinity'",
            "'-infinity'",
            "'1969-12-31 23:59:59.999999+00'",
            "'1890-01-01 00:00:00+00:00:30'",
            "'0001-12-31 23:59:59.5+00 BC'",
            "'10000-01-01 00:00:00+14'",
            "'2025-07-01 00:00:00-03:30'",
        ],
    ),
    of("timestamptz(3)", TIMESTAMPTZ, &["'2025-01-15 14:32:01.8405+01'"]),
    of(
        "interval",
        JSON,
        &[
            "'0'",
            "'1 year 2 mons 3 days 04:05:06.78'",
            "'-1 year -2 mons +3 days -04:05:06.5'",
            "'-0.000001 second'",
            "'178956970 years 7 mons'",
            "'-178956970 years -8 mons'",
            "'2147483647 days'",
            "'-2147483648 days'",
            "'2562047788:00:54.775807'",
            "'-2562047788:00:54.775807'",
            "'1 mon -1 day'",
            "'-1 mon 1 day -00:00:00.5'",
            "'14 mons'",
            "'-14 mons'",
            "'12 mons'",
            "'00:00:59.999999'",
            "'25:00:00'",
            "'-1 day 23:59:59.9'",
            "'100 days'",
        ],
    ),
    // The server writes them as words, not as durations.
    since(17, of("interval", JSON, &["'infinity'", "'-infinity'"])),
    of("interval year", JSON, &["'3 years'"]),
    of("interval day to second(3)", JSON, &["'1 day 02:03:04.5678'"]),
    by_hand(
        "integer[]",
        "(array['[]', '[1,null,-3]', '[[1,2],[3,4]]', '[[[1],[2]],[[3],[4]]]', '[7,8]', '[[1,2]]', '[null]'])[n]",
        &[
            "'{}'",
            "'{1,NULL,-3}'",
            "'{{1,2},{3,4}}'",
            "'{{{1},{2}},{{3},{4}}}'",
            "'[-2:-1]={7,8}'",
            "'[0:0][5:6]={{1,2}}'",
            "'{NULL}'",
        ],
    ),
    by_hand(
        "text[]",
        r#"(array['["t","1",null,"null","NULL"]', '["","a,b","{x}","\"q\"","\\","  "]', '[["a",null],["b","c"]]', '["="]'])[n]"#,
        &[
            r#"'{t,1,NULL,"null","NULL"}'"#,
            r#"array['', 'a,b', '{x}', '"q"', '\', '  ']"#,
            "'{{a,NULL},{b,c}}'",
            "'[3:3]={=}'",
        ],
    ),
    of("mood", JSON, &["'ok'", "'so so'", "'a,b'", "'q\"q'", r"'b\s'", "'{x}'", "'null'", "'grüße 🙂'"]),
    of("other.mood", JSON, &["'other'", "'mood'"]),
    of("positive", JSON, &["1", "2147483647"]),
    of("nested_domain", JSON, &["7"]),
    of("short", JSON, &["'abcde'", "''"]),
    of("feeling", JSON, &["'ok'", "'a,b'"]),
    by_hand("ints", "to_json(v::int[])::text", &["'{1,2}'", "'{}'", "'{NULL}'"]),
    by_hand("ints[]", "'[[1,2],[],null]'", &[r#"'{"{1,2}","{}",NULL}'"#]),
    of(
        "pair",
        JSON,
        &["row(1, 'x')", "row(null, null)", "row(null, '')", r#"row(-1, 'q"q, (b\s) ''x')"#, "row(1, ' ')"],
    ),
    of("pair_domain", JSON, &["row(1, 'x')", "row(null, null)"]),
    of("alone", JSON, &["row('x')", "row(null)", "row('')"]),
    of(
        "deep",
        r#"'{"p":' || coalesce(to_json((v).p)::text, 'null') || ',"many":' || coalesce(to_json((v).many)::text, 'null')
           || ',"m":' || coalesce(to_json((v).m)::text, 'null') || ',"odd \" name":' || coalesce(to_json((v)."odd "" name")::text, 'null')
           || ',"j":' || coalesce(public.compact((v).j), 'null') || ',"empty":' || coalesce(to_json((v).empty)::text, 'null') || '}'"#,
        &[
            r#"row(row(1, 'a"b\'), array[row(2, '{,}')::pair, null, row(null, null)::pair], 'q"q', '"', '{"a": [1, "\""]}', '{}')"#,
            "row(null, null, null, null, null, null)",
            "row(row(null, null), '{}', 'ok', '', 'null', '{1,NULL}')",
        ],
    ),
    of(
        "hstore",
        HSTORE,
        &["''", r#"'a=>1, "b c"=>NULL, "q\"q"=>"\\", "NULL"=>"NULL", "e"=>""'"#, "'\"grüße\"=>\"🙂 => ,\"'"],
    ),
    of("int4range", JSON, &["'[1,10)'", "'empty'", "'(,)'", "'[5,)'", "'(,5]'"]),
    of("int8range", JSON, &["'[1,9223372036854775807)'"]),
    of("numrange", JSON, &["'[1.50,2.50]'", "'(-1,NaN]'"]),
    of("daterange", JSON, &["'[2025-01-15,2025-02-01)'", "'[-infinity,infinity]'"]),
    of("tsrange", JSON, &["'[2025-01-15 14:32:01.5,2025-02-01)'"]),
    of("tstzrange", JSON, &["'[2025-01-15 14:32:01.5+05:45,infinity)'", "'(,2025-01-15 00:00:00-03]'"]),
    of("float_range", JSON, &["'[0.1,1e300)'"]),
    of("text_range", JSON, &[r#"text_range('a,b', 'q"q', '[]')"#, "text_range('', null)"]),
    since(14, of("int4multirange", JSON, &["'{}'", "'{[1,3),[5,8)}'"])),
    since(14, of("tstzmultirange", JSON, &["'{[2025-01-15 14:32:01+01,2025-01-16 00:00:00+01)}'"])),
    of("point", JSON, &["'(1,2)'", "'(NaN,Infinity)'", "'(-1e300,0.1)'"]),
    of("line", JSON, &["'{1,2,3}'"]),
    of("lseg", JSON, &["'[(0,0),(1,1)]'"]),
    of("box", JSON, &["'(1,1),(0,0)'", "'(0.1,0.2),(-3,-4)'"]),
    of("path", JSON, &["'[(0,0),(1,1),(2,0)]'", "'((0,0),(1,1),(2,0))'"]),
    of("polygon", JSON, &["'((0,0),(1,1),(2,0))'"]),
    of("circle", JSON, &["'<(1,2),3>'"]),
    of("inet", JSON, &["'10.0.0.1'", "'10.0.0.1/8'", "'::1'", "'2001:db8::ff00:42:8329/64'"]),
    of("cidr", JSON, &["'10.0.0.0/8'", "'::/0'", "'10.1.2.3/32'"]),
    of("macaddr", JSON, &["'08-00-2B-01-02-03'"]),
    of("macaddr8", JSON, &["'08:00:2b:01:02:03:04:05'"]),
    of("bit(1)", JSON, &["'1'", "'0'"]),
    of("bit(8)", JSON, &["'00000001'"]),
    of("varbit", JSON, &["'0101'", "''"]),
    of("xml", JSON, &["'<a b=\"c\">grüße &amp; </a>'", "'text'", "'<?xml version=\"1.0\"?><a/>'"]),
    of("tsvector", JSON, &["'a fat cat:3A,5 ''it''''s'''", "''"]),
    of("tsquery", JSON, &["'fat & (rat | !cat:ab)'"]),
    of("ltree", JSON, &["'Top.Science.Astronomy'", "''"]),
    of("lquery", JSON, &["'Top.*{1,2}.a|b'"]),
    of("pg_lsn", JSON, &["'16/B374D848'", "'0/0'", "'FFFFFFFF/FFFFFFFF'"]),
    by_hand("int2vector", STRING, &["'1 2 3'", "''"]),
    by_hand("int2vector[]", r#"'["1 2","3"]'"#, &[r#"'{"1 2",3}'"#]),
    by_hand("oidvector", STRING, &["'1 4294967295'"]),
    of("cube", JSON, &["'(1,2),(3,4)'"]),
    of("seg", JSON, &["'1.0 .. 2.0'", "'~6.5'"]),
    of("isbn13", JSON, &["'978-0-393-04002-9'"]),
    of("jsonpath", JSON, &["'$.a[*] ? (@ > 1)'"]),
    of("regclass", JSON, &["'pg_class'::regclass", "'public.g0'::regclass"]),
    of("regtype", JSON, &["'integer'::regtype", "'public.mood'::regtype"]),
    of("tid", JSON, &["'(0,1)'"]),
    of("xid", JSON, &["'4294967295'"]),
    of("xid8", JSON, &["'18446744073709551615'"]),
    of("pg_snapshot", JSON, &["'10:20:10,14,15'"]),
];
