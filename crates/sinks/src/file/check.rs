//! Looks at the target before anything is written. Reads only.

use super::config::Settings;
use deltaforge_core::config::{Report, Severity};
use std::path::Path;

/// Looks at a constant path; the files of a template are known only with the events.
pub(super) fn check(settings: &Settings) -> Report {
    let mut report = Report::default();
    if !settings.sync {
        let evidence = "sync is none: lines that a receipt counts may be lost when the machine crashes";
        report.add("sync", Severity::Warning, evidence, Some("set sync: batch".into()));
    }
    let Some(path) = settings.path.is_constant() else {
        report.add("path", Severity::Ok, "the files are named by the events", None);
        return report;
    };
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            report.add(
                "path",
                Severity::Error,
                format!("{path} is a directory"),
                Some("name a file in it".into()),
            );
        }
        Ok(found) if found.permissions().readonly() => {
            report.add(
                "path",
                Severity::Error,
                format!("{path} is read-only"),
                Some(format!("chmod u+w {path}")),
            );
        }
        Ok(_) => report.add("path", Severity::Ok, format!("{path} is appended to"), None),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let parent = Path::new(path).ancestors().skip(1).find(|p| p.exists()).unwrap_or(Path::new("."));
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            report.add("path", Severity::Ok, format!("{path} will be made below {}", parent.display()), None);
        }
        Err(e) => report.add("path", Severity::Error, format!("{path}: {e}"), None),
    }
    report
}
