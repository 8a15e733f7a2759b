//! Logins, sessions, dumps and checks on real servers of both flavours.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in a test, a panic with a clear message is how a failure is reported"
)]

mod check;
mod dump;
mod login;

use super::config::{self, Settings};
use super::connection::Connection;
use deltaforge_core::config::{Fields, Findings, Node, Report};
use deltaforge_core::source::Names;
use deltaforge_core::{Class, Fault};
use deltaforge_testkit::servers::{Flavour, Mysqld, MysqldOptions};
use serde_json::{Value as Json, json};

fn start(flavour: Flavour, options: &MysqldOptions) -> Mysqld {
    Mysqld::start(flavour, options).unwrap_or_else(|e| panic!("{e}"))
}

fn with_tls() -> MysqldOptions {
    MysqldOptions { tls: true, ..MysqldOptions::default() }
}

fn with_args(args: &[&str]) -> MysqldOptions {
    MysqldOptions { args: args.iter().map(ToString::to_string).collect(), ..MysqldOptions::default() }
}

fn settings(config: Json) -> Settings {
    let node = Node::from_json(&config);
    let mut findings = Findings::default();
    let names = Names { pipeline: "p", default_id: "p-mysql" };
    let settings = config::parse(&mut Fields::new(&node, "", &mut findings), &names);
    assert!(findings.errors.is_empty(), "{:?}", findings.errors);
    settings.unwrap()
}

fn open(dsn: &str) -> Result<Connection, Fault> {
    Connection::open(&settings(json!({"dsn": dsn})).target)
}

#[track_caller]
fn refused(result: Result<Connection, Fault>, class: Class, code: &str) -> Fault {
    let fault = result.err().unwrap_or_else(|| panic!("a login that should fail with {code}"));
    assert_eq!((fault.class(), fault.code()), (class, code), "{fault}");
    fault
}

fn create_table(server: &Mysqld) {
    server.sql("", "CREATE DATABASE a; CREATE TABLE a.t (id INT PRIMARY KEY AUTO_INCREMENT)");
}

/// The finding of a name that is not `Ok`, with its remedy.
#[track_caller]
fn find(report: &Report, name: &str) -> String {
    let found = report.problems().find(|check| check.name == name);
    let found = found.unwrap_or_else(|| panic!("no finding `{name}`: {report:#?}"));
    format!("{} => {}", found.evidence, found.remedy.as_deref().unwrap_or_default())
}

/// Transactions with a row each.
fn rows(server: &Mysqld, count: usize) {
    for _ in 0..count {
        server.sql("a", "INSERT INTO t VALUES (NULL)");
    }
}
