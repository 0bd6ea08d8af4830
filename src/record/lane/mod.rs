//! The ways a row takes to its store, and how a request learns the outcome.

pub(crate) mod answers;
pub(crate) mod closing;
pub(crate) mod queue;
pub(crate) mod sync;
