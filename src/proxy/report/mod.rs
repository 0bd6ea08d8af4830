//! What is told of a request: its row in the record, its spans.

pub mod recording;
pub mod spans;
