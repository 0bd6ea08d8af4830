//! How many client connections there may be.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::proxy::listener::{Full, Listener, Listeners};

/// A client connection's place among those of its listener and of the gateway, given back on drop.
#[must_use]
pub(super) struct Place {
    listeners: Arc<Listeners>,
    listener: Arc<Listener>,
}

impl Place {
    /// A place for `stream`.
    ///
    /// # Errors
    /// [`Full`], by the first bound that is reached.
    pub(super) fn take(
        listeners: &Arc<Listeners>,
        listener: &Arc<Listener>,
        stream: &impl AsRawFd,
    ) -> Result<Self, Full> {
        // Relaxed: counts, nothing is published with them.
        let of_listener = listener.opened();
        let of_all = listeners.open.fetch_add(1, Ordering::Relaxed);
        listeners.most_open.fetch_max(of_all + 1, Ordering::Relaxed);
        listeners.shared.metrics.connections.inc();
        let place = Place { listeners: listeners.clone(), listener: listener.clone() };
        let max = listener.config.max_connections;
        if max != 0 && of_listener >= max {
            return Err(Full::Listener);
        }
        if of_all >= listeners.max_connections.load(Ordering::Relaxed) {
            return Err(Full::Server);
        }
        if listeners.shared.descriptors.keeps(stream) {
            return Err(Full::Descriptors);
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.listener.closed();
        self.listeners.open.fetch_sub(1, Ordering::Relaxed);
        self.listeners.shared.metrics.connections.dec();
    }
}
