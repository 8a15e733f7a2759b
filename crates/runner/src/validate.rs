//! `deltaforge validate`: parses, expands and checks documents; touches neither network nor state.

use crate::cli::ValidateArgs;
use crate::exit::{Exit, complain, print};
use crate::{files, run};
use serde_json::json;

/// Everything wrong with the documents, or the names of their pipelines.
///
/// # Errors
/// No paths, or documents that do not validate.
pub(crate) fn validate(args: &ValidateArgs) -> Result<(), Exit> {
    let paths: Vec<_> = args.config.iter().chain(&args.paths).cloned().collect();
    if paths.is_empty() {
        return Err(Exit::usage("nothing to validate: name files or directories with --config"));
    }
    let texts = files::read(&paths).map_err(Exit::Invalid)?;
    let loader = run::loader(files::Surroundings::default(), run::DEFAULT_MEMORY);
    let loader = if args.allow_unset { loader.allow_unset() } else { loader };
    let loaded = loader.texts(&texts);
    if !loaded.errors.is_empty() {
        return Err(Exit::Invalid(loaded.errors));
    }
    if args.json {
        let warnings: Vec<_> =
            loaded.warnings.iter().map(deltaforge_engine::config::Problem::to_json).collect();
        let mut report = json!({"valid": true, "pipelines": loaded.names});
        if !warnings.is_empty() {
            report["warnings"] = warnings.into();
        }
        print(&report.to_string());
    } else {
        for warning in &loaded.warnings {
            complain(&format!("warning: {warning}"));
        }
        print(&format!("valid: {}", loaded.names.join(", ")));
    }
    Ok(())
}
