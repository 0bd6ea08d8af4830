//! Keeps idempotency keys in the database of the record.
//!
//! ```text
//! claim ──> Lease ──keep──> the response is in the store, for later requests with the key
//!             │ └─release──> the key is free again: nothing was sent
//!             └─drop───────> released if nothing was sent, else left to lapse: undecided
//! ```
//!
//! [`Keys`] is what the request path calls, a [`Lease`] what it holds. The store is asked to insert
//! first, and only then what it holds. So of many requests with one key, on any number of gateways,
//! exactly one gets the lease. `policy::idempotency` decides what an entry means.

mod health;
mod keys;
mod postgres;
mod sqlite;
mod store;
#[cfg(test)]
mod tests;
mod tries;

pub use keys::lease::Lease;
pub use keys::{Claimed, Keys, Stats, Unavailable};
pub use store::Claim;
