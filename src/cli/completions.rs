//! `portcullis completions` and `portcullis man`: both from the definition of the command line.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;

#[derive(Debug, Args)]
pub(super) struct Completions {
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct Man {
    /// The command that the page is about; without one, the page of portcullis itself
    command: Option<String>,
}

pub(super) fn completions(options: &Completions, mut cli: Command) -> ExitCode {
    let name = cli.get_name().to_owned();
    // In memory first: it has no other way to report that the output has been closed.
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut cli, name, &mut script);
    print(&script)
}

pub(super) fn man(options: &Man, mut cli: Command) -> ExitCode {
    // Names the subcommands in full, as in `portcullis-check`.
    cli.build();
    let page = match &options.command {
        None => cli,
        Some(name) => match cli.find_subcommand(name) {
            Some(command) => command.clone(),
            None => {
                eprintln!("portcullis: there is no command `{name}`");
                return ExitCode::from(super::USAGE);
            }
        },
    };
    let mut text = Vec::new();
    match clap_mangen::Man::new(page).render(&mut text) {
        Ok(()) => print(&text),
        Err(error) => {
            eprintln!("portcullis: {error}");
            ExitCode::from(super::FAILED)
        }
    }
}

fn print(text: &[u8]) -> ExitCode {
    super::written(io::stdout().lock().write_all(text))
}
