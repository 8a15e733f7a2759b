//! The table of routes.

use crate::answer::Problem;
use crate::{Api, access, checkpoints, health, letters, pipelines, query, validate, watch};
use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{any, get, post};

/// Routes of the specification that a later release builds.
const PLANNED: [&str; 17] = [
    "/",
    "/openapi.json",
    "/pipelines/{name}/schemas",
    "/pipelines/{name}/schemas/reload",
    "/pipelines/{name}/schemas/{db}/{table}",
    "/pipelines/{name}/schemas/{db}/{table}/reload",
    "/pipelines/{name}/schemas/{db}/{table}/versions",
    "/pipelines/{name}/sensing/schemas",
    "/pipelines/{name}/sensing/schemas/{table}",
    "/pipelines/{name}/sensing/schemas/{table}/json-schema",
    "/pipelines/{name}/sensing/stats",
    "/pipelines/{name}/drift",
    "/pipelines/{name}/drift/{table}",
    "/pipelines/{name}/tail",
    "/pipelines/{name}/snapshots",
    "/pipelines/{name}/snapshots/{id}",
    "/pipelines/{name}/events",
];

/// Whether a route's pattern is one of a later release.
pub(crate) fn is_planned(route: &str) -> bool {
    PLANNED.contains(&route)
}

pub(crate) fn all(api: Api) -> Router {
    let mut routes = Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/pipelines", get(pipelines::list).post(pipelines::create))
        .route("/pipelines/{name}", get(pipelines::get).patch(pipelines::patch).delete(pipelines::delete))
        .route("/pipelines/{name}/pause", post(pipelines::pause))
        .route("/pipelines/{name}/resume", post(pipelines::resume))
        .route("/pipelines/{name}/stop", post(pipelines::stop))
        .route("/pipelines/{name}/dlq", get(letters::list).delete(letters::purge))
        .route("/pipelines/{name}/dlq/retry", post(letters::retry))
        .route("/checkpoints", get(checkpoints::list))
        .route("/checkpoints/{pipeline}", get(checkpoints::get).delete(checkpoints::delete))
        .route("/checkpoints/{pipeline}/versions", get(checkpoints::versions))
        .route("/checkpoints/{pipeline}/rollback", post(checkpoints::rollback))
        .route("/validate", post(validate::validate));
    for path in PLANNED {
        routes = routes.route(path, any(planned));
    }
    dress(routes, api)
}

pub(crate) fn metrics_only(api: Api) -> Router {
    dress(Router::new().route("/metrics", get(health::metrics)), api)
}

/// What surrounds every route, the innermost first.
fn dress(routes: Router<Api>, api: Api) -> Router {
    routes
        .method_not_allowed_fallback(wrong_method)
        .fallback(nowhere)
        .layer(from_fn(query::refuse_unknown))
        .layer(from_fn_with_state(api.clone(), access::guard))
        .layer(from_fn_with_state(api.clone(), watch::watch))
        .with_state(api)
}

async fn nowhere(uri: Uri) -> Problem {
    Problem::no_route(uri.path())
}

async fn planned(uri: Uri) -> Problem {
    Problem::no_route(uri.path()).hint("planned, not in this release")
}

async fn wrong_method(request: Request) -> Problem {
    let error = format!("`{}` does not take {}", request.uri().path(), request.method());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "INVALID_REQUEST", error)
        .hint("the header `Allow` lists the methods")
}
