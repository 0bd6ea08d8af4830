//! The command line: parsed here, one file for each subcommand.

mod check;
mod health;
mod invocations;
mod run;
mod why;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand};

use crate::config::Location;

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
    /// Report every error of the configuration at once
    Check(File),
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
    /// The configuration file
    #[arg(
        short,
        long,
        value_name = "FILE",
        env = "PORTCULLIS_CONFIG",
        default_value = "/etc/portcullis/portcullis.yaml"
    )]
    config: PathBuf,
    /// Read variables from .env beside the file too; those of the process come first
    #[arg(long, env = "PORTCULLIS_DOTENV", value_parser = FalseyValueParser::new())]
    dotenv: bool,
}

impl File {
    fn location(&self) -> Location {
        Location { file: self.config.clone(), dotenv: self.dotenv }
    }
}

/// Exit code for an invalid configuration or a failed start.
const FAILED: u8 = 1;

/// Parses the command line and runs the command. Usage errors exit with 2.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        None if cli.test => check::check(&cli.file.location()),
        None => run::run(&cli.file.location()),
        Some(Command::Run(file)) => run::run(&file.location()),
        Some(Command::Check(file)) => check::check(&file.location()),
        Some(Command::Health(options)) => health::health(&options),
        Some(Command::Invocations(options)) => invocations::invocations(&options),
        Some(Command::Why(options)) => why::why(&options),
    }
}
