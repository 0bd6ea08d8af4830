//! The gateway speaks in its own name: refusals, replays, what it serves itself.

pub mod call;
pub mod choose;
pub mod linger;
pub mod stand_in;
pub mod wire;
