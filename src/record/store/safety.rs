//! How much of a store's promises the operator wants.

/// What a commit has to survive. PostgreSQL is asked for `Power` always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Safety {
    /// The end of the process, by `kill -9` too.
    Process,
    /// The end of the machine as well.
    Power,
}
