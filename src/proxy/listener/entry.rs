//! One entry of `listeners`: its settings, and what goes on when a reload changes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pingora_core::server::ShutdownWatch;
use tokio::sync::{Semaphore, watch};

use super::addresses::Addresses;
use super::refused::Spells;
use crate::condition::Spell;
use crate::config::server::Listener as Config;
use crate::policy::networks::Networks;
use crate::proxy::downstream::limits::Limits;
use crate::runtime::tls::Handshakes;

/// A listener as its connections are accepted. A reload makes another one of it, and connections keep
/// the one that they were accepted by.
pub struct Listener {
    /// Its key under `listeners`.
    pub name: Arc<str>,
    /// As configured.
    pub config: Config,
    pub(super) limits: Arc<Limits>,
    pub(super) networks: Option<Networks>,
    /// What handshakes are made by; `None` without TLS.
    pub(super) tls: Option<Arc<Handshakes>>,
    /// A permit for each handshake that may be under way; `None` without a limit.
    pub(super) turns: Option<Arc<Semaphore>>,
    pub(super) lasting: Arc<Lasting>,
    /// Whether connections end as soon as nothing is under way on them.
    drains: Arc<watch::Sender<bool>>,
}

/// What goes on when the settings change.
#[derive(Default)]
pub(super) struct Lasting {
    /// Its client connections open now.
    pub(super) open: AtomicUsize,
    /// Open connections by address, where their number is limited.
    pub(super) addresses: Arc<Addresses>,
    pub(super) refused: Spells,
    /// Load balancers do not announce whose connections they relay.
    pub(super) unannounced: Spell,
}

impl Listener {
    /// The entry `name`, which begins anew. `tls` is compiled from the same configuration.
    pub(super) fn new(name: &str, config: &Config, tls: Option<&Arc<Handshakes>>) -> Self {
        Listener {
            name: name.into(),
            limits: Arc::new(Limits {
                max_header_bytes: config.max_header_bytes.as_usize(),
                max_path_bytes: config.max_path_bytes.as_usize(),
            }),
            networks: config.networks.as_deref().map(Networks::new),
            tls: tls.cloned(),
            turns: most_handshakes(config).map(|most| Arc::new(Semaphore::new(most))),
            config: config.clone(),
            lasting: Arc::default(),
            drains: Arc::new(watch::Sender::new(false)),
        }
    }

    /// This listener as the successor of `before`. Connections of `before` go on with it, unless
    /// other clients may connect now.
    ///
    /// Connections know the name that their listener had: where `by_name`, it must stay, since routes go by it.
    pub(super) fn continuing(self, before: &Listener, by_name: bool) -> Self {
        let has_its_routes = !by_name || self.name == before.name;
        let drains = match has_its_routes && self.admits_as(before) {
            true => before.drains.clone(),
            false => self.drains,
        };
        let turns = match most_handshakes(&self.config) == most_handshakes(&before.config) {
            true => before.turns.clone(),
            // Handshakes under way still count against the earlier number.
            false => self.turns,
        };
        Listener { lasting: before.lasting.clone(), drains, turns, ..self }
    }

    /// Whether clients connect as they do to `other`, and the same ones may.
    fn admits_as(&self, other: &Listener) -> bool {
        let (ours, theirs) = (&self.config, &other.config);
        ours.address == theirs.address
            && ours.networks == theirs.networks
            && ours.proxy_protocol == theirs.proxy_protocol
            && self.tls.is_some() == other.tls.is_some()
            && self.client_authorities() == other.client_authorities()
    }

    fn client_authorities(&self) -> Option<[u8; 32]> {
        self.tls.as_ref().and_then(|tls| tls.client_authorities)
    }

    /// Whether connections of `other` go on with this one.
    pub fn keeps_those_of(&self, other: &Listener) -> bool {
        Arc::ptr_eq(&self.drains, &other.drains)
    }

    /// Its connections end as soon as nothing is under way on them. Returns how many there are.
    pub fn drain(&self) -> usize {
        // Before they are told: some end at once.
        let open = self.lasting.open.load(Ordering::Relaxed);
        self.drains.send_replace(true);
        open
    }

    /// Becomes true when its connections are to end.
    pub fn drains(&self) -> ShutdownWatch {
        self.drains.subscribe()
    }

    /// Counts a connection. Returns how many there were before.
    pub fn opened(&self) -> usize {
        // Relaxed: a count, nothing is published with it.
        self.lasting.open.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts the end of a connection.
    pub fn closed(&self) {
        self.lasting.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many handshakes may be under way at once; `None` if there is no limit.
fn most_handshakes(config: &Config) -> Option<usize> {
    let most = config.tls.as_ref()?.max_handshakes;
    (most > 0).then(|| {
        usize::try_from(most).unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS)
    })
}
