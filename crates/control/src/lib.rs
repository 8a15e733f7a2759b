//! The control plane of DeltaForge over REST.
//!
//! A request passes [`access`] (who may ask), [`query`] (are its parameters known), then its handler in [`health`],
//! [`pipelines`], [`checkpoints`] or [`validate`], which asks the engine's supervisor and puts the answer into a shape of
//! [`types`]. Everything that goes wrong becomes one [`answer::Problem`]. [`watch`] gives each request its id, counts it and
//! keeps a panic from taking the answer with it.
//!
//! **Invariants, by absence.** API types live here and nowhere else. No handler keeps state, and none changes a pipeline
//! but through the supervisor, which finishes what it began when a client goes away.

mod access;
mod answer;
mod body;
mod checkpoints;
mod health;
mod letters;
mod pipelines;
mod query;
mod routes;
mod types;
mod validate;
mod watch;

pub use types::finding_json;

pub use axum::Router;
use deltaforge_core::config::Secret;
use deltaforge_core::metrics::Metrics;
use deltaforge_engine::supervisor::Supervisor;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// What the routes work on. Clones are cheap.
#[derive(Clone)]
pub struct Api {
    /// The pipelines.
    pub supervisor: Supervisor,
    /// What is measured.
    pub metrics: Arc<Metrics>,
    /// The bearer token; without one, only loopback peers may change anything.
    pub token: Option<Secret>,
    /// Called right before metrics are rendered, to read what only the runner can: the process's own figures.
    pub before_scrape: Arc<dyn Fn() + Send + Sync>,
}

/// All routes.
pub fn router(api: Api) -> Router {
    routes::all(api)
}

/// The routes of the metrics address: `/metrics` and nothing else.
pub fn metrics_router(api: Api) -> Router {
    routes::metrics_only(api)
}

/// Serves routes until the future is dropped.
///
/// # Errors
/// When the listener cannot be used.
pub async fn serve(listener: TcpListener, router: Router) -> std::io::Result<()> {
    axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>()).await
}
