//! The check before the gateway opens a connection to an upstream.

use std::sync::Arc;

use pingora_core::{Error, ErrorType, Result};
use tokio::net::TcpSocket;

use super::descriptors::Descriptors;
use crate::observe::metrics::UpstreamMetrics;

/// Called for each new connection before it is opened.
pub type SocketCheck = Arc<dyn Fn(&TcpSocket) -> Result<()> + Send + Sync>;

/// Counts the connections of one upstream, and refuses it the descriptors that are reserved for
/// other uses. This check is needed because one HTTP/2 connection from a client can cause a hundred
/// HTTP/1 connections to an upstream.
pub(super) fn socket_check(descriptors: Descriptors, metrics: UpstreamMetrics) -> SocketCheck {
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

/// The same for health checks, whose connections are not counted. A refusal is told apart from a
/// failure of the upstream.
pub(super) fn for_checks(descriptors: Descriptors) -> SocketCheck {
    Arc::new(move |socket| match descriptors.keeps(socket) {
        true => {
            let why = "what is left of the limit of open files is not for health checks";
            Error::e_explain(ErrorType::InternalError, why)
        }
        false => Ok(()),
    })
}
