//! Texts to trees, and the merge.

use super::super::{one_tree, yaml};
use super::*;
use deltaforge_core::config::Raw;

fn json(yaml: &str) -> String {
    one_tree(yaml).unwrap_or_else(|e| panic!("{yaml}: {e:?}")).to_json().to_string()
}

fn findings(yaml: &str) -> Vec<String> {
    yaml::parse(yaml).1.iter().map(ToString::to_string).collect()
}

#[test]
fn scalars_follow_the_core_schema() {
    let cases = [
        ("[no, yes, on, off, y, n]", r#"["no","yes","on","off","y","n"]"#),
        ("[true, True, FALSE, tRue]", r#"[true,true,false,"tRue"]"#),
        ("[~, null, Null, NULL, nULL]", r#"[null,null,null,null,"nULL"]"#),
        ("[0, -17, +3, 0o17, 0x1F, 1_000, 012]", r#"[0,-17,3,15,31,"1_000",12]"#),
        ("[1.5, .5, 1., 1e3, -1.2E-3]", "[1.5,0.5,1.0,1000.0,-0.0012]"),
        ("[1.2.3, 1-2, e3, ., '', 12:30, 2024-01-01]", r#"["1.2.3","1-2","e3",".","","12:30","2024-01-01"]"#),
        ("['1', \"true\", \"a\\tb\"]", r#"["1","true","a\tb"]"#),
        ("[!!str 5, !!int 7, !!float 1, ! 5]", r#"["5",7,1.0,"5"]"#),
        ("[infinity, nan, 99999999999999999999]", r#"["infinity","nan",1e+20]"#),
        ("{1: a, no: b, null: c}", r#"{"1":"a","no":"b","null":"c"}"#),
        ("a: |\n  x\n  y\nb: >-\n  x\n  y\n", r#"{"a":"x\ny\n","b":"x y"}"#),
        ("a: &x {b: 1}\nc: *x\nd: [*x]\n", r#"{"a":{"b":1},"c":{"b":1},"d":[{"b":1}]}"#),
        ("\u{feff}a: 1 # comment ${X}", r#"{"a":1}"#),
    ];
    for (yaml, expected) in cases {
        let shown = json(yaml);
        let same: serde_json::Value = serde_json::from_str(expected).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), same, "{yaml}: {shown}");
    }
    let Raw::Map(entries) = one_tree("a: 1\nbb: {c: 2}").unwrap().value else { panic!() };
    let span = entries[1].1.get("c").unwrap().span;
    assert_eq!((span.line, span.column), (2, 9));
}

#[test]
fn json_is_accepted_as_it_is() {
    let cases = [
        "{\"a\":\"\\ud83d\\ude00 \\\\ud83d\\/ \\u00e9\",\n\t\"b\":[1,\t2.5e3,true,null]\n}",
        "{\n\"metadata\":{\"name\":\"x\"}\n,\"spec\"\n:\n{}}",
        "{\"a\":\"multi: colon # no comment\",\"b\":\"*x &y !z %\"}",
        "{\"a\":\"no\",\"b\":\"\\\"q\\\"\"}",
    ];
    for text in cases {
        let direct: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json(text)).unwrap(), direct, "{text}");
    }
}

#[test]
fn documents_are_separated_and_empty_ones_skipped() {
    let (trees, findings) =
        yaml::parse("# nothing\n---\na: 1\n---\n---\n# comment\n---\nb: 2\n...\n---\n~\n");
    assert!(findings.is_empty(), "{findings:?}");
    assert_eq!(
        trees.iter().map(|tree| tree.to_json().to_string()).collect::<Vec<_>>(),
        [r#"{"a":1}"#, r#"{"b":2}"#]
    );
    assert!(yaml::parse("").0.is_empty() && yaml::parse("# only\n").0.is_empty());
    assert!(one_tree("a: 1\n---\nb: 2").is_err() && one_tree("").is_err());
}

#[test]
fn what_is_no_yaml_has_its_place() {
    let cases = [
        (
            "a: 1\nb: {x: 1, x: 2, x: 3}\n",
            "2:11: b.x: the key is there already, at 2:5\n  hint: remove one of the two",
        ),
        ("a: [1\nb: 2", "2:2: not YAML: "),
        ("a: b: c", "1:5: not YAML: mapping values are not allowed"),
        ("a:\n\tb: 1", "2:"),
        ("? [a]\n: 1", "1:3: expected a name, found a map or list as key"),
        ("a: *nowhere", "1:4: not YAML: "),
        ("a: &x [*x]", "1:8: a[0]: an alias of something"),
        ("a: !secret x", "1:4: a: the tag `!secret` is not known"),
        ("a: !!int x", "the value is not of its tag, `!!int`"),
        ("a: &x 1\n---\nb: *x", "not"),
        ("\"\\ud83d\\ude00\"", "not YAML"),
    ];
    for (text, expected) in cases {
        let found = findings(text);
        assert!(found.first().is_some_and(|f| f.contains(expected)), "{text}: {found:?}");
    }
    assert_eq!(findings("b: {x: 1, x: 2, x: 3}").len(), 2, "every further one is reported");
}

#[test]
fn hostile_texts_end_early() {
    let bomb = (1..30).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_string(), |text, i| {
        text + &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(","))
    });
    let found = findings(&bomb);
    assert!(found[0].contains("too many values") && found[0].contains("fewer aliases"), "{found:?}");
    let found = findings(&format!("a: &x {}\nb: [{}]", "y".repeat(1 << 20), vec!["*x"; 40].join(",")));
    assert!(found[0].contains("too many values"), "{found:?}");
    for deep in ["[".repeat(100_000), "{a: ".repeat(10_000), "- ".repeat(10_000)] {
        assert!(!findings(&deep).is_empty(), "{}", &deep[..8]);
    }
    let nested = (1..40)
        .fold("a0: &a0 [[x]]\n".to_string(), |text, i| text + &format!("a{i}: &a{i} [[*a{}]]\n", i - 1));
    assert!(findings(&nested)[0].contains("levels inside each other"), "{:?}", findings(&nested));
    let large = format!("a: {}", "x".repeat(MAX_BYTES));
    assert_eq!(findings(&large), ["expected at most 4 MiB, found 4194307 bytes"]);
}

#[test]
fn patches_merge_as_the_rfc_says() {
    let cases = [
        (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
        (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
        (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
        (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
        (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
        (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
        (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
        (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
        (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
        (r#"{"a":[1,2]}"#, r#"{"a":{"b":null,"c":1}}"#, r#"{"a":{"c":1}}"#),
        ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        (r#"{"a":1}"#, r#"{"a":[{"b":null}]}"#, r#"{"a":[{"b":null}]}"#),
    ];
    for (stored, patch, expected) in cases {
        let node = |text: &str| Node::from_json(&serde_json::from_str(text).unwrap());
        let merged = patched(&node(stored), &node(patch)).unwrap();
        assert_eq!(merged.to_json().to_string(), expected, "{stored} with {patch}");
    }
}
