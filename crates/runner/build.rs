//! Tells the binary its commit, build date and target. All three may be set from outside for a reproducible build:
//! `DELTAFORGE_COMMIT`, `SOURCE_DATE_EPOCH`.

use std::path::Path;
use std::process::Command;

fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_string();
    (output.status.success() && !text.is_empty()).then_some(text)
}

#[allow(clippy::print_stdout, reason = "this is how a build script answers cargo")]
fn main() {
    let commit = std::env::var("DELTAFORGE_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = commit.or_else(|| output("git", &["rev-parse", "--short=12", "HEAD"]));
    let date = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(epoch) => output("date", &["-u", "-d", &format!("@{epoch}"), "+%Y-%m-%d"]),
        Err(_) => output("date", &["-u", "+%Y-%m-%d"]),
    };
    let unknown = || "unknown".to_string();
    println!("cargo::rustc-env=DELTAFORGE_COMMIT={}", commit.unwrap_or_else(unknown));
    println!("cargo::rustc-env=DELTAFORGE_BUILD_DATE={}", date.unwrap_or_else(unknown));
    println!("cargo::rustc-env=DELTAFORGE_TARGET={}", std::env::var("TARGET").unwrap_or_else(|_| unknown()));
    println!("cargo::rerun-if-env-changed=DELTAFORGE_COMMIT");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rerun-if-changed=build.rs");
    // Each commit appends to this log. Cargo would build anew every time if it were named and missing.
    if Path::new("../../.git/logs/HEAD").exists() {
        println!("cargo::rerun-if-changed=../../.git/logs/HEAD");
    }
}
