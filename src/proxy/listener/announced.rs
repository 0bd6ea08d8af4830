//! Reads the header in which a load balancer announces whose connection it relays.
//!
//! It comes before TLS and before HTTP, and only from peers that `proxy_protocol.from` names: from
//! any other, a header would be a claim that anyone can make.

use std::io;
use std::time::Duration;

use pingora_core::protocols::Stream;
use tokio::io::AsyncReadExt;

use crate::proxy::downstream::proxy_header::{Fault, ProxyHeader, Source, parse};

/// Bytes of the first read: the header, and mostly what the client sends first as well.
const FIRST_READ: usize = 1024;

/// Whose connection it is, and what the client has already sent.
pub(super) struct Announced {
    pub(super) source: Source,
    /// Whether the client has a TLS connection to the balancer.
    pub(super) secure: bool,
    pub(super) ahead: Vec<u8>,
}

/// Why there is no header.
pub(super) enum Failed {
    /// The peer left without a byte: it may only have looked whether someone listens.
    Silent,
    /// It sent something else.
    Fault(Fault),
    /// It sent too little within the limit.
    Late,
    /// The connection ended before the header did.
    CutOff(io::Error),
}

impl Failed {
    /// The value of the metric's label; `None` for what is not counted.
    pub(super) const fn as_str(&self) -> Option<&'static str> {
        match self {
            Failed::Silent => None,
            Failed::Fault(fault) => Some(fault.as_str()),
            Failed::Late => Some("late"),
            Failed::CutOff(_) => Some("cut_off"),
        }
    }
}

/// Reads the header within `limit`; zero means no limit.
///
/// # Errors
/// There is no valid header within `limit`.
pub(super) async fn read(stream: &mut Stream, limit: Duration) -> Result<Announced, Failed> {
    if limit.is_zero() {
        return read_header(stream).await;
    }
    tokio::time::timeout(limit, read_header(stream)).await.unwrap_or(Err(Failed::Late))
}

async fn read_header(stream: &mut Stream) -> Result<Announced, Failed> {
    let mut seen = Vec::with_capacity(FIRST_READ);
    loop {
        match stream.read_buf(&mut seen).await {
            Ok(1..) => {}
            Ok(0) | Err(_) if seen.is_empty() => return Err(Failed::Silent),
            Ok(0) => return Err(Failed::CutOff(io::ErrorKind::UnexpectedEof.into())),
            Err(error) => return Err(Failed::CutOff(error)),
        }
        if let Some(header) = parse(&seen).map_err(Failed::Fault)? {
            seen.drain(..header.length);
            let ProxyHeader { source, secure, length: _ } = header;
            return Ok(Announced { source, secure, ahead: seen });
        }
    }
}
