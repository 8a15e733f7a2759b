//! `/healthz`, `/readyz`, `/metrics`.

use crate::Api;
use crate::access::carries;
use crate::types::{Pipe, PipeOutline, Ready};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use deltaforge_engine::supervisor::{Filter, PipeInfo};

/// Alive: the process serves requests.
pub(crate) async fn alive() -> &'static str {
    "ok"
}

/// Ready: every pipeline that should run does. Somebody without the token sees no documents and no reasons.
pub(crate) async fn ready(State(api): State<Api>, headers: HeaderMap) -> Response {
    let infos = api.supervisor.list(&Filter::default());
    let (code, status) = match infos.iter().all(|info| info.status.is_ready()) {
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "unready"),
    };
    let trusted = api.token.as_ref().is_none_or(|token| carries(&headers, token));
    if trusted {
        (code, Json(Ready { status, pipelines: shapes::<Pipe>(infos) })).into_response()
    } else {
        (code, Json(Ready { status, pipelines: shapes::<PipeOutline>(infos) })).into_response()
    }
}

fn shapes<T: From<PipeInfo>>(infos: Vec<PipeInfo>) -> Vec<T> {
    infos.into_iter().map(T::from).collect()
}

/// Prometheus text.
pub(crate) async fn metrics(State(api): State<Api>) -> impl IntoResponse {
    (api.before_scrape)();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], api.metrics.render())
}
