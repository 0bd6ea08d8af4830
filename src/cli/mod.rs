//! The command line: parsed here, one file for each subcommand.

mod check;
mod diagnostics;
mod health;
mod invocations;
mod run;
mod why;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// A resilience gateway: one binary, one YAML file, in front of your services.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    file: File,
    /// Check the configuration and exit, as `check` does
    #[arg(short = 't', long = "test")]
    test: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway (the default)
    Run(File),
    /// Report every error and warning of the configuration at once
    Check(check::Options),
    /// Ask a running gateway whether it is alive; exits 0 or 1
    Health(health::Options),
    /// Show what the record holds; `stats` sums it up
    Invocations(Box<invocations::Options>),
    /// Tell why a request failed: each attempt, the policies then, the line that decided
    Why(Box<why::Options>),
}

/// Where the configuration is.
#[derive(Debug, Args)]
struct File {
    /// The configuration file; `check` reads `-` from standard input
    #[arg(
        short,
        long,
        value_name = "FILE",
        env = "PORTCULLIS_CONFIG",
        default_value = "/etc/portcullis/portcullis.yaml"
    )]
    config: PathBuf,
}

/// Exit code for an invalid configuration or a failed start.
const FAILED: u8 = 1;
/// Exit code for a wrong command line.
const USAGE: u8 = 2;

/// Parses the command line and runs the command. Usage errors exit with 2.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        None if cli.test => check::check(&check::Options::of(cli.file.config)),
        None => run::run(&cli.file.config),
        Some(Command::Run(file)) => run::run(&file.config),
        Some(Command::Check(options)) => check::check(&options),
        Some(Command::Health(options)) => health::health(&options),
        Some(Command::Invocations(options)) => invocations::invocations(&options),
        Some(Command::Why(options)) => why::why(&options),
    }
}
