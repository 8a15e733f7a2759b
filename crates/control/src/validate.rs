//! `POST /validate`: a document as for create; changes nothing and connects to nothing.

use crate::answer::Problem;
use crate::types::{FindingJson, Valid};
use crate::{Api, pipelines};
use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};

/// `POST /validate`
pub(crate) async fn validate(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    let document = pipelines::document(request).await?;
    match api.supervisor.validate(&document) {
        Ok(read) => {
            let warnings = read.warnings.iter().map(FindingJson::of).collect();
            let valid = Valid {
                valid: true,
                pipeline: read.spec.name.clone(),
                source_type: read.spec.source_type.clone(),
                sink_count: read.spec.sinks.len(),
                warnings,
            };
            Ok(Json(valid).into_response())
        }
        Err(refusal) => Ok(invalid(&Problem::from(refusal))),
    }
}

/// `{"valid":false}` with the members of an error.
fn invalid(problem: &Problem) -> Response {
    let mut body = serde_json::Map::from_iter([("valid".to_string(), false.into())]);
    if let serde_json::Value::Object(members) = problem.to_json() {
        body.extend(members);
    }
    (problem.status(), Json(body)).into_response()
}
