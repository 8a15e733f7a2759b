//! Around every request: its id, its measurements, and a net for panics.

use crate::Api;
use crate::answer::Problem;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
use tracing::Instrument;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives the request an id, that of the client when it sent a usable one; counts and times it; answers when a handler panics.
pub(crate) async fn watch(
    State(api): State<Api>,
    route: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let began = tokio::time::Instant::now();
    let id = request_id(&request);
    let method = method(request.method());
    // The pattern, never the path: a label must not grow with what clients ask for.
    let route = route.map_or_else(|| "_none".to_string(), |route| route.as_str().to_string());
    let span = tracing::info_span!("request", request_id = id.to_str().unwrap_or_default());
    let handled = AssertUnwindSafe(next.run(request).instrument(span.clone())).catch_unwind().await;
    let mut response = handled.unwrap_or_else(|_| {
        api.metrics.panic_caught();
        span.in_scope(|| tracing::error!(method, route, "a request handler panicked"));
        Problem::internal().into_response()
    });
    let took = began.elapsed();
    api.metrics.api_request(&route, method, response.status().as_u16(), took);
    let (status, took_ms) = (response.status().as_u16(), took.as_millis() as u64);
    span.in_scope(|| tracing::debug!(method, route, status, took_ms, "request"));
    response.headers_mut().insert(REQUEST_ID.clone(), id);
    response
}

fn request_id(request: &Request) -> HeaderValue {
    let usable = |value: &&HeaderValue| {
        let allowed = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        (1..=128).contains(&value.len()) && value.as_bytes().iter().all(allowed)
    };
    match request.headers().get(&REQUEST_ID).filter(usable) {
        Some(id) => id.clone(),
        None => HeaderValue::from_str(&uuid::Uuid::new_v4().to_string())
            .unwrap_or_else(|_| HeaderValue::from_static("unknown")),
    }
}

fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "_other",
    }
}
