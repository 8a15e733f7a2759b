//! Query parameters. One that a route does not know refuses the request: ignored, it would be an answer to another question.

use crate::answer::Problem;
use crate::routes::is_planned;
use axum::extract::{MatchedPath, Query, Request};
use axum::http::{Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use deltaforge_core::config::nearest;

/// The parameters of each route that has any.
fn known(method: &Method, route: &str) -> &'static [&'static str] {
    match (method.as_str(), route) {
        ("GET" | "HEAD", "/pipelines") => &["label", "status"],
        ("GET" | "HEAD", "/pipelines/{name}/dlq") => &["limit", "after", "sink", "kind"],
        ("DELETE", "/pipelines/{name}/dlq") => &["ids", "all"],
        ("DELETE", "/pipelines/{name}") => &["keep_state", "drop_slot"],
        _ => &[],
    }
}

/// Refuses parameters that the route does not know.
pub(crate) async fn refuse_unknown(route: Option<MatchedPath>, request: Request, next: Next) -> Response {
    // A path that leads nowhere is told so, whatever it asks for.
    let Some(route) = route.filter(|route| !is_planned(route.as_str())) else {
        return next.run(request).await;
    };
    let known = known(request.method(), route.as_str());
    match pairs(request.uri()) {
        Err(problem) => problem.into_response(),
        Ok(pairs) => match pairs.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            None => next.run(request).await,
            Some((name, _)) => unknown(name, known).into_response(),
        },
    }
}

/// The parameters, in the order written.
pub(crate) fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, Problem> {
    let query = Query::<Vec<(String, String)>>::try_from_uri(uri);
    query.map(|Query(pairs)| pairs).map_err(|e| Problem::request(format!("the query cannot be read: {e}")))
}

fn unknown(name: &str, known: &[&'static str]) -> Problem {
    let shown: String = name.chars().take(100).collect();
    let problem = Problem::request(format!("unknown query parameter `{shown}`"));
    match nearest(name, known.iter().copied()) {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None if known.is_empty() => problem.hint("this route takes no query parameters"),
        None => problem.hint(format!("known parameters: {}", known.join(", "))),
    }
}

/// A parameter that is `true` or `false`; the name alone means `true`.
pub(crate) fn flag(pairs: &[(String, String)], name: &str) -> Result<bool, Problem> {
    match pairs.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str()) {
        None | Some("false") => Ok(false),
        Some("true" | "") => Ok(true),
        Some(_) => Err(Problem::request(format!("`{name}` is `true` or `false`"))),
    }
}
