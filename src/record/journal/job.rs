//! What the journal's thread and the shipper tell each other.

use tokio::sync::oneshot;

use super::entry::Entry;
use crate::record::invocation::{Row, Second};
use crate::record::lane::answers::Answer;

pub(super) enum Job {
    Append(Row, Option<Answer>),
    /// A second write that the shipper had in memory, and that the store cannot have for now.
    PutBy(Row),
    /// These entries are in the store.
    Forget(Vec<i64>),
    /// The oldest entries, until there are so many rows; they come as a parcel.
    Read(usize),
    /// Says when everything before it is on disk.
    Flush(oneshot::Sender<()>),
}

/// What the shipper is told.
pub(super) enum Parcel {
    Entry(Entry),
    /// The second write of a row that is here, in memory alone.
    Second(Second),
    /// What a `Read` found, and whether that was all. Entries sent before it are in the file, too.
    Read(Vec<Entry>, bool),
    /// From here on entries are on disk alone, until a `Read` finds them all.
    Behind,
}
