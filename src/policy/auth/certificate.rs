//! Clients that a certificate names: who is accepted, and as which consumer.

use std::sync::Arc;

use quick_cache::sync::Cache;

use super::Told;
use super::caller::Names;
use super::config::ClientCertificate;
use super::denial::Denial;
use super::digest::Digest;
use super::identity::{Certified, Consumer, Identity, KeptClaims};
use crate::identity::{Name, Peer};

/// The most identities that are kept ready; those of others are made for each request.
const READY: usize = 10_000;

/// Accepts peers by their names.
pub(super) struct CertificateHolders {
    authority: Arc<str>,
    config: ClientCertificate,
    /// Identities by the digest of the consumer's name.
    ready: Arc<Cache<Digest, Arc<Identity>>>,
}

impl CertificateHolders {
    pub(super) fn new(authority: &Arc<str>, config: &ClientCertificate) -> Self {
        CertificateHolders {
            authority: authority.clone(),
            config: config.clone(),
            ready: Arc::new(Cache::new(READY)),
        }
    }

    pub(super) fn names(&self) -> Names {
        Names::Certified { common_name: self.config.common_name }
    }

    /// `peer` is the client as its own certificate names it; `told` as a trusted proxy does. Of a client
    /// that a believed proxy does not name, the proxy's own certificate says nothing.
    pub(super) fn verify(
        &self,
        peer: Option<&Peer>,
        told: Option<Told<'_>>,
    ) -> Result<Arc<Identity>, Denial> {
        let unnamed = || Denial::Unnamed { authority: self.authority.clone() };
        let peer = match told.filter(|_| self.config.from_proxies) {
            None => peer,
            Some(Told::Nothing) => None,
            Some(Told::Nonsense) => return Err(unnamed()),
            Some(Told::Peer(told)) => Some(told),
        };
        let peer = peer.ok_or(Denial::Missing)?;
        let mut named = false;
        for name in peer.names(self.config.common_name) {
            named = true;
            let allow = &self.config.allow;
            if allow.is_empty() || allow.iter().any(|pattern| pattern.matches(name)) {
                if let Ok(identity) = self.identity(name) {
                    return Ok(identity);
                }
                // Too long to be sent in a header.
                named = false;
            }
        }
        if !named {
            return Err(unnamed());
        }
        Err(Denial::NotAllowed { authority: self.authority.clone() })
    }

    fn identity(&self, name: Name<'_>) -> Result<Arc<Identity>, Denial> {
        let certified = Certified::from(name);
        // A common name may read as a DNS name does.
        let digest = Digest::of([name.as_str().as_bytes(), &[certified as u8]]);
        if let Some(ready) = self.ready.get(&digest) {
            return Ok(ready);
        }
        let consumer: Consumer = name.as_str().parse().map_err(|_| Denial::Consumer)?;
        let identity = Arc::new(Identity {
            authority: self.authority.clone(),
            header: consumer.to_header().map_err(|_| Denial::Consumer)?,
            consumer,
            certified: Some(certified),
            scopes: Box::default(),
            roles: Box::default(),
            expires_at: None,
            claims: KeptClaims::default(),
            passed: Box::default(),
        });
        self.ready.insert(digest, identity.clone());
        Ok(identity)
    }
}

impl Clone for CertificateHolders {
    fn clone(&self) -> Self {
        CertificateHolders {
            authority: self.authority.clone(),
            config: self.config.clone(),
            ready: self.ready.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::super::testing::config;
    use super::*;

    fn holders(more: &str) -> CertificateHolders {
        let Config::ClientCertificate(config) = config(&format!("client_certificate: {{{more}}}"))
        else {
            panic!("{more}")
        };
        CertificateHolders::new(&"mesh".into(), &config)
    }

    fn of(uri: &str) -> Peer {
        Peer::try_new([uri].into_iter(), [].into_iter(), None, &[]).expect("a peer")
    }

    fn who(
        holders: &CertificateHolders,
        peer: Option<&Peer>,
        told: Option<Told<'_>>,
    ) -> Result<String, Denial> {
        holders.verify(peer, told).map(|identity| identity.consumer().to_owned())
    }

    #[test]
    fn the_allowed_name_is_the_consumer() {
        let dns = ["a.shop", "b.internal"].into_iter();
        let peer = Peer::try_new([].into_iter(), dns, None, &[]).expect("a peer");
        assert_eq!(who(&holders(""), Some(&peer), None).as_deref(), Ok("a.shop"));
        let second = holders("allow: ['*.internal']");
        assert_eq!(who(&second, Some(&peer), None).as_deref(), Ok("b.internal"));
        let denied = Err(Denial::NotAllowed { authority: "mesh".into() });
        assert_eq!(who(&holders("allow: ['spiffe://prod/*']"), Some(&peer), None), denied);
        assert_eq!(who(&second, None, None), Err(Denial::Missing));
        let nameless =
            Peer::try_new([].into_iter(), [].into_iter(), Some("a"), &[]).expect("a peer");
        let unnamed = Err(Denial::Unnamed { authority: "mesh".into() });
        assert_eq!(who(&holders(""), Some(&nameless), None), unnamed);
        assert_eq!(who(&holders("common_name: true"), Some(&nameless), None).as_deref(), Ok("a"));
    }

    #[test]
    fn a_proxy_is_believed_only_where_that_is_said() {
        let (proxy, client) = (of("spiffe://prod/proxy"), of("spiffe://prod/client"));
        let (deaf, hearing) = (holders(""), holders("from_proxies: true"));
        let told = Some(Told::Peer(&client));
        let edge: Result<&str, &Denial> = Ok("spiffe://prod/proxy");
        assert_eq!(who(&deaf, Some(&proxy), told).as_deref(), edge);
        assert_eq!(who(&deaf, None, told), Err(Denial::Missing));
        assert_eq!(who(&hearing, Some(&proxy), told).as_deref(), Ok("spiffe://prod/client"));
        // Its client is never the proxy itself.
        assert_eq!(who(&hearing, Some(&proxy), Some(Told::Nothing)), Err(Denial::Missing));
        let unnamed = Err(Denial::Unnamed { authority: "mesh".into() });
        assert_eq!(who(&hearing, Some(&proxy), Some(Told::Nonsense)), unnamed);
        // Who is no proxy is named by its own certificate.
        assert_eq!(who(&hearing, Some(&proxy), None).as_deref(), edge);
    }
}
