//! The settings of the file sink. No I/O.

use crate::shared::common::{Common, required_template};
use deltaforge_core::config::Fields;
use deltaforge_core::source::Names;
use deltaforge_encode::template::Template;

/// A parsed `config`.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) common: Common,
    pub(super) path: Template,
    /// Sync before the receipt.
    pub(super) sync: bool,
    pub(super) rotation: Rotation,
}

/// When a file is put aside; 0: never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rotation {
    /// A file grows no larger than this, unless by one event.
    pub(super) max_bytes: u64,
    /// A file takes nothing more once it is this old.
    pub(super) max_age_secs: u64,
}

impl Settings {
    /// Reads `config`; `None` when a finding leaves nothing to go on with.
    pub(super) fn parse(
        fields: &mut Fields<'_>,
        names: &Names<'_>,
        required: Option<bool>,
    ) -> Option<Settings> {
        let common = Common::parse(fields, names, required);
        let path = required_template(fields, "path");
        if let Some(text) = path.as_ref().and_then(Template::is_constant) {
            check_path(fields, text);
        }
        let sync = fields.choice("sync", &["batch", "none"], &[], "batch") == "batch";
        if !fields.has("rotate") {
            fields.default("rotate.max_bytes", 0);
            fields.default("rotate.max_age_secs", 0);
        }
        let rotation = fields.map("rotate", |f| Rotation {
            max_bytes: f.size("max_bytes", 0, 0..=u64::MAX),
            max_age_secs: f.int("max_age_secs", 0, 0..=i64::MAX) as u64,
        });
        Some(Settings { common, path: path?, sync, rotation: rotation.unwrap_or_default() })
    }
}

fn check_path(fields: &mut Fields<'_>, path: &str) {
    if path.contains('\0') {
        fields.form("path", "a path holds no NUL character", None);
    } else if path.ends_with('/') {
        fields.form(
            "path",
            "expected a file, found a directory (the path ends in `/`)",
            Some("add a file name".into()),
        );
    }
}
