//! How durable the operator wants commits to be.

/// What a commit has to survive. PostgreSQL always commits with `Power`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Safety {
    /// A crash of the process, including `kill -9`.
    Process,
    /// A crash of the machine as well.
    Power,
}
