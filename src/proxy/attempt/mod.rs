//! One attempt at an upstream after the other.

pub mod breakers;
pub mod conclude;
pub mod divert;
pub mod ended;
pub mod failed;
pub mod next;
pub mod peer;
pub mod retry;
