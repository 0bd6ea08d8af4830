//! What is asked before the gateway opens a connection to an upstream.

use std::sync::Arc;

use pingora_core::{Error, ErrorType, Result};
use tokio::net::TcpSocket;

use super::descriptors::Descriptors;
use crate::observe::metrics::UpstreamMetrics;

/// Asked about each new connection before it is made.
pub type SocketCheck = Arc<dyn Fn(&TcpSocket) -> Result<()> + Send + Sync>;

/// Counts the connections of one upstream, and lets it have no descriptor that is kept for other
/// things: one connection of HTTP/2 may ask for a hundred of HTTP/1.
pub fn socket_check(descriptors: Descriptors, metrics: UpstreamMetrics) -> SocketCheck {
    Arc::new(move |socket| {
        metrics.connecting();
        match descriptors.keeps(socket) {
            true => {
                let why = "what is left of the limit of open files is not for upstreams";
                Error::e_explain(ErrorType::ConnectError, why)
            }
            false => Ok(()),
        }
    })
}
