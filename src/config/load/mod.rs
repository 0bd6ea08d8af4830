//! Loading a configuration: files, environment and includes in; a typed value, or every mistake at once, out.
//!
//! Knows nothing of what is configured: any type that deserializes will do. Types should refuse
//! wrong values while they deserialize; what concerns several values is left to validation, which
//! runs even if parts were wrong, on what is left:
//!
//! ```text
//! load_partial::<Config>(path, &Environment::process())
//!     .validate(|config, sources| vec![Problem::new("routes.users.upstream", "…")])
//! ```
//!
//! `#[serde(flatten)]` and `#[serde(untagged)]` take their input through a buffer in which places
//! and references are lost: types that an operator meets are better off without them.

mod assemble;
mod collect;
mod deserialize;
mod environment;
mod error;
mod file;
mod findings;
mod interpolate;
mod node;
mod parse;
mod path;
mod problem;
mod resolve;
mod sources;
mod suggest;
#[cfg(test)]
mod tests;

use std::path::Path;

use assemble::Assembly;
use collect::collect;
pub use environment::Environment;
pub use path::{KeyPath, Step};
pub use problem::{Diagnostic, Problem};
use serde::de::DeserializeOwned;
pub use sources::Sources;
pub use suggest::suggest;

/// Levels of mappings and lists in each other.
const MAX_DEPTH: usize = 64;
/// Values and keys in a file, with aliases expanded.
const MAX_VALUES: usize = 1_000_000;
/// Bytes of stack for the thread that reads: a main thread's.
const STACK: usize = 8 * 1024 * 1024;
/// Problems shown at once.
pub(super) const MAX_FINDINGS: usize = 100;

/// A configuration without its wrong parts, which the sources remember.
#[derive(Debug)]
pub struct Draft<T> {
    value: Option<T>,
    sources: Sources,
}

/// Reads the configuration at `path` and what it includes.
///
/// # Errors
/// Everything that is wrong, in the order of the files; never empty.
pub fn load<T: DeserializeOwned>(
    path: &Path,
    environment: &Environment,
) -> Result<(T, Sources), Vec<Diagnostic>> {
    load_partial(path, environment).validate(|_, _| Vec::new())
}

/// Like [`load`], for a configuration that is valid only after [`Draft::validate`].
pub fn load_partial<T: DeserializeOwned>(path: &Path, environment: &Environment) -> Draft<T> {
    let (files, mut tree, mut findings) = apart(|| {
        let mut assembly = Assembly::new(environment);
        let tree = assembly.assemble(path);
        (assembly.files, tree, assembly.findings)
    });
    let nothing_read = findings.incomplete && matches!(tree.value, node::Value::Null);
    let value = if nothing_read { None } else { collect(&mut tree, &mut findings) };
    Draft { value, sources: Sources::new(files, tree, findings) }
}

/// Does `work` in a thread that ends with it. The allocator keeps together what a thread allocates: what
/// the parser and the tree have taken comes back whole, instead of staying as gaps between the parts
/// of the configuration; so does a configuration, if it is made in a thread that it outlives.
pub fn apart<R: Send>(work: impl Fn() -> R + Sync) -> R {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("configuration".to_owned()).stack_size(STACK);
        match thread.spawn_scoped(scope, &work) {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            // A thread that cannot be had costs memory only.
            Err(_) => work(),
        }
    })
}

impl<T> Draft<T> {
    /// Hands what could be read to `check` and brings its problems together with those of reading.
    /// `check` does not run if a file is missing, or so much is wrong that nothing is left; it can
    /// ask the sources whether a name it does not find was [taken out](Sources::is_pruned).
    ///
    /// # Errors
    /// Everything that is wrong, in the order of the files; never empty.
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

    /// What could be read; `None` if so much is wrong that nothing is left.
    pub fn value(&self) -> Option<&T> {
        self.value.as_ref()
    }

    pub fn sources(&self) -> &Sources {
        &self.sources
    }
}
