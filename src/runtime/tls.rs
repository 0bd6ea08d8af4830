//! TLS on the listeners: certificates and authorities, read and checked when a configuration is
//! compiled. `proxy::listener` runs the handshakes.

pub mod clients;
mod doubts;
mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub mod handshake;
mod material;
mod names;
mod tickets;

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{self, SHA256, SHA256_OUTPUT_LEN};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ProducesTickets, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{DEFAULT_VERSIONS, SupportedProtocolVersion};

pub(super) use self::doubts::doubts;
use self::files::private_key;
pub(super) use self::files::{Mistake, certificates};
pub(super) use self::material::Material;
use self::names::Certificates;
use crate::config::Problem;
use crate::config::code::Code;
use crate::config::load::{Contents, KeyPath};
use crate::config::tls::{Tickets, Tls, UnknownName, Version};

/// Without TLS 1.2.
const ONLY_TLS13: &[&SupportedProtocolVersion] = &[&TLS13];

/// A hash of the contents of certificates and authorities.
type Digest = [u8; SHA256_OUTPUT_LEN];

/// A path below `tls`, and what is wrong with the value there.
type WrongKey = (&'static [&'static str], String);

/// What a listener's handshakes need.
pub struct Handshakes {
    /// For one listener; a reload that changes it makes another one.
    pub config: Arc<ServerConfig>,
    /// Hash of the certificates and authorities by which both sides of its sessions were verified.
    verified_by: Digest,
    /// Hash of the authorities that clients must have a certificate of; `None` if they need none.
    pub client_authorities: Option<[u8; SHA256_OUTPUT_LEN]>,
    /// Seals its tickets, if it uses the gateway's own keys.
    own: Option<Arc<dyn ProducesTickets>>,
    certificates: Arc<Certificates>,
    /// What the files held that it was made of.
    pub(super) material: Material,
    /// Whether a client that asks for a name which no certificate has is refused.
    refuses_unknown: bool,
    /// The certificates' files, and when the first certificate of each ends, in seconds since 1970.
    pub not_after: Vec<(String, i64)>,
}

impl Handshakes {
    /// Whether both sides are verified by the same certificates and authorities.
    pub(super) fn is_same_identity(&self, other: &Handshakes) -> bool {
        self.verified_by == other.verified_by
    }

    /// Whether a client that asks for `name` is let in.
    pub fn admits(&self, name: Option<&str>) -> bool {
        let is_known = |name| self.certificates.of_name(name).is_some();
        !self.refuses_unknown || name.is_none_or(is_known)
    }

    /// Whether the address that a client has connected to may choose its certificate.
    pub fn asks_for_address(&self) -> bool {
        self.certificates.has_addresses()
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
) -> Result<Handshakes, Vec<Problem>> {
    let section = KeyPath::root().key("listeners").key(listener).key("tls");
    let problem = |code, keys: &[&str], mistake: Mistake| {
        let path = keys.iter().fold(section.clone(), |path, key| path.key(*key));
        vec![mistake.told(code, path)]
    };
    // Before they are read: what changes meanwhile is seen at the next look.
    let material = Material::of_listener(tls, &mut Contents::default());
    let provider = provider();
    let mut keys = Vec::with_capacity(tls.certificates.len());
    let mut not_after = Vec::with_capacity(tls.certificates.len());
    let mut unusable = Vec::new();
    for (index, files) in tls.certificates.iter().enumerate() {
        let key = match certified_key(&files.certificate, &files.key, &provider) {
            Ok(key) => key,
            Err((key, mistake)) => {
                let path = section.clone().key("certificates").index(index).key(key);
                unusable.push(mistake.told(Code::CertificateUnusable, path));
                continue;
            }
        };
        let ends = key.cert.iter().filter_map(end_of).min();
        not_after.extend(ends.map(|ends| (files.certificate.display().to_string(), ends)));
        keys.push(Arc::new(key));
    }
    if !unusable.is_empty() {
        return Err(unusable);
    }
    if keys.is_empty() {
        let mistake = Mistake::new("at least one certificate is needed");
        return Err(problem(Code::NoCertificate, &["certificates"], mistake));
    }
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = builder
        .with_protocol_versions(match tls.min_version {
            Version::Tls12 => DEFAULT_VERSIONS,
            Version::Tls13 => ONLY_TLS13,
        })
        .map_err(|e| problem(Code::Internal, &[], Mistake::new(e.to_string())))?;
    let authorities = tls.client_ca.as_deref().map(certificates).transpose();
    let refused = |mistake| problem(Code::ClientCaUnusable, &["client_ca"], mistake);
    let authorities = authorities.map_err(refused)?;
    let lists = clients::revoked(tls);
    let unread = |mistake| problem(Code::ClientCrlUnusable, &["client_crl"], mistake);
    let lists = lists.map_err(unread)?;
    // rustls does not ask for a certificate when a session is resumed: one that was begun without it is no
    // session of a listener that wants one.
    let verified_by =
        clients::digest(tls.client_auth, digest(&keys, authorities.as_deref(), &lists));
    let client_authorities = authorities
        .as_deref()
        .map(|all| clients::digest(tls.client_auth, digest(&[], Some(all), &lists)));
    let builder = match (&tls.client_ca, authorities) {
        (Some(file), Some(authorities)) => {
            let verifier = clients::verifier(file, authorities, tls.client_auth, lists, provider);
            let verifier = verifier.map_err(|wrong| match wrong {
                clients::Wrong::Authorities(mistake) => refused(mistake),
                clients::Wrong::Lists(mistake) => unread(mistake),
            })?;
            builder.with_client_cert_verifier(Arc::new(handshake::Clients(verifier)))
        }
        (Some(_), None) | (None, _) => builder.with_no_client_auth(),
    };
    let certificates = Arc::new(Certificates::new(keys));
    let mut config = builder.with_cert_resolver(certificates.clone());
    config.alpn_protocols = tls.alpn.iter().map(|protocol| protocol.wire().to_vec()).collect();
    let kept = before.filter(|before| before.verified_by == verified_by);
    let kept = kept.and_then(|kept| kept.own.clone());
    let own = use_tickets(&mut config, &tls.tickets, &verified_by, kept);
    let own =
        own.map_err(|(keys, message)| problem(Code::TicketsUnusable, keys, Mistake::new(message)))?;
    Ok(Handshakes {
        config: Arc::new(config),
        verified_by,
        client_authorities,
        own,
        certificates,
        material,
        refuses_unknown: tls.unknown_name == UnknownName::Refuse,
        not_after,
    })
}

/// Sets how sessions are resumed. Returns the ticketer if it is the gateway's own: the one that was
/// `kept`, if any.
fn use_tickets(
    config: &mut ServerConfig,
    wanted: &Tickets,
    verified_by: &Digest,
    kept: Option<Arc<dyn ProducesTickets>>,
) -> Result<Option<Arc<dyn ProducesTickets>>, WrongKey> {
    // Clients keep their sessions in tickets; the gateway stores none.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    match wanted {
        Tickets::Off => config.send_tls13_tickets = 0,
        Tickets::On => {
            let own = kept.map_or_else(tickets::own, Ok);
            let own = own.map_err(|e| (&["tickets"][..], e.to_string()))?;
            config.ticketer = own.clone();
            return Ok(Some(own));
        }
        Tickets::Keys(file) => {
            let shared = tickets::shared(file, verified_by);
            config.ticketer = shared.map_err(|message| (&["tickets", "keys"][..], message))?;
        }
    }
    Ok(None)
}

/// Hashes everything that proves an identity. Each part is preceded by its length, so that parts
/// cannot run into each other.
fn digest(
    keys: &[Arc<CertifiedKey>],
    authorities: Option<&[CertificateDer<'_>]>,
    revoked: &[CertificateRevocationListDer<'_>],
) -> Digest {
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
    for list in revoked {
        add(b"revoked");
        add(list);
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

/// A chain of certificates, and the key of the first.
type Chain = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A certificate by which the gateway itself is a client, with its key. The error names which of the two
/// files is wrong.
pub(super) fn identity(certificate: &Path, key: &Path) -> Result<Chain, (&'static str, Mistake)> {
    certified_key(certificate, key, &provider())?;
    let chain = certificates(certificate).map_err(|mistake| ("certificate", mistake))?;
    let unreadable = |_| {
        let file = certificate.display();
        ("certificate", Mistake::new(format!("a certificate of `{file}` cannot be read")))
    };
    // Pingora reads all of them with this parser, and panics if that fails.
    for certificate in &chain {
        x509_parser::parse_x509_certificate(certificate).map_err(unreadable)?;
    }
    let private = private_key(key).map_err(|mistake| ("key", mistake))?;
    // They have been read once more, and may have changed meanwhile.
    CertifiedKey::from_der(chain.clone(), private.clone_key(), &provider()).map_err(|_| {
        let (file, key) = (certificate.display(), key.display());
        ("key", Mistake::new(format!("`{key}` is not the key of `{file}`")))
    })?;
    Ok((chain, private))
}

/// A certificate with its key. The error names which of the two files is wrong.
fn certified_key(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, (&'static str, Mistake)> {
    let chain = certificates(certificate).map_err(|mistake| ("certificate", mistake))?;
    let private = private_key(key).map_err(|mistake| ("key", mistake))?;
    let other = || place_of(&chain, &private, provider);
    let certified = CertifiedKey::from_der(chain.clone(), private.clone_key(), provider);
    let mut certified = certified.map_err(|error| {
        let (file, key) = (certificate.display(), key.display());
        match error {
            rustls::Error::InconsistentKeys(_) => match other() {
                Some(place) => {
                    let mistake = Mistake::new(format!(
                        "`{file}` is out of order: `{key}` is the key of its certificate {place}, \
                         not of its first"
                    ));
                    ("certificate", mistake.remedied(
                        "put the server's own certificate first, then the one that has issued it, \
                         and so on",
                    ))
                }
                None => {
                    let mistake = Mistake::new(format!("`{key}` is not the key of `{file}`"));
                    ("key", mistake.remedied(format!(
                        "name the key that the certificate was issued for: `openssl pkey -in {key} -pubout` \
                         prints the same as `openssl x509 -in {file} -noout -pubkey`"
                    )))
                }
            },
            rustls::Error::InvalidCertificate(_) => {
                ("certificate", Mistake::new(format!("`{file}`: {error}")))
            }
            other => ("key", Mistake::new(format!("`{key}`: {other}"))),
        }
    })?;
    certified.key = Arc::new(handshake::Key(certified.key));
    Ok(certified)
}

/// Which certificate of `chain` `private` is the key of, counted from 1.
fn place_of(
    chain: &[CertificateDer<'static>],
    private: &PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Option<usize> {
    let is_of = |one: &CertificateDer<'static>| {
        CertifiedKey::from_der(vec![one.clone()], private.clone_key(), provider).is_ok()
    };
    chain.iter().position(is_of).map(|place| place + 1)
}

/// When a certificate ends, in seconds since 1970.
pub(super) fn end_of(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(parsed.validity().not_after.timestamp())
}
