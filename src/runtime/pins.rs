//! Connections to upstreams whose certificates are pinned (`upstreams.NAME.tls.pins`).
//!
//! Pingora has no hook inside the handshake, so the certificate is looked at once that is over, before
//! anything of a request is sent. A connection of HTTP/1.1 that is found wanting is closed by Pingora,
//! which gives it to no other request. One of HTTP/2 is in Pingora's pool by then, where streams of other
//! requests may find it: each of them looks again, and [`Opened`] closes the connection underneath.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use pingora_core::protocols::Digest;
use pingora_core::{Error, ErrorType, Result};
use rustix::net::{Shutdown, shutdown};

use super::snapshot::UpstreamTarget;
use super::socket_check::SocketCheck;
use crate::upstream::config::{Pin, Protocol};

/// The upstream's certificate is not one of those that are pinned.
pub const UNPINNED: ErrorType = ErrorType::Custom("portcullis: unpinned certificate");

/// Whether the peer of a connection over TLS has shown a certificate that is pinned.
///
/// # Errors
/// [`UNPINNED`], with what it has shown.
pub fn check(pins: &BTreeSet<Pin>, digest: Option<&Digest>) -> Result<()> {
    let tls = digest.and_then(|digest| digest.ssl_digest.as_ref());
    let shown = tls.and_then(|tls| <[u8; 32]>::try_from(&tls.cert_digest[..]).ok());
    match shown.map(Pin) {
        Some(shown) if pins.contains(&shown) => Ok(()),
        Some(shown) => {
            let words =
                format!("the certificate with the SHA-256 {shown} is not one of `tls.pins`");
            Err(unpinned(words))
        }
        None => Err(unpinned("no certificate was shown".to_owned())),
    }
}

fn unpinned(words: String) -> Box<Error> {
    let mut error = Error::explain(UNPINNED, words);
    error.as_up();
    error
}

/// The sockets that an attempt has opened, until the certificate on them has been looked at.
#[derive(Default)]
pub struct Opened(Mutex<Vec<OwnedFd>>);

impl Opened {
    /// For an attempt at `target`; `None` if its connections are not pinned, or never shared.
    pub fn to(target: &UpstreamTarget) -> Option<Arc<Self>> {
        let config = target.upstream.config();
        let shares = match config.protocol {
            Protocol::H2 | Protocol::Auto => true,
            // The latter is not for TLS.
            Protocol::Http1 | Protocol::H2c => false,
        };
        (shares && !config.tls.pins.is_empty()).then(Arc::default)
    }

    /// The same as `check`, and notes each socket that passes.
    pub fn noting(self: &Arc<Self>, check: &SocketCheck) -> SocketCheck {
        let (opened, check) = (self.clone(), check.clone());
        Arc::new(move |socket| {
            check(socket)?;
            // The descriptor is a second one of the same socket, for as long as the handshake takes.
            let socket = socket.as_fd().try_clone_to_owned();
            let why = "no descriptor is left to close the connection by";
            let socket =
                socket.map_err(|error| Error::because(ErrorType::ConnectError, why, error))?;
            opened.0.lock().unwrap_or_else(PoisonError::into_inner).push(socket);
            Ok(())
        })
    }

    /// Lets them go, and closes their connections if `is_bad`.
    pub fn settle(&self, is_bad: bool) {
        let sockets = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for socket in sockets.iter().filter(|_| is_bad) {
            // It may be closed already.
            let _ = shutdown(socket, Shutdown::Both);
        }
    }
}
