//! What the supervisor answers: a pipeline as it is, a checkpoint as it is stored, or why it refuses.

use crate::status::{Status, Trouble};
use deltaforge_core::checkpoint::Checkpoint;
use deltaforge_core::config::Finding;
use deltaforge_core::{Fault, Position};

/// Where a pipeline's document came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file named on the command line.
    File,
    /// The API, now or before a restart.
    Api,
    /// The variables of the environment-only mode.
    Env,
}

impl Origin {
    /// The word in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::File => "file",
            Origin::Api => "api",
            Origin::Env => "env",
        }
    }
}

/// A pipeline as it is now.
#[derive(Clone, Debug)]
pub struct PipeInfo {
    /// `metadata.name`.
    pub name: String,
    /// Its condition.
    pub status: Status,
    /// The document: defaults filled in, references to variables as written, secrets masked.
    pub document: serde_json::Value,
    /// Where the document came from.
    pub origin: Origin,
    /// Whether this document survives a restart.
    pub persisted: bool,
    /// `metadata.labels`.
    pub labels: Vec<(String, String)>,
}

/// A checkpoint with what only its store knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointInfo {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Its size as stored.
    pub size_bytes: u64,
    /// Its number, in a store that keeps versions.
    pub version: Option<u64>,
}

impl CheckpointInfo {
    /// The position it holds.
    pub fn position(&self) -> &Position {
        &self.checkpoint.position
    }
}

/// Why a request is refused. Unless a variant says otherwise, nothing was changed.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// The document does not validate.
    InvalidSpec(Vec<Finding>),
    /// A patch names another pipeline.
    NameMismatch {
        /// The pipeline that was asked for.
        asked: String,
        /// The name in the patch.
        found: String,
    },
    /// The document validates but cannot start; the old pipeline, if any, runs on.
    StartFailed(Box<Trouble>),
    /// No such pipeline.
    PipelineNotFound(String),
    /// No checkpoint, or no such version of it.
    CheckpointNotFound(String),
    /// The name is in use.
    AlreadyExists(String),
    /// Not possible in the present status.
    Conflict {
        /// What is in the way.
        message: String,
        /// What to do first.
        hint: String,
    },
    /// The store or the source cannot do it.
    NotSupported {
        /// What it cannot do.
        message: String,
        /// What can.
        hint: String,
    },
    /// The state store does not answer.
    Store(Fault),
    /// This program is wrong.
    Internal(String),
}

impl Refusal {
    pub(crate) fn conflict(message: impl Into<String>, hint: impl Into<String>) -> Refusal {
        Refusal::Conflict { message: message.into(), hint: hint.into() }
    }

    /// The reason in one sentence, for logs and for the status of a pipeline.
    pub fn summary(&self) -> String {
        match self {
            Refusal::InvalidSpec(findings) => match findings.first() {
                Some(first) if first.path.is_empty() => first.message.clone(),
                Some(first) => format!("{}: {}", first.path, first.message),
                None => "the document does not validate".into(),
            },
            Refusal::NameMismatch { asked, found } => {
                format!("asked for `{asked}`, the document names `{found}`")
            }
            Refusal::StartFailed(trouble) => format!("{}: {}", trouble.code, trouble.message),
            Refusal::PipelineNotFound(name) => format!("no pipeline `{name}`"),
            Refusal::AlreadyExists(name) => format!("the pipeline `{name}` exists"),
            Refusal::CheckpointNotFound(reason) | Refusal::Internal(reason) => reason.clone(),
            Refusal::Conflict { message, .. } | Refusal::NotSupported { message, .. } => message.clone(),
            Refusal::Store(fault) => fault.to_string(),
        }
    }
}
