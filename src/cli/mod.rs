//! The command line: parsed here, one file for each subcommand.

mod bundle;
mod check;
mod completions;
mod config;
mod diagnostics;
mod examples;

mod health;
mod invocations;
mod order;
mod routes;
mod run;
mod running;
mod schema;
mod why;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::FalseyValueParser;
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::Location;

/// A resilience gateway: one binary, one YAML file, in front of your services.
#[derive(Debug, Parser)]
#[command(
    name = "portcullis",
    version,
    args_conflicts_with_subcommands = true,
    after_help = examples::TOP
)]
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
    #[command(after_help = examples::RUN)]
    Run(File),
    /// Report every error and warning of the configuration at once
    Check(check::Options),
    /// Show the routes in the order of matching, and what each asks of a request
    #[command(after_help = examples::ROUTES)]
    Routes(routes::Options),
    /// Show what is in force, and where each value comes from; secrets are hidden
    #[command(after_help = examples::CONFIG)]
    Config(config::Options),
    /// Print the JSON Schema of the configuration, for editors
    #[command(after_help = examples::SCHEMA)]
    Schema,
    /// Ask a running gateway whether it is alive; exits 0 or 1
    #[command(after_help = examples::HEALTH)]
    Health(health::Options),
    /// Show what the record holds; `stats` sums it up
    #[command(after_help = examples::INVOCATIONS)]
    Invocations(Box<invocations::Options>),
    /// Tell why a request failed: each attempt, the policies then, the line that decided
    #[command(after_help = examples::WHY)]
    Why(Box<why::Options>),
    /// Give a running gateway orders about endpoints and splits
    #[command(after_help = examples::ORDER)]
    Order(Box<order::Options>),
    /// Pack what helps to find a fault into one archive, without secrets: to be sent to those who help
    #[command(after_help = examples::BUNDLE)]
    Bundle(Box<bundle::Options>),
    /// Print the completions of a shell
    #[command(after_help = examples::COMPLETIONS)]
    Completions(completions::Completions),
    /// Print the manual page, in roff
    #[command(after_help = examples::MAN)]
    Man(completions::Man),
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
/// Exit code for a wrong command line, as clap has it.
const USAGE: u8 = 2;

/// Parses the command line and runs the command. Usage errors exit with 2.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        None if cli.test => check::check(&check::Options::of(cli.file)),
        None => run::run(&cli.file.location()),
        Some(Command::Run(file)) => run::run(&file.location()),
        Some(Command::Check(options)) => check::check(&options),
        Some(Command::Routes(options)) => routes::routes(&options),
        Some(Command::Config(options)) => config::config(&options),
        Some(Command::Schema) => schema::schema(),
        Some(Command::Health(options)) => health::health(&options),
        Some(Command::Invocations(options)) => invocations::invocations(&options),
        Some(Command::Why(options)) => why::why(&options),
        Some(Command::Order(options)) => order::order(&options),
        Some(Command::Bundle(options)) => bundle::bundle(&options),
        Some(Command::Completions(options)) => completions::completions(&options, Cli::command()),
        Some(Command::Man(options)) => completions::man(&options, Cli::command()),
    }
}

/// The exit code after output was written. The reader of a pipe may stop early.
fn written(output: io::Result<()>) -> ExitCode {
    match output {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("portcullis: {error}");
            ExitCode::from(FAILED)
        }
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command, and every command below one.
    fn commands(command: &clap::Command, found: &mut Vec<clap::Command>) {
        found.push(command.clone());
        for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
            commands(below, found);
        }
    }

    /// The words of a command line up to a pipe, without variables before it.
    fn words(line: &str) -> Vec<&str> {
        let words = line.split_whitespace().skip_while(|word| *word != "portcullis");
        words.take_while(|word| !["|", ">"].contains(word)).collect()
    }

    #[test]
    fn every_help_has_two_examples_that_are_valid() {
        let mut found = Vec::new();
        commands(&Cli::command(), &mut found);
        assert!(found.len() > 10, "{}", found.len());
        for command in found {
            let name = command.get_name();
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let lines: Vec<_> =
                help.lines().filter(|l| l.starts_with("  ") && l.contains("portcullis")).collect();
            assert!(lines.len() >= 2, "{name}: {help}");
            for line in lines {
                let words = words(line);
                assert!(name == "portcullis" || words.contains(&name), "{name}: {line}");
                if let Err(error) = Cli::try_parse_from(words) {
                    panic!("{line}: {error}");
                }
            }
        }
    }
}
