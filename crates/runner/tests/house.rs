//! The rules of the house that no compiler knows: which crate may use which, what the documentation has to name, what must not
//! stand in a file.
//!
//! They look at the sources as text. Comments and tests are taken out first where a rule is about the program only.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in a test, a panic with a clear message is how a failure is reported"
)]

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().and_then(Path::parent).unwrap().into()
}

/// All files of the repository, as `.gitignore` leaves them.
fn files() -> Vec<PathBuf> {
    fn walk(directory: &Path, ignored: &dyn Fn(&Path) -> bool, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if ignored(&path) || path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                walk(&path, ignored, found);
            } else {
                found.push(path);
            }
        }
    }
    let root = root();
    let list = std::fs::read_to_string(root.join(".gitignore")).unwrap();
    let ignored = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is = |line: &str| match (line.strip_prefix('/'), line.strip_prefix('*')) {
            (Some(below_root), _) => path == root.join(below_root),
            (_, Some(ending)) => name.ends_with(ending),
            _ => name == line.trim_end_matches('/'),
        };
        name == ".git" || list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).any(is)
    };
    let mut found = Vec::new();
    walk(&root, &ignored, &mut found);
    found.sort();
    assert!(found.len() > 100, "only {} files below {}", found.len(), root.display());
    found
}

/// A path as it is written in messages: from the root, with `/`.
fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().replace('\\', "/")
}

/// A file's text; what is not UTF-8 in it does not matter to any rule.
fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()
}

/// The Rust files of the program's crates: their path from the root, and their code without comments and tests.
fn program() -> Vec<(String, String)> {
    let is_test = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or_default();
        path.contains("/src/bin/bench/")
            || path.contains("/tests/")
            || name == "tests.rs"
            || name.ends_with("_tests.rs")
    };
    let found = files().into_iter().map(|path| (shown(&path), path)).filter(|(path, _)| {
        path.starts_with("crates/") && path.contains("/src/") && path.ends_with(".rs") && !is_test(path)
    });
    found.map(|(path, file)| (path, without_tests(&without_comments(&read(&file))))).collect()
}

/// Rust code with a blank in the place of each comment; texts stay as they are.
fn without_comments(code: &str) -> String {
    let bytes = code.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let rest = &code.as_bytes()[at..];
        let length = match byte {
            b'/' if rest.starts_with(b"//") => {
                at += rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
                continue;
            }
            b'/' if rest.starts_with(b"/*") => {
                at += block_comment(rest);
                out.push(b' ');
                continue;
            }
            b'"' => text(rest),
            b'r' if raw_text(rest).is_some()
                && !out.last().is_some_and(|b: &u8| is_word(*b) && *b != b'b') =>
            {
                raw_text(rest).unwrap_or(1)
            }
            b'\'' => character(rest),
            _ => 1,
        };
        out.extend_from_slice(&rest[..length.min(rest.len())]);
        at += length;
    }
    String::from_utf8(out).unwrap()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn block_comment(code: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < code.len() {
        match &code[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Bytes of the text in quotes that the code begins with.
fn text(code: &[u8]) -> usize {
    let mut at = 1;
    while at < code.len() && code[at] != b'"' {
        at += if code[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// Bytes of the raw text (`r"…"`, `r#"…"#`) that the code begins with.
fn raw_text(code: &[u8]) -> Option<usize> {
    let hashes = code[1..].iter().take_while(|b| **b == b'#').count();
    if code.get(1 + hashes) != Some(&b'"') {
        return None;
    }
    let end = [&b"\""[..], &b"#".repeat(hashes)].concat();
    let begin = 2 + hashes;
    code[begin..].windows(end.len()).position(|w| w == end).map(|at| begin + at + end.len())
}

/// Bytes of the character that the code begins with; 1 for a lifetime.
fn character(code: &[u8]) -> usize {
    match code {
        [_, b'\\', _, rest @ ..] => 4 + rest.iter().position(|b| *b == b'\'').unwrap_or(0),
        [_, first, ..] => {
            let width = match first {
                0xF0.. => 4,
                0xE0.. => 3,
                0xC0.. => 2,
                _ => 1,
            };
            if code.get(1 + width) == Some(&b'\'') { 2 + width } else { 1 }
        }
        _ => 1,
    }
}

/// Code without its `#[cfg(test)] mod …`, which ends with a brace as far in as it began.
fn without_tests(code: &str) -> String {
    let mut out = String::new();
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            out.push_str(line);
            out.push('\n');
            continue;
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        let item = lines.by_ref().find(|line| !line.trim().starts_with("#["));
        if item.is_some_and(|item| item.trim_end().ends_with('{')) {
            lines.by_ref().find(|line| *line == format!("{indent}}}"));
        }
    }
    out
}

/// The contents of the plain texts in code.
fn texts(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < code.len() {
        let rest = &code.as_bytes()[at..];
        let length = match rest[0] {
            b'"' => text(rest),
            b'r' if at == 0 || !is_word(code.as_bytes()[at - 1]) => raw_text(rest).unwrap_or(1),
            b'\'' => character(rest),
            _ => 1,
        };
        if rest[0] == b'"' {
            found.push((at, code.get(at + 1..at + length - 1).unwrap_or_default()));
        }
        at += length;
    }
    found
}

/// Fails with all findings at once.
fn none(what: &str, findings: impl IntoIterator<Item = String>) {
    let findings: Vec<String> = findings.into_iter().collect();
    assert!(findings.is_empty(), "{what}:\n  {}\n", findings.join("\n  "));
}

// --- which crate may use which -----------------------------------------------------------------------------------------

/// What each crate may be built on: the code map's directions. A crate that is not here has no place yet.
const MAY_USE: [(&str, &[&str]); 10] = [
    ("deltaforge-core", &[]),
    ("deltaforge-encode", &["deltaforge-core"]),
    ("deltaforge-net", &["deltaforge-core"]),
    ("deltaforge-sources", &["deltaforge-core", "deltaforge-net"]),
    ("deltaforge-sinks", &["deltaforge-core", "deltaforge-encode", "deltaforge-net"]),
    ("deltaforge-state", &["deltaforge-core"]),
    ("deltaforge-engine", &["deltaforge-core"]),
    ("deltaforge-control", &["deltaforge-core", "deltaforge-engine"]),
    (
        "runner",
        &[
            "deltaforge-control",
            "deltaforge-core",
            "deltaforge-engine",
            "deltaforge-net",
            "deltaforge-sinks",
            "deltaforge-sources",
            "deltaforge-state",
        ],
    ),
    ("deltaforge-testkit", &["deltaforge-core", "deltaforge-engine", "deltaforge-state"]),
];

/// Dependencies in the wrong direction. What only tests use is free.
fn wrong_directions(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().unwrap();
    let ours: BTreeSet<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let Some((_, may_use)) = MAY_USE.iter().find(|(of, _)| *of == name) else {
            wrong.push(format!("`{name}` has no place in the code map"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let used = dependency["name"].as_str().unwrap();
            if dependency["kind"] != "dev" && ours.contains(used) && !may_use.contains(&used) {
                wrong.push(format!("`{name}` depends on `{used}`"));
            }
        }
    }
    wrong
}

#[test]
fn crates_depend_in_one_direction() {
    let cargo = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(cargo.status.success(), "{}", String::from_utf8_lossy(&cargo.stderr));
    none("against the code map", wrong_directions(&serde_json::from_slice(&cargo.stdout).unwrap()));
}

#[test]
fn a_wrong_direction_is_seen() {
    let metadata = serde_json::json!({"packages": [
        {"name": "deltaforge-engine", "dependencies": [
            {"name": "deltaforge-sources", "kind": null},
            {"name": "deltaforge-testkit", "kind": "dev"},
            {"name": "deltaforge-core", "kind": null}]},
        {"name": "deltaforge-core", "dependencies": [{"name": "deltaforge-engine", "kind": "build"}]},
        {"name": "deltaforge-sources", "dependencies": [{"name": "serde", "kind": null}]},
        {"name": "deltaforge-testkit", "dependencies": []},
        {"name": "deltaforge-new", "dependencies": []}]});
    assert_eq!(
        wrong_directions(&metadata),
        [
            "`deltaforge-engine` depends on `deltaforge-sources`",
            "`deltaforge-core` depends on `deltaforge-engine`",
            "`deltaforge-new` has no place in the code map",
        ]
    );
}

// --- what may stand in the program -------------------------------------------------------------------------------------

/// Words of connectors. The contracts must do without them: a new connector changes nothing in `core` and `engine`.
const CONNECTORS: [&str; 3] = ["postgres", "redis", "mysql"];

#[test]
fn core_and_engine_know_no_connector() {
    let mut found = Vec::new();
    for (path, code) in program() {
        if !path.starts_with("crates/core/") && !path.starts_with("crates/engine/") {
            continue;
        }
        for line in code.lines() {
            let lower = line.to_lowercase();
            if CONNECTORS.iter().any(|word| lower.contains(word)) {
                found.push(format!("{path}: {}", line.trim()));
            }
        }
    }
    none("a connector's name in `core` or `engine`", found);
}

/// Places of the program, outside the crates named, where any of these stands.
fn uses(patterns: &[&str], except: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, code) in program() {
        if except.iter().any(|prefix| path.starts_with(prefix)) {
            continue;
        }
        let lines = code.lines().filter(|line| patterns.iter().any(|pattern| has_word(line, pattern)));
        found.extend(lines.map(|line| format!("{path}: {}", line.trim())));
    }
    found
}

/// Whether a pattern stands in a line, not as the end of a longer word.
fn has_word(line: &str, pattern: &str) -> bool {
    line.match_indices(pattern).any(|(at, _)| at == 0 || !is_word(line.as_bytes()[at - 1]))
}

#[test]
fn only_the_runner_reads_the_environment() {
    // Tests and the benchmark steer servers by variables.
    let found = uses(&["env::", "std::env"], &["crates/runner/", "crates/testkit/"]);
    none("the environment is read outside `runner`: hand the value down", found);
}

#[test]
fn only_the_clock_reads_the_time() {
    let found = uses(&["SystemTime::now", "UNIX_EPOCH.elapsed"], &["crates/core/src/clock.rs"]);
    none("the wall clock is read outside `core::clock`, so no test can steer it", found);
}

// --- fault codes -------------------------------------------------------------------------------------------------------

/// Whether a text looks like a code: two words with a point between them.
fn prefix_of_code(text: &str) -> Option<&str> {
    let (prefix, name) = text.split_once('.')?;
    let is_name = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    (is_name(prefix) && is_name(name)).then_some(prefix)
}

/// Every fault code of the program, with a file that has it.
fn codes() -> BTreeMap<String, String> {
    let program: Vec<_> =
        program().into_iter().filter(|(path, _)| !path.starts_with("crates/testkit/")).collect();
    let mut prefixes = BTreeSet::new();
    for (_, code) in &program {
        for (at, text) in texts(code) {
            let before = code[..at].trim_end();
            let made = ["Fault::retry(", "Fault::config(", "Fault::lost(", "Fault::bug("]
                .iter()
                .any(|c| before.ends_with(c));
            let by_class = before.strip_suffix(',').and_then(|b| b.rsplit_once("Fault::new("));
            let made = made
                || by_class.is_some_and(|(_, class)| class.trim().bytes().all(|b| is_word(b) || b == b':'));
            prefixes.extend(prefix_of_code(text).filter(|_| made));
        }
    }
    assert!(prefixes.len() >= 8, "the places where faults are made are no longer found: {prefixes:?}");
    let mut codes = BTreeMap::new();
    for (path, code) in &program {
        // Some are in tables and constants, so any text with a known first word counts.
        let found = texts(code).into_iter().map(|(_, text)| text);
        let found = found.filter(|text| prefix_of_code(text).is_some_and(|prefix| prefixes.contains(prefix)));
        codes.extend(found.map(|text| (text.to_owned(), path.clone())));
    }
    codes
}

#[test]
fn every_fault_code_is_explained() {
    let page = read(&root().join("docs/src/guide/faults.md"));
    let codes = codes();
    let mut explained = BTreeSet::new();
    let mut wrong = Vec::new();
    for line in page.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let code = cells[0].strip_prefix('`').and_then(|c| c.strip_suffix('`'));
        let Some(code) = code.filter(|code| line.starts_with('|') && prefix_of_code(code).is_some()) else {
            continue;
        };
        if cells.len() != 4 || cells.iter().any(|cell| cell.is_empty()) {
            wrong.push(format!("{code}: its row needs the meaning, what is done, and what to do"));
        }
        if !explained.insert(code) {
            wrong.push(format!("{code}: is explained twice"));
        }
        if !codes.contains_key(code) {
            wrong.push(format!("{code}: no code of the program"));
        }
    }
    let missing = codes.iter().filter(|(code, _)| !explained.contains(code.as_str()));
    wrong.extend(missing.map(|(code, path)| format!("{code} of {path}: is not explained")));
    none("docs/src/guide/faults.md and the program do not agree", wrong);
}

// --- documentation -----------------------------------------------------------------------------------------------------

/// Text outside blocks and pieces of code.
fn prose(page: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            let pieces = line.split('`').step_by(2);
            out.push_str(&pieces.collect::<Vec<_>>().join("_"));
            out.push('\n');
        }
    }
    out
}

/// The targets of links in a page.
fn links(page: &str) -> Vec<String> {
    let prose = prose(page);
    let targets = prose.match_indices("](").filter_map(|(at, _)| prose[at + 2..].split_once(')'));
    targets.map(|(target, _)| target.trim().to_owned()).collect()
}

/// The anchors of a page's headings, as mdBook and GitHub make them.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut inside = false;
    let mut found = BTreeSet::new();
    for line in page.lines() {
        inside ^= line.trim_start().starts_with("```");
        let title = line.trim_start_matches('#');
        if !inside && title.len() < line.len() && title.starts_with(' ') {
            let kept = title.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            found.insert(kept.collect::<String>().to_lowercase().replace(' ', "-"));
        }
    }
    found
}

/// A path without its `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(out.pop()),
            Component::CurDir => {}
            part => out.push(part),
        }
    }
    out
}

#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    for path in files().into_iter().filter(|path| path.extension().is_some_and(|e| e == "md")) {
        let page = read(&path);
        for link in links(&page) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target =
                if file.is_empty() { path.clone() } else { plain(&path.parent().unwrap().join(file)) };
            if !target.exists() {
                broken.push(format!("{}: {link}", shown(&path)));
            } else if !anchor.is_empty() && !anchors(&read(&target)).contains(anchor) {
                broken.push(format!("{}: {link}: no such heading", shown(&path)));
            }
        }
    }
    none("links that lead nowhere", broken);
}

#[test]
fn the_summary_and_the_pages_agree() {
    let book = root().join("docs/src");
    let listed: BTreeSet<PathBuf> =
        links(&read(&book.join("SUMMARY.md"))).iter().map(|link| plain(&book.join(link))).collect();
    let pages: BTreeSet<PathBuf> = files()
        .into_iter()
        .filter(|path| path.starts_with(&book) && path.extension().is_some_and(|e| e == "md"))
        .collect();
    let missing = listed.difference(&pages).map(|path| format!("{} is not there", shown(path)));
    let unlisted = pages.difference(&listed).filter(|path| !path.ends_with("SUMMARY.md"));
    none("docs/src/SUMMARY.md", missing.chain(unlisted.map(|path| format!("{} is not in it", shown(path)))));
}

// --- every file --------------------------------------------------------------------------------------------------------

/// Folders of a machine that somebody works on. Written in pieces, so that this file does not name them either.
const OF_A_MACHINE: [&str; 2] = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];
/// What stands for code that is not written.
const UNFINISHED: [&str; 2] = [concat!("to", "do!("), concat!("unimple", "mented!(")];

#[test]
fn files_name_no_machine_and_leave_nothing_unfinished() {
    let mut found = Vec::new();
    for path in files() {
        for (number, line) in read(&path).lines().enumerate() {
            let starts = |(at, _): (usize, &str)| {
                // In `a/b` and `$A/b` the slash is in the middle of a path.
                !line[..at]
                    .ends_with(|c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '}' | ')'))
            };
            let names = |folder: &&str| line.match_indices(*folder).any(starts);
            let unfinished =
                |word: &&str| has_word(line, word) && path.extension().is_some_and(|e| e == "rs");
            if OF_A_MACHINE.iter().any(names) || UNFINISHED.iter().any(unfinished) {
                found.push(format!("{}:{}: {}", shown(&path), number + 1, line.trim()));
            }
        }
    }
    none("a path of somebody's machine, or unfinished code", found);
}

// --- the reading itself ------------------------------------------------------------------------------------------------

#[test]
fn code_is_read_without_comments_and_tests() {
    let code = "a // x\n\"// \\\" kept\" /* y /* y */ y */ 'b' '\\'' '\"' // x\nr#\"// \"kept\"#; &'a \"c\"\n\
                #[cfg(test)]\nmod tests {\n    x\n}\n#[cfg(test)]\nmod more;\nd";
    let expected = "a \n\"// \\\" kept\"   'b' '\\'' '\"' \nr#\"// \"kept\"#; &'a \"c\"\nd\n";
    let read = without_tests(&without_comments(code));
    assert_eq!(read, expected);
    assert_eq!(texts(&read).into_iter().map(|(_, text)| text).collect::<Vec<_>>(), ["// \\\" kept", "c"]);
}
