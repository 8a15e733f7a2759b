//! `/checkpoints`: how far pipelines have come, and going back.

use crate::answer::Problem;
use crate::types::{CheckpointJson, VersionJson};
use crate::{Api, body};
use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use deltaforge_core::config::nearest;
use serde_json::Value;

/// `GET /checkpoints`
pub(crate) async fn list(State(api): State<Api>) -> Result<Json<Vec<CheckpointJson>>, Problem> {
    let all = api.supervisor.checkpoints().await?;
    Ok(Json(all.into_iter().map(CheckpointJson::from).collect()))
}

/// `GET /checkpoints/{pipeline}`
pub(crate) async fn get(
    State(api): State<Api>,
    Path(pipeline): Path<String>,
) -> Result<Json<CheckpointJson>, Problem> {
    Ok(Json(api.supervisor.checkpoint(&pipeline).await?.into()))
}

/// `GET /checkpoints/{pipeline}/versions`
pub(crate) async fn versions(
    State(api): State<Api>,
    Path(pipeline): Path<String>,
) -> Result<Json<Vec<VersionJson>>, Problem> {
    let versions = api.supervisor.checkpoint_versions(&pipeline).await?;
    Ok(Json(versions.into_iter().map(VersionJson::from).collect()))
}

/// `POST /checkpoints/{pipeline}/rollback`
pub(crate) async fn rollback(
    State(api): State<Api>,
    Path(pipeline): Path<String>,
    request: Request,
) -> Result<Json<CheckpointJson>, Problem> {
    let version = version(body::json(request).await?)?;
    Ok(Json(api.supervisor.rollback_checkpoint(&pipeline, version).await?.into()))
}

fn version(body: Option<Value>) -> Result<u64, Problem> {
    let wanted =
        || Problem::request("the body is `{\"version\": N}`").hint("GET …/versions lists the versions");
    let Some(Value::Object(members)) = body else { return Err(wanted()) };
    if let Some(name) = members.keys().find(|name| *name != "version") {
        let problem = Problem::request("unknown member of the body");
        return Err(match nearest(name, ["version"]) {
            Some(near) => problem.hint(format!("did you mean `{near}`?")),
            None => problem.hint("the only one is `version`"),
        });
    }
    members.get("version").and_then(Value::as_u64).ok_or_else(wanted)
}

/// `DELETE /checkpoints/{pipeline}`
pub(crate) async fn delete(
    State(api): State<Api>,
    Path(pipeline): Path<String>,
) -> Result<StatusCode, Problem> {
    api.supervisor.delete_checkpoint(&pipeline).await?;
    Ok(StatusCode::NO_CONTENT)
}
