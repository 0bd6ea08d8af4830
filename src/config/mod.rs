//! config

pub mod load;
