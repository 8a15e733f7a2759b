//! Data folders that are made once per version and machine, then copied: making one takes ten times as long.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use super::{binaries, process};

/// Copies the data folder of an empty server to `target`, which must not exist yet.
///
/// `make` fills an empty folder, which belongs to the servers' user, when there is none of this `name` and `version` yet.
pub(super) fn copy(
    name: &str,
    version: &str,
    target: &Path,
    make: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<(), String> {
    let templates = binaries::dev_dir()?.join("templates");
    let io = |error: std::io::Error| format!("{}: {error}", templates.display());
    fs::create_dir_all(&templates).map_err(io)?;
    // A package update may change what the folder holds: the exact version is part of the name.
    let exact: String =
        version.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    let name = format!("{name}-{}", exact.trim_matches('-'));
    let template = templates.join(&name);

    let gate = File::create(templates.join(format!("{name}.lock"))).map_err(io)?;
    gate.lock().map_err(io)?;
    if !template.is_dir() {
        let unfinished = templates.join(format!("{name}.new"));
        let _ = fs::remove_dir_all(&unfinished);
        fs::create_dir(&unfinished).map_err(io)?;
        process::give(&unfinished)?;
        make(&unfinished)?;
        fs::rename(&unfinished, &template).map_err(io)?;
    }
    drop(gate);
    process::run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(&template).arg(target))?;
    Ok(())
}
