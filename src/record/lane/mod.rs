//! The ways of a row to its store, and who hears what became of it.

pub(crate) mod answers;
pub(crate) mod closing;
pub(crate) mod queue;
pub(crate) mod sync;
