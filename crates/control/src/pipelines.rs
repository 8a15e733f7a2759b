//! `/pipelines`: create, read, change, delete; pause, resume, stop.

use crate::answer::Problem;
use crate::types::Pipe;
use crate::{Api, body, query};
use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, Uri};
use deltaforge_core::config::{Node, Raw, nearest};
use deltaforge_engine::config::one_tree;
use deltaforge_engine::status::State as PipeState;
use deltaforge_engine::supervisor::{Delete, Filter, Refusal};
use serde::de::IgnoredAny;

type Answer = Result<Json<Pipe>, Problem>;

/// `GET /pipelines`
pub(crate) async fn list(State(api): State<Api>, uri: Uri) -> Result<Json<Vec<Pipe>>, Problem> {
    let filter = filter(&query::pairs(&uri)?)?;
    Ok(Json(api.supervisor.list(&filter).into_iter().map(Pipe::from).collect()))
}

fn filter(pairs: &[(String, String)]) -> Result<Filter, Problem> {
    let mut filter = Filter::default();
    for (name, value) in pairs {
        if name == "label" {
            let label =
                value.split_once('=').ok_or_else(|| Problem::request("`label` has the form `key=value`"))?;
            filter.labels.push((label.0.into(), label.1.into()));
        } else {
            filter.state = Some(state(value)?);
        }
    }
    Ok(filter)
}

fn state(word: &str) -> Result<PipeState, Problem> {
    let all = [PipeState::Running, PipeState::Paused, PipeState::Stopped, PipeState::Failed];
    let found = all.into_iter().find(|state| state.as_str() == word);
    found.ok_or_else(|| {
        let words = all.map(PipeState::as_str);
        let hint = match nearest(word, words) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("one of {}", words.join(", ")),
        };
        Problem::request("`status` is no status of a pipeline").hint(hint)
    })
}

/// `POST /pipelines`
pub(crate) async fn create(State(api): State<Api>, request: Request) -> Answer {
    let document = document(request).await?;
    Ok(Json(api.supervisor.create(document).await?.into()))
}

/// `GET /pipelines/{name}`
pub(crate) async fn get(State(api): State<Api>, Path(name): Path<String>) -> Answer {
    Ok(Json(api.supervisor.get(&name)?.into()))
}

/// `PATCH /pipelines/{name}`
pub(crate) async fn patch(State(api): State<Api>, Path(name): Path<String>, request: Request) -> Answer {
    // Before the body is looked at: a client with a wrong name wants to hear that.
    api.supervisor.get(&name)?;
    let patch = document(request).await?;
    Ok(Json(api.supervisor.patch(&name, patch).await?.into()))
}

/// `DELETE /pipelines/{name}`
pub(crate) async fn delete(
    State(api): State<Api>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<StatusCode, Problem> {
    let pairs = query::pairs(&uri)?;
    let how = Delete {
        keep_state: query::flag(&pairs, "keep_state")?,
        drop_slot: query::flag(&pairs, "drop_slot")?,
    };
    api.supervisor.delete(&name, how).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /pipelines/{name}/pause`
pub(crate) async fn pause(State(api): State<Api>, Path(name): Path<String>) -> Answer {
    Ok(Json(api.supervisor.pause(&name).await?.into()))
}

/// `POST /pipelines/{name}/resume`
pub(crate) async fn resume(State(api): State<Api>, Path(name): Path<String>) -> Answer {
    Ok(Json(api.supervisor.resume(&name).await?.into()))
}

/// `POST /pipelines/{name}/stop`
pub(crate) async fn stop(State(api): State<Api>, Path(name): Path<String>) -> Answer {
    Ok(Json(api.supervisor.stop(&name).await?.into()))
}

/// Reads a document, or a part of one, as it was written.
pub(crate) async fn document(request: Request) -> Result<Node, Problem> {
    let body::Text { form, text } = body::read(request).await?;
    if text.trim().is_empty() {
        return Err(Problem::request("the body is empty").hint("send a pipeline document as JSON or YAML"));
    }
    if form == body::Form::Json {
        // The reader of documents takes YAML, of which JSON is a part: YAML that is called JSON is a mistake of the sender.
        serde_json::from_str::<IgnoredAny>(&text).map_err(|e| {
            Problem::request(format!("the body is not JSON: {e}"))
                .hint("for YAML send content-type: application/yaml")
        })?;
    }
    let document = one_tree(&text).map_err(|findings| match findings.first() {
        // A finding with a path is one in a document that could be read, such as a key that is written twice.
        Some(finding) if finding.path.is_empty() => {
            let problem = Problem::request(format!(
                "the body cannot be read: {}",
                Refusal::InvalidSpec(findings.clone()).summary()
            ));
            match finding.span.line {
                0 => problem,
                line => problem.hint(format!("line {line}, column {}", finding.span.column)),
            }
        }
        _ => Problem::invalid(&findings),
    })?;
    match document.value {
        Raw::Map(_) => Ok(document),
        _ => {
            Err(Problem::request("the body is not an object")
                .hint("send a pipeline document, or a part of one"))
        }
    }
}
