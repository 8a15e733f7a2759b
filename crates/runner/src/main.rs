//! The binary `deltaforge`. It alone reads arguments, files and environment variables; everything else receives values.
//!
//! [`cli`] says what can be asked, [`run`], [`validate`] and [`dlq`] do it, [`environment`] describes a pipeline by variables,
//! [`files`] reads documents, [`registry`] names every connector.

mod cli;
mod dlq;
mod environment;
mod exit;
mod files;
mod process;
mod registry;
mod run;
mod serve;
mod signals;
mod telemetry;
mod validate;
mod version;

use clap::Parser;
use cli::{Cli, Command, planned};
use exit::Exit;
use std::process::ExitCode;

/// It gives memory back to the system sooner than the C library's allocator, and is faster under several threads. It is built
/// without transparent huge pages (`no_thp`): with them each thread's first small allocation costs 2 MiB, and an idle process is
/// 27 MiB large instead of 11.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let command = cli.command.unwrap_or_else(|| Command::Run(Box::new(cli.run)));
    if let Some(name) = command.planned() {
        return Exit::usage(planned(&format!("the subcommand `{name}`"))).report(false);
    }
    match command {
        Command::Run(args) => {
            let json = args.json;
            run::run(*args).map_or_else(|exit| exit.report(json), |()| ExitCode::SUCCESS)
        }
        Command::Validate(args) => {
            let json = args.json;
            validate::validate(&args).map_or_else(|exit| exit.report(json), |()| ExitCode::SUCCESS)
        }
        Command::Dlq(args) => {
            let json = args.json;
            dlq::dlq(&args).map_or_else(|exit| exit.report(json), |()| ExitCode::SUCCESS)
        }
        Command::Version(args) => {
            exit::print(&version::report(args.json));
            ExitCode::SUCCESS
        }
        _ => Exit::usage("not a subcommand").report(false),
    }
}
