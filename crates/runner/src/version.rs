//! `deltaforge version`: what this binary is.

use serde_json::json;

/// The release.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit it was built from, when known.
pub(crate) const COMMIT: &str = env!("DELTAFORGE_COMMIT");
/// The day it was built.
pub(crate) const BUILD_DATE: &str = env!("DELTAFORGE_BUILD_DATE");
/// The machine it was built for.
pub(crate) const TARGET: &str = env!("DELTAFORGE_TARGET");

/// As text, or as one JSON document.
pub(crate) fn report(json: bool) -> String {
    let (sources, sinks) = crate::registry::names();
    if json {
        let report = json!({
            "version": VERSION, "commit": COMMIT, "build_date": BUILD_DATE, "target": TARGET,
            "sources": sources, "sinks": sinks,
        });
        return report.to_string();
    }
    format!(
        "deltaforge {VERSION}\ncommit: {COMMIT}\nbuilt: {BUILD_DATE}\ntarget: {TARGET}\nsources: {}\nsinks: {}",
        sources.join(", "),
        sinks.join(", ")
    )
}
