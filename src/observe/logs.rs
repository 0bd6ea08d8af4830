//! The process's own log, on standard error.
//!
//! Only the life cycle and failures; nothing for a successful request.

use std::io::IsTerminal;

use env_logger::{Builder, Env, WriteStyle};
use log::LevelFilter;

/// Starts logging. `RUST_LOG` sets the levels; the default is `info`.
pub fn init() {
    let mut builder = Builder::from_env(Env::default().default_filter_or("info"));
    // Pingora logs each failed request, and quotes up to 2 KiB of a malformed one, including any
    // credentials in it. Failures are in the metrics and in the record.
    builder.filter_module("pingora_proxy", LevelFilter::Off);
    builder.filter_module("pingora_core::server", LevelFilter::Warn);
    builder.filter_module("pingora_core::services", LevelFilter::Warn);
    builder.filter_module("pingora_core::connectors", LevelFilter::Error);
    builder.filter_module("pingora_core::protocols", LevelFilter::Error);
    if !std::io::stderr().is_terminal() {
        builder.write_style(WriteStyle::Never);
    }
    builder.init();
}
