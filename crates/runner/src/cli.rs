//! The command line. Every flag reads `DELTAFORGE_<NAME>` as well; the flag wins.

use clap::{Args, Parser, Subcommand, ValueEnum};
use deltaforge_core::config::{Secret, parse_size};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Says that a part of the specification is built by a later release; such a thing is refused, never ignored.
pub(crate) fn planned(what: &str) -> String {
    format!("{what} is planned, not in this release")
}

/// `deltaforge [run] …`, `deltaforge validate …`, `deltaforge version`.
#[derive(Parser, Debug)]
#[command(
    name = "deltaforge",
    version = crate::version::VERSION,
    about = "Change data capture: what happens in a database arrives in streams and files",
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    /// What to do; `run` when left out.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// The flags of `run`.
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Subcommands.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run pipelines (the default)
    Run(Box<RunArgs>),
    /// Check documents without touching the network
    Validate(ValidateArgs),
    /// List, retry or purge events that could not be delivered, through the API of a running process
    Dlq(DlqArgs),
    /// Print version, commit, build date, target, built-in sources and sinks
    Version(VersionArgs),
    /// Probe sources and sinks (planned)
    #[command(hide = true)]
    Doctor(Later),
    /// Run a self-contained demonstration (planned)
    #[command(hide = true)]
    Demo(Later),
    /// Print events of a pipeline (planned)
    #[command(hide = true)]
    Tail(Later),
    /// Look at and change checkpoints (planned)
    #[command(hide = true)]
    Checkpoints(Later),
    /// Look at recorded table schemas (planned)
    #[command(hide = true)]
    Schemas(Later),
    /// Compare tables with what sinks hold (planned)
    #[command(hide = true)]
    Verify(Later),
}

/// Arguments of a subcommand that is not built yet: anything.
#[derive(Args, Debug)]
pub(crate) struct Later {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<String>,
}

/// Flags of `run`.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// File or directory of pipeline documents; may repeat
    #[arg(short, long, value_name = "PATH", env = "DELTAFORGE_CONFIG")]
    pub(crate) config: Vec<PathBuf>,
    /// REST API; `off` disables it
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8080", env = "DELTAFORGE_API_ADDR")]
    pub(crate) api_addr: Listen,
    /// Prometheus endpoint, also served on the API address; `off` disables it
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:9000", env = "DELTAFORGE_METRICS_ADDR")]
    pub(crate) metrics_addr: Listen,
    /// gRPC API (planned)
    #[arg(long, value_name = "ADDR", num_args = 0..=1, default_missing_value = "0.0.0.0:50051", hide = true, env = "DELTAFORGE_GRPC_ADDR")]
    pub(crate) grpc_addr: Option<Listen>,
    /// Where state lives: `file:DIR`, `sqlite:PATH` or `memory:`
    #[arg(long, value_name = "URL", default_value = "file:./data", env = "DELTAFORGE_STATE")]
    pub(crate) state: String,
    /// Bearer token of the API; better given by its variable
    #[arg(long, value_name = "TOKEN", env = "DELTAFORGE_API_TOKEN", hide_env_values = true, value_parser = token)]
    pub(crate) api_token: Option<Secret>,
    /// Form of log lines
    #[arg(long, value_name = "FORMAT", default_value = "json", env = "DELTAFORGE_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
    /// Level or per-module filter [default: RUST_LOG, else `info`]
    #[arg(long, value_name = "FILTER", env = "DELTAFORGE_LOG_LEVEL")]
    pub(crate) log_level: Option<String>,
    /// Ceiling on buffered event data of the whole process
    #[arg(long, value_name = "SIZE", default_value = "256MiB", env = "DELTAFORGE_MEMORY_LIMIT", value_parser = memory_limit)]
    pub(crate) memory_limit: u64,
    /// How long a drain may take, in seconds
    #[arg(long, value_name = "N", default_value_t = 30, env = "DELTAFORGE_SHUTDOWN_TIMEOUT_SECS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) shutdown_timeout_secs: u64,
    /// One JSON document on stdout when the configuration is refused
    #[arg(long)]
    pub(crate) json: bool,
}

/// Flags of `validate`.
#[derive(Args, Debug)]
pub(crate) struct ValidateArgs {
    /// File or directory of pipeline documents; may repeat
    #[arg(short, long, value_name = "PATH", env = "DELTAFORGE_CONFIG")]
    pub(crate) config: Vec<PathBuf>,
    /// The same, without the flag
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Accept variables that are not set, for use in CI
    #[arg(long)]
    pub(crate) allow_unset: bool,
    /// One JSON document on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// Flags of `dlq`.
#[derive(Args, Debug)]
pub(crate) struct DlqArgs {
    /// What to do
    #[command(subcommand)]
    pub(crate) action: DlqAction,
    /// The pipeline
    #[arg(long, value_name = "NAME", global = true, default_value = "", hide_default_value = true)]
    pub(crate) pipeline: String,
    /// REST API of the running process
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:8080",
        global = true,
        env = "DELTAFORGE_API"
    )]
    pub(crate) api: String,
    /// Bearer token of the API; better given by its variable
    #[arg(long, value_name = "TOKEN", global = true, env = "DELTAFORGE_API_TOKEN", hide_env_values = true, value_parser = token)]
    pub(crate) token: Option<Secret>,
    /// The answer as one JSON document on stdout
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// What to do with dead letters.
#[derive(Subcommand, Debug)]
pub(crate) enum DlqAction {
    /// Show them, oldest first
    List(ListArgs),
    /// Give them to their sinks again
    Retry(WhichArgs),
    /// Take them out of the queue, undelivered
    Purge(WhichArgs),
}

/// Flags of `dlq list`.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Most entries [default: 50]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) limit: Option<u64>,
    /// Only entries behind this id
    #[arg(long, value_name = "ID")]
    pub(crate) after: Option<u64>,
    /// Only entries of this sink
    #[arg(long, value_name = "ID")]
    pub(crate) sink: Option<String>,
    /// Only entries of this kind: `encode`, `route`, `too_large`, `rejected`, `processor`, `value`
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<String>,
}

/// Which entries.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct WhichArgs {
    /// Ids, separated by commas
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    pub(crate) ids: Vec<u64>,
    /// Every entry
    #[arg(long)]
    pub(crate) all: bool,
}

/// Flags of `version`.
#[derive(Args, Debug)]
pub(crate) struct VersionArgs {
    /// One JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where to listen, if at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    /// Nowhere.
    Off,
    /// There: `HOST:PORT`, the host perhaps a name.
    At(String),
}

impl std::str::FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Listen, String> {
        if text == "off" {
            return Ok(Listen::Off);
        }
        if text.parse::<SocketAddr>().is_ok() {
            return Ok(Listen::At(text.into()));
        }
        let named = text.rsplit_once(':').is_some_and(|(host, port)| {
            let host_ok = !host.is_empty()
                && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
            host_ok && port.parse::<u16>().is_ok()
        });
        if named { Ok(Listen::At(text.into())) } else { Err("expected HOST:PORT or `off`".into()) }
    }
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For reading.
    Text,
}

fn token(text: &str) -> Result<Secret, String> {
    if text.trim().is_empty() { Err("an empty token".into()) } else { Ok(Secret::new(text)) }
}

fn memory_limit(text: &str) -> Result<u64, String> {
    match parse_size(text) {
        Some(bytes) if bytes >= 16 << 20 => Ok(bytes),
        Some(_) => Err("at least 16MiB".into()),
        None => Err("expected a size: bytes, or a number with KiB, MiB, GiB, KB, MB or GB".into()),
    }
}

impl Command {
    /// The name of a subcommand that this release does not have.
    pub(crate) fn planned(&self) -> Option<&'static str> {
        match self {
            Command::Run(_) | Command::Validate(_) | Command::Dlq(_) | Command::Version(_) => None,
            Command::Doctor(_) => Some("doctor"),
            Command::Demo(_) => Some("demo"),
            Command::Tail(_) => Some("tail"),
            Command::Checkpoints(_) => Some("checkpoints"),
            Command::Schemas(_) => Some("schemas"),
            Command::Verify(_) => Some("verify"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_without_a_subcommand_belong_to_run() {
        let cli = Cli::try_parse_from(["deltaforge", "-c", "a.yaml", "--config", "b", "--api-addr", "off"])
            .unwrap();
        assert!(cli.command.is_none());
        assert_eq!((cli.run.config.len(), cli.run.api_addr), (2, Listen::Off));
        let cli = Cli::try_parse_from(["deltaforge", "run", "--shutdown-timeout-secs", "5"]).unwrap();
        let Some(Command::Run(run)) = cli.command else { panic!("run") };
        assert_eq!((run.shutdown_timeout_secs, run.memory_limit), (5, 256 << 20));
    }

    #[test]
    fn bad_values_are_refused() {
        for bad in [
            ["--api-addr", "8080"],
            ["--api-addr", ":8080"],
            ["--metrics-addr", "a:99999"],
            ["--api-token", " "],
            ["--log-format", "xml"],
            ["--memory-limit", "1MiB"],
            ["--memory-limit", "much"],
            ["--shutdown-timeout-secs", "0"],
            ["--shutdown-timeout-secs", "3601"],
        ] {
            assert!(Cli::try_parse_from(["deltaforge"].iter().chain(&bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn listen_addresses() {
        for good in ["127.0.0.1:0", "[::1]:8080", "localhost:80", "off"] {
            assert!(good.parse::<Listen>().is_ok(), "{good}");
        }
    }
}
