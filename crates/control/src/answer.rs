//! Answers: JSON, and one shape for everything that goes wrong.

use crate::types::FindingJson;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use deltaforge_core::config::Finding;
use deltaforge_engine::supervisor::Refusal;
use serde::Serialize;

/// A refused request.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    error: String,
    hint: Option<String>,
    findings: Option<Vec<FindingJson>>,
}

#[derive(Serialize)]
struct Body<'a> {
    error: &'a str,
    code: &'static str,
    hint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<&'a [FindingJson]>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, error: impl Into<String>) -> Problem {
        Problem { status, code, error: error.into(), hint: None, findings: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.hint = Some(hint.into());
        self
    }

    /// A body or parameter that is not understood.
    pub(crate) fn request(error: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "INVALID_REQUEST", error)
    }

    /// A path that leads nowhere.
    pub(crate) fn no_route(path: &str) -> Problem {
        let shown: String = path.chars().take(200).collect();
        Problem::new(StatusCode::NOT_FOUND, "ROUTE_NOT_FOUND", format!("no route `{shown}`"))
    }

    /// Something unexpected; what it was is in the log, not in the answer.
    pub(crate) fn internal() -> Problem {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", "something unexpected happened")
            .hint("the log line with this answer's x-request-id tells what")
    }

    /// A document that does not validate.
    pub(crate) fn invalid(findings: &[Finding]) -> Problem {
        let (error, hint) = match findings.first() {
            Some(first) => (sentence(first, findings.len()), first.hint.clone()),
            None => ("the document does not validate".to_string(), None),
        };
        Problem {
            status: StatusCode::BAD_REQUEST,
            code: "INVALID_SPEC",
            error,
            hint,
            findings: Some(findings.iter().map(FindingJson::of).collect()),
        }
    }

    /// The members of the error object, to be put into another one.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let errors = self.findings.as_deref();
        let body = Body { error: &self.error, code: self.code, hint: self.hint.as_deref(), errors };
        serde_json::to_value(body).unwrap_or_default()
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }
}

fn sentence(first: &Finding, count: usize) -> String {
    let place = if first.path.is_empty() { String::new() } else { format!("{}: ", first.path) };
    match count {
        1 => format!("{place}{}", first.message),
        _ => format!("{place}{} (and {} more)", first.message, count - 1),
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        match refusal {
            Refusal::InvalidSpec(findings) => Problem::invalid(&findings),
            Refusal::NameMismatch { asked, found } => {
                let error = format!("the patch names the pipeline `{found}`, the path `{asked}`");
                Problem::new(StatusCode::BAD_REQUEST, "PIPELINE_NAME_MISMATCH", error)
                    .hint("leave metadata.name out; a pipeline cannot be renamed")
            }
            Refusal::StartFailed(trouble) => {
                let error =
                    format!("{} cannot start: {}: {}", trouble.component, trouble.code, trouble.message);
                let problem = Problem::new(StatusCode::BAD_REQUEST, "START_FAILED", error);
                Problem { hint: trouble.hint, ..problem }
            }
            Refusal::PipelineNotFound(name) => {
                let error = format!("no pipeline `{name}`");
                Problem::new(StatusCode::NOT_FOUND, "PIPELINE_NOT_FOUND", error)
                    .hint("GET /pipelines lists them")
            }
            Refusal::CheckpointNotFound(error) => {
                Problem::new(StatusCode::NOT_FOUND, "CHECKPOINT_NOT_FOUND", error)
            }
            Refusal::AlreadyExists(name) => {
                let error = format!("the pipeline `{name}` exists");
                let hint = format!("PATCH /pipelines/{name} changes it");
                Problem::new(StatusCode::CONFLICT, "PIPELINE_ALREADY_EXISTS", error).hint(hint)
            }
            Refusal::Conflict { message, hint } => {
                Problem::new(StatusCode::CONFLICT, "STATE_CONFLICT", message).hint(hint)
            }
            Refusal::NotSupported { message, hint } => {
                Problem::new(StatusCode::CONFLICT, "NOT_SUPPORTED", message).hint(hint)
            }
            Refusal::Store(fault) => {
                let error = format!("the state store does not answer: {}", fault.message());
                let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "STORE_UNAVAILABLE", error);
                Problem { hint: fault.hint_text().map(Into::into), ..problem }
            }
            Refusal::Internal(reason) => {
                tracing::error!(reason, "unexpected");
                Problem::internal()
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.to_json())).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
