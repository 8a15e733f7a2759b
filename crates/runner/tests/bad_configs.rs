//! Bad configurations and the whole text of their errors, as `deltaforge validate` prints it.
//!
//! The cases are in `bad_configs/*.txt`, as `### title`, the document, a line of `>>>`, and the errors. A case with several files
//! begins each of them with a line `=== name`. After a change of wording, `UPDATE_EXPECT=1 cargo test -p runner --test
//! bad_configs` writes what is printed now into the files: read the difference before you keep it.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Case {
    title: String,
    input: String,
    expected: String,
}

fn tables() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad_configs");
    let mut tables: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    tables.sort();
    tables
}

fn cases(table: &str) -> Vec<Case> {
    let sections = table.split("\n### ").skip(1);
    sections
        .map(|section| {
            let (title, rest) = section.split_once('\n').unwrap();
            let (input, expected) = rest.split_once("\n>>>\n").unwrap_or_else(|| panic!("{title}: no >>>"));
            Case { title: title.into(), input: format!("{input}\n"), expected: expected.trim_end().into() }
        })
        .collect()
}

/// The files of a case below `directory`, and the arguments that name them.
fn write_files(case: &Case, directory: &Path) -> Vec<String> {
    if !case.input.starts_with("=== ") {
        std::fs::write(directory.join("pipeline.yaml"), &case.input).unwrap();
        return vec!["pipeline.yaml".into()];
    }
    let files = case.input.split("=== ").skip(1);
    files
        .map(|file| {
            let (name, text) = file.split_once('\n').unwrap();
            std::fs::write(directory.join(name), text).unwrap();
            name.to_string()
        })
        .collect()
}

/// Exit code and standard error of `deltaforge validate`.
fn validate(directory: &Path, files: &[String]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deltaforge"));
    command.current_dir(directory).env_clear().arg("validate").args(files);
    command.envs([
        ("EMPTY", ""),
        ("NUMBER", "17"),
        ("WORD", "canary-of-the-environment"),
        ("PG_DSN", "postgres://u:canary@h/d"),
    ]);
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn every_bad_configuration_is_refused_with_its_text() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let (mut count, mut wrong) = (0, String::new());
    for table in tables() {
        let text = std::fs::read_to_string(&table).unwrap();
        let preamble = text.split("\n### ").next().unwrap();
        let mut updated = preamble.to_string();
        for case in cases(&text) {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join("secret"), "canary-of-a-file\n").unwrap();
            let files = write_files(&case, directory.path());
            let (code, found) = validate(directory.path(), &files);
            let found = found.trim_end();
            count += 1;
            write!(updated, "\n### {}\n{}>>>\n{found}\n", case.title, case.input).unwrap();
            if code != Some(2) || found != case.expected {
                writeln!(
                    wrong,
                    "## {} (exit {code:?})\n{found}\n-- expected\n{}\n",
                    case.title, case.expected
                )
                .unwrap();
            }
            // Passwords are part of some documents, and never of an error.
            assert!(!found.contains("canary"), "{}: {found}", case.title);
            assert!(!found.is_empty() && code == Some(2), "{}: accepted", case.title);
        }
        if update {
            std::fs::write(&table, updated).unwrap();
        }
    }
    assert!(update || wrong.is_empty(), "{wrong}");
    assert!(count >= 60, "{count} cases");
}

#[test]
fn errors_have_a_form_for_programs() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("p.yaml"), "metadata: {name: x}\nspec: {sources: {}}\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_deltaforge"));
    let output =
        command.current_dir(directory.path()).args(["validate", "--json", "p.yaml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["valid"], false);
    let last = report["errors"].as_array().unwrap().last().unwrap();
    let expected = serde_json::json!({
        "file": "p.yaml", "path": "spec.sources", "line": 2, "column": 8, "class": "unknown",
        "message": "unknown key", "hint": "did you mean `source`?",
    });
    assert_eq!(*last, expected);
}
