//! What the journal's thread and the shipper tell each other.

use std::time::Instant;

use tokio::sync::oneshot;

use super::entry::Entry;
use super::left::Left;
use crate::record::invocation::{Row, Second};
use crate::record::lane::answers::Answer;

pub(super) enum Job {
    Append(Row, Option<Answer>),
    /// A second write that the shipper held in memory and cannot send to the store for now.
    PutBy(Row),
    /// These entries are in the store and may be deleted.
    Forget(Vec<i64>),
    /// Asks for the oldest entries, up to this many rows; the reply is a parcel.
    Read(usize),
    /// Replies once everything before it is on disk.
    Flush(oneshot::Sender<()>),
    /// Replies with what waits in the file, as far as that can be counted by then.
    Count(Instant, oneshot::Sender<Option<Left>>),
}

/// What the journal's thread tells the shipper.
pub(super) enum Parcel {
    Entry(Entry),
    /// The second write of a row that is in the journal. It is in memory only.
    Second(Second),
    /// The reply to `Read`, and whether these are all the entries. Entries sent before it are in
    /// the file, too.
    Read(Vec<Entry>, bool),
    /// From here on entries are on disk only, until a `Read` has found them all.
    Behind,
}
