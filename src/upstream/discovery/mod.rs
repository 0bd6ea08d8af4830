//! Where endpoints are known from, and the one rule for all sources.

pub mod known;
