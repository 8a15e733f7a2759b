//! How the program ends when it does not end well, and the one place that prints.

use deltaforge_engine::config::Problem;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Why the program ends.
#[derive(Debug)]
pub(crate) enum Exit {
    /// Bad usage: code 2.
    Usage(Vec<String>),
    /// Documents that do not validate: code 2.
    Invalid(Vec<Problem>),
    /// A failure while running: code 1.
    Failed(String),
}

impl Exit {
    pub(crate) fn usage(message: impl Into<String>) -> Exit {
        Exit::Usage(vec![message.into()])
    }

    pub(crate) fn failed(message: impl Into<String>) -> Exit {
        Exit::Failed(message.into())
    }

    /// Says why, as sentences on stderr or as one JSON document on stdout, and gives the code.
    pub(crate) fn report(&self, json: bool) -> ExitCode {
        if json {
            print(&self.to_json().to_string());
        } else if let (Exit::Failed(message), true) = (self, tracing::dispatcher::has_been_set()) {
            // Whoever reads the log finds the reason in the log's own form.
            tracing::error!("{message}");
        } else {
            for line in self.lines() {
                complain(&line);
            }
        }
        match self {
            Exit::Usage(_) | Exit::Invalid(_) => ExitCode::from(2),
            Exit::Failed(_) => ExitCode::FAILURE,
        }
    }

    fn lines(&self) -> Vec<String> {
        match self {
            Exit::Usage(messages) => messages.iter().map(|message| format!("error: {message}")).collect(),
            Exit::Invalid(problems) => problems.iter().map(ToString::to_string).collect(),
            Exit::Failed(message) => vec![format!("error: {message}")],
        }
    }

    fn to_json(&self) -> Value {
        let plain = |message: &String| json!({"path": "", "line": null, "column": null, "message": message, "hint": null});
        let errors: Vec<Value> = match self {
            Exit::Usage(messages) => messages.iter().map(plain).collect(),
            Exit::Invalid(problems) => problems.iter().map(Problem::to_json).collect(),
            Exit::Failed(message) => return json!({"error": message}),
        };
        json!({"valid": false, "errors": errors})
    }
}

/// Prints an answer on stdout. A reader that went away is no trouble of ours.
pub(crate) fn print(text: &str) {
    use std::io::Write;
    let _closed = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints a complaint on stderr.
pub(crate) fn complain(text: &str) {
    use std::io::Write;
    let _closed = writeln!(std::io::stderr().lock(), "{text}");
}
