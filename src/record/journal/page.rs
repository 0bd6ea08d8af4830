//! The size of a page of the journal's database.

pub(crate) const PAGE: u32 = 4096;
