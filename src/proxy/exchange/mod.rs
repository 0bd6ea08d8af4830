//! The facts of one request and its response.
//!
//! | file | what it is for |
//! |---|---|
//! | [`context`] | everything the gateway remembers about one request; what it holds falls with it |
//! | [`asked`] | what the client asked for, as its head has it |
//! | [`end`] | how it is going to end, as far as is known |
//! | [`fields`] | header fields that requests and responses have in common |
//! | [`sent`] | what has gone to the client, as Pingora's session knows it |
//! | [`signal`] | the errors by which the gateway tells Pingora how an attempt goes on |
//! | [`diverted`] | where a request goes instead of its route's upstream |
//! | [`times`] | what of its time went into waiting for the client |
//! | [`keyed`] | a request that is the first with its idempotency key |
//! | [`translation`] | an upstream's plain error, until it is written in the caller's protocol |
//! | [`call`] | a transcoded call between its request and its response |

pub mod asked;
pub mod call;
pub mod context;
pub mod diverted;
pub mod end;
pub mod fields;
pub mod keyed;
pub mod sent;
pub mod signal;
pub mod times;
pub mod translation;
