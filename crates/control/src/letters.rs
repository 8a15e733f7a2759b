//! `/pipelines/{name}/dlq`: events that could not be delivered. They are rows, so reading them is guarded as changing is.

use crate::answer::Problem;
use crate::types::{DlqJson, PurgedJson, RetriedJson};
use crate::{Api, body, query};
use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::Uri;
use deltaforge_core::config::nearest;
use deltaforge_core::dead_letter::{DeadLetterQuery, Which};
use serde_json::Value;

const LIMIT: usize = 50;
const MOST: usize = 1000;
/// Where a page ends, however many entries are asked for.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// `GET /pipelines/{name}/dlq`
pub(crate) async fn list(
    State(api): State<Api>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Json<DlqJson>, Problem> {
    let mut wanted =
        DeadLetterQuery { limit: LIMIT, shown_bytes: Some(MOST_BYTES), ..DeadLetterQuery::default() };
    for (key, value) in query::pairs(&uri)? {
        match key.as_str() {
            "limit" => match value.parse() {
                Ok(limit) if (1..=MOST).contains(&limit) => wanted.limit = limit,
                _ => return Err(Problem::request(format!("`limit` is a number from 1 to {MOST}"))),
            },
            "after" => wanted.after = number("after", &value)?,
            "sink" => wanted.sink = Some(value),
            _ => wanted.kind = Some(value),
        }
    }
    Ok(Json(api.supervisor.dead_letters(&name, &wanted).await?.into()))
}

/// `DELETE /pipelines/{name}/dlq`
pub(crate) async fn purge(
    State(api): State<Api>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Json<PurgedJson>, Problem> {
    let pairs = query::pairs(&uri)?;
    let all = query::flag(&pairs, "all")?;
    let mut ids = Vec::new();
    for (_, value) in pairs.iter().filter(|(key, _)| key == "ids") {
        for id in value.split(',') {
            ids.push(number("ids", id.trim())?);
        }
    }
    let which = which(all, ids, "`ids=42,43` or `all=true` is required, and only one of them")?;
    Ok(Json(PurgedJson { purged: api.supervisor.purge_dead_letters(&name, which).await? }))
}

/// `POST /pipelines/{name}/dlq/retry`
pub(crate) async fn retry(
    State(api): State<Api>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Json<RetriedJson>, Problem> {
    let which = asked(body::json(request).await?)?;
    Ok(Json(api.supervisor.retry_dead_letters(&name, which).await?.into()))
}

fn asked(body: Option<Value>) -> Result<Which, Problem> {
    const SHAPE: &str = "the body is `{\"ids\": [42]}` or `{\"all\": true}`";
    let wanted = || Problem::request(SHAPE).hint("GET …/dlq lists the ids");
    let Some(Value::Object(members)) = body else { return Err(wanted()) };
    if let Some(name) = members.keys().find(|name| !["ids", "all"].contains(&name.as_str())) {
        let problem = Problem::request("unknown member of the body");
        return Err(match nearest(name, ["ids", "all"]) {
            Some(near) => problem.hint(format!("did you mean `{near}`?")),
            None => problem.hint(SHAPE),
        });
    }
    let all = match members.get("all") {
        None => false,
        Some(all) => all.as_bool().ok_or_else(wanted)?,
    };
    let ids = match members.get("ids") {
        None => Vec::new(),
        Some(Value::Array(ids)) => {
            ids.iter().map(Value::as_u64).collect::<Option<Vec<_>>>().ok_or_else(wanted)?
        }
        Some(_) => return Err(wanted()),
    };
    which(all, ids, SHAPE)
}

fn which(all: bool, ids: Vec<u64>, shape: &str) -> Result<Which, Problem> {
    match (all, ids.is_empty()) {
        (true, true) => Ok(Which::All),
        (false, false) => Ok(Which::Ids(ids)),
        _ => Err(Problem::request(shape).hint("GET …/dlq lists the ids")),
    }
}

fn number(name: &str, value: &str) -> Result<u64, Problem> {
    value.parse().map_err(|_| Problem::request(format!("`{name}` is the id of an entry")))
}
