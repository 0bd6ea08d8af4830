//! Loads a configuration: from files, includes and environment to a typed value, or to a list of
//! every mistake.
//!
//! This module does not know what is configured: it works with any type that deserializes. Types
//! should refuse wrong values while they deserialize. Rules that concern several values are left to
//! validation, which runs on the valid parts even if others were wrong:
//!
//! ```text
//! load_layered::<Config, Alone>(path, &Environment::process(), &TEMPLATES, &LAYERING, &RENAMED)
//!     .validate(|config, sources| vec![Problem::new(Code::UnknownName, "routes.users.upstream", "…")])
//! ```
//!
//! `#[serde(flatten)]` and `#[serde(untagged)]` buffer their input, which loses positions and
//! references. Types that an operator writes should not use them.

mod aimed;
mod assemble;
mod collect;
mod contents;
mod decided;
mod deserialize;
mod dotenv;
mod environment;
mod error;
mod excerpt;
mod fault;
mod file;
mod findings;
mod interpolate;
mod layer;
mod layering;
mod location;
mod node;
mod parse;
mod path;
mod problem;
mod renamed;
mod resolve;
mod sources;
mod suggest;
mod syntax;
mod template;
#[cfg(test)]
mod tests;
mod watch;
mod written;

use std::path::Path;

use assemble::Assembly;
use collect::collect;
pub use contents::Contents;
pub use decided::Decided;
pub use environment::Environment;
pub use layering::{Key, Layering, Meets, Off};
pub use location::Location;
pub use path::{KeyPath, Step};
pub use problem::{Diagnostic, Problem};
pub use renamed::Renamed;
use serde::de::DeserializeOwned;
pub use sources::Sources;
pub use suggest::suggest;
pub use template::Templates;
pub use watch::{Named, NamedFiles, Seen, Values, Watch};
pub use written::{Part, Written};

/// Most levels of nested mappings and lists.
const MAX_DEPTH: usize = 64;
/// Most values and keys in a file, with aliases expanded.
const MAX_VALUES: usize = 1_000_000;
/// Stack in bytes of the thread that reads: as much as a main thread has.
const STACK: usize = 8 * 1024 * 1024;
/// Most problems shown at once.
pub(super) const MAX_FINDINGS: usize = 100;

/// A configuration without its wrong parts, which the sources remember.
#[derive(Debug)]
pub struct Draft<T> {
    value: Option<T>,
    sources: Sources,
}

/// Reads the configuration at `path` and the files it includes. It is valid only after
/// [`Draft::validate`].
///
/// Things of a section may be written once for several names (`templates`), the things of one
/// section have defaults in another, which are read as `D` (`layering`), and keys have had other
/// names (`renamed`).
pub fn load_layered<T: DeserializeOwned, D: DeserializeOwned>(
    path: &Path,
    environment: &Environment,
    templates: &'static Templates,
    layering: &'static Layering,
    renamed: &'static [Renamed],
) -> Draft<T> {
    let (files, mut tree, mut findings) = apart(|| {
        let mut assembly = Assembly::new(environment);
        let tree = assembly.assemble(path);
        (assembly.files, tree, assembly.findings)
    });
    templates.expand(&mut tree, &mut findings);
    findings.renamed = renamed::rename(&mut tree, renamed);
    findings.layering = Some(layering);
    // What is right is read again with the rest.
    layering.lay(&mut tree, &mut findings, |tree, findings| drop(collect::<D>(tree, findings)));
    let nothing_read = findings.incomplete && matches!(tree.value, node::Value::Null);
    let value = if nothing_read { None } else { collect(&mut tree, &mut findings) };
    Draft { value, sources: Sources::new(files, tree, findings) }
}

/// Runs `work` in a thread of its own. The allocator keeps the memory of a thread together. When
/// the thread ends, what the parser and the tree used is freed as a whole, instead of leaving gaps
/// between the parts of the configuration. The same holds for a configuration that was made in such
/// a thread.
pub fn apart<R: Send>(work: impl Fn() -> R + Sync) -> R {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("configuration".to_owned()).stack_size(STACK);
        match thread.spawn_scoped(scope, &work) {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            // Without a thread the work only takes more memory.
            Err(_) => work(),
        }
    })
}

impl<T> Draft<T> {
    /// What is valid so far, and where it comes from.
    pub fn parts(&self) -> (Option<&T>, &Sources) {
        (self.value.as_ref(), &self.sources)
    }

    /// Gives the valid parts to `check`, and joins its problems with those found while reading.
    /// `check` does not run if a file is missing, or if nothing valid is left. It can ask the
    /// sources whether an unknown name was [removed as wrong](Sources::is_pruned).
    ///
    /// # Errors
    /// All mistakes, in the order of the files; never empty.
    pub fn validate(
        self,
        check: impl FnOnce(&T, &Sources) -> Vec<Problem>,
    ) -> Result<(T, Sources), Vec<Diagnostic>> {
        let Draft { value, sources } = self;
        let complete = value.as_ref().filter(|_| sources.is_complete());
        let problems = complete.map_or_else(Vec::new, |value| check(value, &sources));
        let diagnostics = sources.diagnose(problems);
        match value {
            Some(value) if diagnostics.is_empty() => Ok((value, sources)),
            _ => Err(diagnostics),
        }
    }
}
