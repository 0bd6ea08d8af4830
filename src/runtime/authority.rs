//! The entries of `auth` as the process holds them: what they verify with, and whom they ask.

use std::sync::{Arc, OnceLock};

use super::inquiry::Service;
use super::jwks::Jwks;
use crate::policy::auth::Verifier;

/// An entry of `auth`, with the task that keeps its keys fresh, or the service that it asks.
pub struct Authority {
    /// Kept by a reload that leaves the entry unchanged, with its keys and verified tokens.
    pub verifier: Arc<Verifier>,
    /// Set once the generation is in force: a configuration that is only checked fetches nothing.
    jwks: Arc<OnceLock<Jwks>>,
    /// The same of the service that it asks.
    service: Arc<OnceLock<Service>>,
}

impl Authority {
    pub(super) fn new(verifier: Verifier) -> Self {
        Authority { verifier: Arc::new(verifier), jwks: Arc::default(), service: Arc::default() }
    }

    /// A copy that keeps other claims, but shares the keys and the task that fetches them, or the
    /// service that is asked.
    pub(super) fn keeping(&self, claims: Arc<[Arc<str>]>) -> Self {
        let verifier = Arc::new(self.verifier.keeping(claims));
        Authority { verifier, jwks: self.jwks.clone(), service: self.service.clone() }
    }

    /// Starts to fetch the keys, if this authority has a key set to fetch and has not started yet.
    /// Makes it ready to ask its service, if it has one.
    pub fn start(&self) {
        if let Some(inquiry) = self.verifier.inquiry()
            && self.service.get().is_none()
        {
            match Service::new(inquiry) {
                Ok(service) => drop(self.service.set(service)),
                Err(error) => {
                    log::error!("auth.{}: cannot be asked: {error}", inquiry.authority());
                }
            }
        }
        let Some((config, keyring)) = self.verifier.remote_keys() else { return };
        if self.jwks.get().is_some() {
            return;
        }
        let name = self.verifier.authority();
        match Jwks::spawn(name, config, keyring.clone()) {
            // Generations are started one at a time, so it is still empty.
            Ok(jwks) => drop(self.jwks.set(jwks)),
            Err(error) => log::error!("auth.{name}: keys cannot be fetched: {error}"),
        }
    }

    /// The service that is asked; `None` if there is none, or the generation is not in force.
    pub fn service(&self) -> Option<&Service> {
        self.service.get()
    }

    /// The task that fetches the keys; `None` if none is needed, or the generation is not in force.
    pub fn jwks(&self) -> Option<&Jwks> {
        self.jwks.get()
    }
}
