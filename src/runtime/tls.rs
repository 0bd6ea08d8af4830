//! TLS on the listeners: certificates and authorities, read and checked when a configuration is
//! compiled. `proxy::listener` runs the handshakes.

pub mod handshake;
mod tickets;

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{self, SHA256, SHA256_OUTPUT_LEN};
use rustls::RootCertStore;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ProducesTickets, ResolvesServerCert,
    ServerConfig, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;

use crate::config::Problem;
use crate::config::code::Code;
use crate::config::load::{KeyPath, Step};
use crate::config::server::{Tickets, Tls};

/// A hash of the contents of certificates and authorities.
type Digest = [u8; SHA256_OUTPUT_LEN];

/// What a listener's handshakes need.
pub struct Handshakes {
    /// For one listener; a reload that changes it makes another one.
    pub config: Arc<ServerConfig>,
    /// Hash of the certificates and authorities by which both sides of its sessions were verified.
    verified_by: Digest,
    /// Seals its tickets, if it uses the gateway's own keys.
    own: Option<Arc<dyn ProducesTickets>>,
    /// The certificates' files, and when the first certificate of each ends, in seconds since 1970.
    pub not_after: Vec<(String, i64)>,
}

impl Handshakes {
    /// Whether both sides are verified by the same certificates and authorities.
    pub(super) fn is_same_identity(&self, other: &Handshakes) -> bool {
        self.verified_by == other.verified_by
    }
}

/// Compiles a listener's TLS. Clients may resume the sessions of `before` only if certificates and
/// authorities are unchanged, because rustls does not verify a resumed session again.
///
/// # Errors
/// A file cannot be read, or its contents are invalid.
pub fn compile(
    listener: &str,
    tls: &Tls,
    before: Option<&Handshakes>,
) -> Result<Handshakes, Problem> {
    let problem = |code, key: &str, message| {
        let path = KeyPath::root().key("listeners").key(listener).key("tls");
        let path = KeyPath::from(key).steps().iter().fold(path, |path, step| match step {
            Step::Key(key) => path.key(key.as_str()),
            Step::Index(index) => path.index(*index),
        });
        Problem::new(code, path, message)
    };
    let provider = provider();
    let mut keys = Vec::with_capacity(tls.certificates.len());
    let mut not_after = Vec::with_capacity(tls.certificates.len());
    for (index, files) in tls.certificates.iter().enumerate() {
        let key = certified_key(&files.certificate, &files.key, &provider);
        let key = key.map_err(|e| {
            problem(Code::CertificateUnusable, &format!("certificates[{index}]"), e)
        })?;
        let ends = key.cert.iter().filter_map(end_of).min();
        not_after.extend(ends.map(|ends| (files.certificate.display().to_string(), ends)));
        keys.push(Arc::new(key));
    }
    if keys.is_empty() {
        let message = "at least one certificate is needed".to_owned();
        return Err(problem(Code::NoCertificate, "certificates", message));
    }
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(|e| problem(Code::Internal, "", e.to_string()))?;
    let authorities = tls.client_ca.as_deref().map(certificates).transpose();
    let authorities = authorities.map_err(|e| problem(Code::ClientCaUnusable, "client_ca", e))?;
    let verified_by = digest(&keys, authorities.as_deref());
    let builder = match (&tls.client_ca, authorities) {
        (Some(file), Some(authorities)) => {
            let verifier = client_verifier(file, authorities, provider);
            let verifier = verifier.map_err(|e| problem(Code::ClientCaUnusable, "client_ca", e))?;
            builder.with_client_cert_verifier(Arc::new(handshake::Clients(verifier)))
        }
        (Some(_), None) | (None, _) => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Certificates(keys)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let kept = before.filter(|before| before.verified_by == verified_by);
    let kept = kept.and_then(|kept| kept.own.clone());
    let own = use_tickets(&mut config, &tls.tickets, &verified_by, kept);
    let own = own.map_err(|(key, message)| problem(Code::TicketsUnusable, key, message))?;
    Ok(Handshakes { config: Arc::new(config), verified_by, own, not_after })
}

/// Sets how sessions are resumed. Returns the ticketer if it is the gateway's own: the one that was
/// `kept`, if any.
fn use_tickets(
    config: &mut ServerConfig,
    wanted: &Tickets,
    verified_by: &Digest,
    kept: Option<Arc<dyn ProducesTickets>>,
) -> Result<Option<Arc<dyn ProducesTickets>>, (&'static str, String)> {
    // Clients keep their sessions in tickets; the gateway stores none.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    match wanted {
        Tickets::Off => config.send_tls13_tickets = 0,
        Tickets::On => {
            let own = kept.map_or_else(tickets::own, Ok).map_err(|e| ("tickets", e.to_string()))?;
            config.ticketer = own.clone();
            return Ok(Some(own));
        }
        Tickets::Keys(file) => {
            let shared = tickets::shared(file, verified_by);
            config.ticketer = shared.map_err(|message| ("tickets.keys", message))?;
        }
    }
    Ok(None)
}

/// Hashes everything that proves an identity. Each part is preceded by its length, so that parts
/// cannot run into each other.
fn digest(keys: &[Arc<CertifiedKey>], authorities: Option<&[CertificateDer<'_>]>) -> Digest {
    let mut context = digest::Context::new(&SHA256);
    let mut add = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    for key in keys {
        add(b"certificate");
        key.cert.iter().for_each(|certificate| add(certificate));
    }
    if let Some(authorities) = authorities {
        add(b"client authorities");
        authorities.iter().for_each(|authority| add(authority));
    }
    let mut digest = Digest::default();
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// The installed provider; in a test, where none is installed, the one that would be.
fn provider() -> Arc<CryptoProvider> {
    let installed = CryptoProvider::get_default().cloned();
    installed.unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}

fn certified_key(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, String> {
    let chain = certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| of_file(key, &error))?;
    let mut certified =
        CertifiedKey::from_der(chain, private, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                of_file(key, &format!("the key is not that of {}", certificate.display()))
            }
            other => of_file(key, &other),
        })?;
    certified.key = Arc::new(handshake::Key(certified.key));
    Ok(certified)
}

fn client_verifier(
    file: &Path,
    authorities: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in authorities {
        roots.add(certificate).map_err(|error| of_file(file, &error))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    verifier.map_err(|error| of_file(file, &error))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| of_file(file, &error))?;
    match found.is_empty() {
        true => Err(of_file(file, &"the file holds no certificate in PEM")),
        false => Ok(found),
    }
}

/// When a certificate ends, in seconds since 1970.
pub(super) fn end_of(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(parsed.validity().not_after.timestamp())
}

fn of_file(file: &Path, error: &dyn Display) -> String {
    let error = error.to_string();
    // Without the system's number and the library's category.
    let error = error.split(" (os error").next().unwrap_or(&error);
    format!("{}: {}", file.display(), error.trim_start_matches("I/O error: "))
}

/// A listener's certificates, in the order of the file.
#[derive(Debug)]
struct Certificates(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let named = asked.and_then(|name| self.0.iter().find(|key| is_for(key, &name)));
        named.or_else(|| self.0.first()).cloned()
    }
}

fn is_for(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let parsed = key.cert.first().and_then(|leaf| ParsedCertificate::try_from(leaf).ok());
    parsed.is_some_and(|leaf| verify_server_name(&leaf, name).is_ok())
}
