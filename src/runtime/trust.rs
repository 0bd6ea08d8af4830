//! Whom the gateway trusts to be an upstream, and how it proves to an upstream who it is.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use pingora_core::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::tls;
use super::tls::Material;
use crate::config::Problem;
use crate::config::code::Code;
use crate::config::load::{Contents, KeyPath};
use crate::upstream::config::{ClientCertificate, Config, Tls};

/// The authorities that may have issued an upstream's certificate.
pub type Authorities = Arc<[WrappedX509]>;

/// What both sides of connections to an upstream are verified by. Exchanged while the generation is in
/// force, if a file of its `tls` changes.
pub struct Trust {
    /// `None`: those of the system.
    pub authorities: Option<Authorities>,
    /// What the gateway shows; `None`: nothing.
    pub identity: Option<Arc<CertKey>>,
    /// Attempts reuse only connections with the same key.
    pub pool_key: u64,
    /// Of the files.
    pub(super) material: Material,
}

impl Trust {
    /// What the upstream `name` is verified by, as `config` says.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(super) fn of(name: &str, config: &Config) -> Result<Trust, Problem> {
        let file = config.tls.ca.as_deref();
        // Before it is read: what changes meanwhile is seen at the next look.
        let material = Trust::material(config, &mut Contents::default());
        let certificates = file.map(read_authorities).transpose().map_err(|mistake| {
            let upstream = KeyPath::root().key("upstreams").key(name);
            mistake.told(Code::UpstreamCaUnusable, upstream.key("tls").key("ca"))
        })?;
        let own = config.tls.client_certificate.as_ref();
        let own = own.map(|own| read_identity(name, own)).transpose()?;
        let pool_key = pool_key(name, config, certificates.as_deref(), own.as_ref());
        let identity = own.map(|own| Arc::new(CertKey::new(own.chain, own.key)));
        let authorities = certificates.map(|certificates| {
            certificates.iter().map(|c| WrappedX509::new(c.to_vec(), parse_x509)).collect()
        });
        Ok(Trust { authorities, identity, pool_key, material })
    }

    /// What its files hold now.
    pub(super) fn material(config: &Config, contents: &mut Contents) -> Material {
        Material::of(config.tls.files().map(|file| file.as_path()), contents)
    }
}

/// Hashes what must be equal for a pooled connection to be reused: everything that a connection is
/// made and verified by, as far as Pingora's own key leaves it out. Authorities and the gateway's own
/// certificate count by their content, not by the path of their file: a connection verified by others is
/// not reused.
fn pool_key(
    name: &str,
    config: &Config,
    ca: Option<&[CertificateDer<'_>]>,
    own: Option<&Own>,
) -> u64 {
    let mut hasher = DefaultHasher::new();
    let Tls { server_name, verify, ca: _, client_certificate: _, pins } = &config.tls;
    (name, config.protocol, server_name, verify, pins).hash(&mut hasher);
    ca.map(|certificates| certificates.iter().map(|c| c.as_ref()).collect::<Vec<&[u8]>>())
        .hash(&mut hasher);
    own.map(|own| (&own.chain, &own.key)).hash(&mut hasher);
    // A connection keeps the keep-alive settings it was made with.
    (*config.tcp_keepalive, *config.h2_ping_interval).hash(&mut hasher);
    hasher.finish()
}

/// The gateway's certificate for an upstream, with those that have signed it, and its key.
struct Own {
    chain: Vec<Vec<u8>>,
    key: Vec<u8>,
}

/// Reads the gateway's own certificate and its key. They are checked here, because Pingora panics on an
/// invalid one.
fn read_identity(name: &str, own: &ClientCertificate) -> Result<Own, Problem> {
    let place = KeyPath::root().key("upstreams").key(name).key("tls").key("client_certificate");
    let checked = tls::identity(&own.certificate, &own.key);
    let (chain, key) = checked.map_err(|(key, mistake)| {
        mistake.told(Code::UpstreamCertificateUnusable, place.key(key))
    })?;
    let chain = chain.iter().map(|certificate| certificate.to_vec()).collect();
    Ok(Own { chain, key: key.secret_der().to_vec() })
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
