//! A row, spelled once: [`columns::COLUMNS`] lists its columns, and every form of it walks that list.
//!
//! | form | where | a row of an older build | a row of a newer build |
//! |---|---|---|---|
//! | the journal's bytes | [`binary`] | the columns it lacks are absent | the columns that are unknown here are dropped |
//! | JSON: dead letters, the command line | [`json`] | likewise | likewise |
//! | SQLite | `store::sqlite::row` | null, as the migration left it | unknown columns are neither read nor written: they keep their values |
//! | PostgreSQL | `store::postgres` | likewise | likewise |
//!
//! That holds as long as a new column is nullable and stands at the end of the list. A build that is
//! to change anything else about the journal's bytes takes another version byte.

pub(crate) mod binary;
mod bytes;
pub(crate) mod columns;
mod earlier;
mod fields;
pub(crate) mod json;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod value;
