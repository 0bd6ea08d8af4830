//! Where a configuration is, and where its variables come from.

use std::path::{Path, PathBuf};

use super::dotenv;
use super::environment::Environment;
use super::file::read_bounded;
use super::problem::Diagnostic;
use crate::config::code::Code;

/// The main file, and whether `.env` beside it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The main file.
    pub file: PathBuf,
    /// Whether variables are also read from `.env` in the folder of the main file. Those of the
    /// process come first. A file that does not exist has no variables.
    pub dotenv: bool,
}

impl Location {
    /// The file at `path`, with the variables of the process alone.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Location { file: path.into(), dotenv: false }
    }

    /// The variables as they are now.
    ///
    /// # Errors
    /// `.env` cannot be read, or a line of it is not understood.
    pub fn environment(&self) -> Result<Environment, Vec<Diagnostic>> {
        let Some(file) = self.dotenv_file().filter(|file| file.exists()) else {
            return Ok(Environment::process());
        };
        let wrong = |code: Code, line: usize, message: String| {
            vec![Diagnostic { line, ..Diagnostic::of_file(code, &file, message) }]
        };
        let bytes = read_bounded(&file)
            .map_err(|(code, error)| wrong(code, 1, format!("the file {error}")))?;
        let variables = dotenv::parse(&bytes);
        variables
            .map(Environment::process_or)
            .map_err(|mistake| wrong(Code::DotenvLine, mistake.line, mistake.message.to_owned()))
    }

    /// `.env` beside the main file, if it is read.
    pub(super) fn dotenv_file(&self) -> Option<PathBuf> {
        let folder = self.file.parent().unwrap_or(Path::new(""));
        self.dotenv.then(|| folder.join(dotenv::NAME))
    }
}
