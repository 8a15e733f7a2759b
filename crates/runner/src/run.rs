//! `deltaforge run`: everything that may refuse the start comes first, in the order of how cheap it is to find out.

use crate::cli::{LogFormat, RunArgs, planned};
use crate::environment::{self, Variables};
use crate::exit::Exit;
use crate::files::Surroundings;
use crate::{files, registry, serve, telemetry};
use deltaforge_engine::config::{ConfigText, Document, Loader, Problem};
use deltaforge_engine::supervisor::Origin;
use deltaforge_state::Location;
use std::path::Path;
use std::sync::Arc;

/// `--memory-limit` when it is not given.
pub(crate) const DEFAULT_MEMORY: u64 = 256 << 20;

/// Runs pipelines until a signal.
///
/// # Errors
/// Code 2 while nothing was started, code 1 after.
pub(crate) fn run(args: RunArgs) -> Result<(), Exit> {
    let rust_log = std::env::var("RUST_LOG").ok();
    let filter = telemetry::filter(args.log_level.as_deref(), rust_log.as_deref()).map_err(Exit::usage)?;
    if args.grpc_addr.is_some() {
        return Err(Exit::usage(planned("--grpc-addr")));
    }
    if let Ok(failpoint) = std::env::var("DELTAFORGE_FAILPOINT") {
        deltaforge_core::failpoint::arm(&failpoint)
            .map_err(|why| Exit::usage(format!("DELTAFORGE_FAILPOINT: {why}")))?;
    }
    let location = Location::parse(&args.state).map_err(|fault| Exit::usage(fault.to_string()))?;
    let given = documents(&args)?;
    start_logging(args.log_format, filter)?;
    for warning in &given.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .thread_stack_size(1 << 20)
        .thread_name("deltaforge")
        .enable_all()
        .build()
        .map_err(|e| Exit::failed(format!("the runtime cannot start: {e}")))?;
    let outcome = runtime.block_on(serve::serve(&args, &location, given));
    // A thread that still waits for a name server must not keep the process.
    runtime.shutdown_background();
    outcome
}

fn start_logging(format: LogFormat, filter: tracing_subscriber::EnvFilter) -> Result<(), Exit> {
    telemetry::start(format, filter).map_err(|e| Exit::failed(format!("logging cannot start: {e}")))
}

/// What the command line and the environment describe.
pub(crate) struct Given {
    /// The documents.
    pub(crate) documents: Vec<(Document, Origin)>,
    /// Sentences to log.
    pub(crate) warnings: Vec<String>,
    /// Reads documents; also those of the API.
    pub(crate) loader: Loader,
}

/// Documents of files, or the one that variables describe; none when neither is given.
fn documents(args: &RunArgs) -> Result<Given, Exit> {
    if !args.config.is_empty() {
        let loader = loader(Surroundings::default(), args.memory_limit);
        let texts = files::read(&args.config).map_err(Exit::Invalid)?;
        let documents = load(&loader, &texts)?.into_iter().map(|document| (document, Origin::File)).collect();
        return Ok(Given { documents, warnings: Vec::new(), loader });
    }
    let variables = Variables::with_env_file(Path::new(".env")).map_err(Exit::usage)?;
    let loader = loader(Surroundings::with(variables.clone()), args.memory_limit);
    if !environment::is_asked_for(|name| variables.get(name)) {
        return Ok(Given { documents: Vec::new(), warnings: Vec::new(), loader });
    }
    let made = environment::document(|name| variables.get(name)).map_err(Exit::Usage)?;
    let document = loader.document(&made.document, false).map_err(|findings| {
        Exit::Invalid(
            findings
                .into_iter()
                .map(|finding| Problem { file: Some("environment".into()), finding })
                .collect(),
        )
    })?;
    Ok(Given { documents: vec![(document, Origin::Env)], warnings: made.warnings, loader })
}

fn load(loader: &Loader, texts: &[ConfigText]) -> Result<Vec<Document>, Exit> {
    let loaded = loader.texts(texts);
    match loaded.errors.is_empty() {
        true => Ok(loaded.documents.into_iter().map(|(_, document)| document).collect()),
        false => Err(Exit::Invalid(loaded.errors)),
    }
}

/// A loader of documents that knows every connector.
pub(crate) fn loader(surroundings: Surroundings, memory_limit: u64) -> Loader {
    Loader::new(Arc::new(registry::registry()), Arc::new(surroundings), memory_limit)
}
