//! The stdout sink. Standard output belongs to the process, so each case runs in one of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod common;

use common::*;
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

fn child(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored", "--nocapture"]);
    command
}

#[test]
fn pretty() {
    let output = child("pretty_child").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let json = &text[text.find('{').unwrap()..=text.rfind('}').unwrap()];
    let events: Vec<serde_json::Value> =
        serde_json::Deserializer::from_str(json).into_iter().collect::<Result<_, _>>().unwrap();
    assert_eq!(ids(&events), [0, 1, 2]);
    assert!(json.contains("\n  \"after\": {\n    \"id\": 0,\n"), "{json}");
}

#[tokio::test]
#[ignore = "run by the test `pretty`"]
async fn pretty_child() {
    let mut sink = open(&plan("stdout", json!({ "pretty": true }))).await;
    deliver(sink.as_mut(), batch(0..3, 1)).await.unwrap();
    sink.close().await;
}

/// The reader of the pipe has gone: trying again would go on for ever.
#[test]
fn a_closed_pipe() {
    let mut child = child("closed_child").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains('{')), "a first event");
    drop(lines);
    // The child's own runner cannot report any more; its error output tells.
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("Config stdout.closed"), "{text}");
}

#[tokio::test]
#[ignore = "run by the test `a_closed_pipe`"]
async fn closed_child() {
    let mut sink = open(&plan("stdout", json!({}))).await;
    loop {
        if let Err(fault) = deliver(sink.as_mut(), batch(0..100, 1000)).await {
            eprintln!("{fault:?}");
            return;
        }
    }
}
