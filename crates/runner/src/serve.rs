//! The running process: state, listeners, pipelines, until a signal ends them in the opposite order.

use crate::cli::{Listen, RunArgs};
use crate::exit::Exit;
use crate::run::Given;
use crate::signals::Signals;
use crate::{process, version};
use deltaforge_control::Api;
use deltaforge_core::checkpoint::StateStore;
use deltaforge_core::metrics::{BuildInfo, Metrics};
use deltaforge_core::task::{self, Task};
use deltaforge_engine::memory::MemoryBudget;
use deltaforge_engine::supervisor::{EngineLauncher, Supervisor, Timing};
use deltaforge_state::Location;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// Runs pipelines until a signal has drained them.
///
/// # Errors
/// Code 2 when there is nothing to run; code 1 when the state store or an address cannot be had, or the drain missed its
/// deadline.
pub(crate) async fn serve(args: &RunArgs, location: &Location, given: Given) -> Result<(), Exit> {
    // Caught from here on: a signal during the start ends it as well.
    let mut signals = Signals::catch().map_err(|e| Exit::failed(format!("signals cannot be caught: {e}")))?;
    let store = location
        .open()
        .map_err(|fault| Exit::failed(format!("the state store cannot be opened: {fault}")))?;
    if given.documents.is_empty() {
        need_stored_pipelines(&*store).await?;
    }
    let api_listener = listen(&args.api_addr, "--api-addr").await?;
    let metrics_listener = listen(&args.metrics_addr, "--metrics-addr").await?;

    let build = BuildInfo { version: version::VERSION, commit: version::COMMIT, target: version::TARGET };
    let metrics = Arc::new(Metrics::new(build).map_err(|fault| Exit::failed(fault.to_string()))?);
    metrics.memory_limit(args.memory_limit);
    let store = deltaforge_state::measured(store, metrics.clone());
    let deadline = Duration::from_secs(args.shutdown_timeout_secs);
    let launcher = Arc::new(EngineLauncher::new(store.clone(), MemoryBudget::new(args.memory_limit)));
    let timing = Timing { drain: deadline, ..Timing::default() };
    let supervisor = Supervisor::new(store, launcher, given.loader, metrics.clone(), timing);
    let api = Api {
        supervisor: supervisor.clone(),
        metrics: metrics.clone(),
        token: args.api_token.clone(),
        before_scrape: Arc::new(move || metrics.process(&process::sample())),
    };
    // Before anybody is answered: with no pipelines known yet, `/readyz` would say ready. Requests wait in the listeners.
    let load = supervisor.load(given.documents);
    load.await.map_err(|fault| Exit::failed(format!("the state store does not answer: {fault}")))?;
    let _servers = [
        api_listener.map(|listener| spawn_server("api", listener, deltaforge_control::router(api.clone()))),
        metrics_listener
            .map(|listener| spawn_server("metrics", listener, deltaforge_control::metrics_router(api))),
    ];
    tracing::info!(version = version::VERSION, commit = version::COMMIT, "deltaforge runs");

    let signal = signals.next().await;
    tracing::info!(
        signal,
        timeout_secs = args.shutdown_timeout_secs,
        "draining; a second signal ends the process at once"
    );
    tokio::select! {
        drained = supervisor.shutdown(deadline) => match drained {
            true => {
                tracing::info!("drained, all checkpoints are saved");
                Ok(())
            }
            false => Err(Exit::failed("the drain missed its deadline: what was not saved is delivered again")),
        },
        signal = signals.next() => Err(Exit::failed(format!("ended by a second signal, {signal}: what was not saved is delivered again"))),
    }
}

async fn need_stored_pipelines(store: &dyn StateStore) -> Result<(), Exit> {
    let stored = store.documents().await;
    let stored = stored.map_err(|fault| Exit::failed(format!("the state store does not answer: {fault}")))?;
    if stored.is_empty() {
        return Err(Exit::usage(
            "nothing to run: name documents with --config, or set SOURCE_URL for the environment-only mode; \
             the state store holds no pipelines made over the API",
        ));
    }
    Ok(())
}

async fn listen(listen: &Listen, flag: &str) -> Result<Option<TcpListener>, Exit> {
    let Listen::At(address) = listen else { return Ok(None) };
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|e| Exit::failed(format!("{flag} {address}: cannot listen: {e}")))?;
    if let Ok(address) = listener.local_addr() {
        tracing::info!(flag, address = address.to_string(), "listening");
    }
    Ok(Some(listener))
}

fn spawn_server(name: &'static str, listener: TcpListener, router: deltaforge_control::Router) -> Task<()> {
    task::spawn(name, async move {
        if let Err(error) = deltaforge_control::serve(listener, router).await {
            tracing::error!(name, error = error.to_string(), "a listener has ended");
        }
    })
}
