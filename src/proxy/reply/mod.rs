//! The gateway speaks in its own name: refusals, replays, what it serves itself.
//!
//! | file | what it is for |
//! |---|---|
//! | [`choose`] | refuse, replay or serve; a `durable` or `sync` row is committed first |
//! | [`wire`] | such a response, written so that the connection stays in order |
//! | [`own`] | what a route's `serve`, `respond` and `redirect` answer |
//! | [`stand_in`] | the `json` of a route's fallback in the place of a refusal |
//! | [`call`] | the response to a transcoded call, written once its attempt is over |
//! | [`linger`] | the end of a connection whose request was answered here before it was complete |

pub mod call;
pub mod choose;
pub mod linger;
pub mod own;
pub mod stand_in;
pub mod wire;
