//! Whom the gateway trusts to be an upstream.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use pingora_core::utils::tls::{WrappedX509, parse_x509};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::tls;
use super::tls::Material;
use crate::config::Problem;
use crate::config::code::Code;
use crate::config::load::{Contents, KeyPath};
use crate::upstream::config::{Config, Tls};

/// The authorities that may have issued an upstream's certificate.
pub type Authorities = Arc<[WrappedX509]>;

/// What connections to an upstream are verified by. Exchanged while the generation is in force, if the
/// file of `tls.ca` changes.
pub struct Trust {
    /// `None`: those of the system.
    pub authorities: Option<Authorities>,
    /// Attempts reuse only connections with the same key.
    pub pool_key: u64,
    /// Of the file.
    pub(super) material: Material,
}

impl Trust {
    /// What the upstream `name` is verified by, as `config` says.
    ///
    /// # Errors
    /// The file of authorities cannot be used.
    pub(super) fn of(name: &str, config: &Config) -> Result<Trust, Problem> {
        let file = config.tls.ca.as_deref();
        // Before it is read: what changes meanwhile is seen at the next look.
        let material = Trust::material(config, &mut Contents::default());
        let certificates = file.map(read_authorities).transpose().map_err(|mistake| {
            let upstream = KeyPath::root().key("upstreams").key(name);
            mistake.told(Code::UpstreamCaUnusable, upstream.key("tls").key("ca"))
        })?;
        let pool_key = pool_key(name, config, certificates.as_deref());
        let authorities = certificates.map(|certificates| {
            certificates.iter().map(|c| WrappedX509::new(c.to_vec(), parse_x509)).collect()
        });
        Ok(Trust { authorities, pool_key, material })
    }

    /// What its file holds now.
    pub(super) fn material(config: &Config, contents: &mut Contents) -> Material {
        Material::of(config.tls.ca.as_deref(), contents)
    }
}

/// Hashes what must be equal for a pooled connection to be reused: everything that a connection is
/// made and verified by, as far as Pingora's own key leaves it out. Authorities count by their
/// content, not by the path of their file: a connection verified by other authorities is not
/// reused.
fn pool_key(name: &str, config: &Config, ca: Option<&[CertificateDer<'_>]>) -> u64 {
    let mut hasher = DefaultHasher::new();
    let Tls { server_name, verify, ca: _ } = &config.tls;
    (name, config.protocol, server_name, verify).hash(&mut hasher);
    ca.map(|certificates| certificates.iter().map(|c| c.as_ref()).collect::<Vec<&[u8]>>())
        .hash(&mut hasher);
    // A connection keeps the keep-alive settings it was made with.
    (*config.tcp_keepalive, *config.h2_ping_interval).hash(&mut hasher);
    hasher.finish()
}

/// Reads a file of PEM certificates. They are checked here, because Pingora panics on an invalid
/// one.
fn read_authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, tls::Mistake> {
    let certificates = tls::certificates(path)?;
    let mut store = RootCertStore::empty();
    for certificate in &certificates {
        let added = store.add(certificate.clone());
        added.map_err(|error| tls::Mistake::new(format!("`{}`: {error}", path.display())))?;
    }
    Ok(certificates)
}
