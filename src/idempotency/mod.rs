//! Where idempotency keys are kept: in the database of the record, beside it.
//!
//! ```text
//! claim ──> Lease ──keep──> the answer is in the store, for whoever comes with the key again
//!             │ └─release──> the key is free again: nothing was sent
//!             └─drop───────> released if nothing was sent, else left to lapse: undecided
//! ```
//!
//! [`Keys`] is what the request path calls, a [`Lease`] what it holds. The store is asked to insert
//! first and to answer questions afterwards, so that of many requests with one key, on however many
//! gateways, one gets the lease. What an entry means is decided in `policy::idempotency`.

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
