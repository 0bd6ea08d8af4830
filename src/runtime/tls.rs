//! TLS towards clients: certificates and authorities, read and checked when a configuration is
//! compiled. What a handshake agrees on is `proxy::listener`'s business.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, ParsedCertificate, ResolvesServerCert, ServerConfig, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;

use crate::config::Problem;
use crate::config::server::Tls;

/// What a listener's handshakes go by.
///
/// # Errors
/// A file cannot be read, or does not hold what it should.
pub fn compile(listener: &str, tls: &Tls) -> Result<Arc<ServerConfig>, Problem> {
    let problem =
        |key: &str, message| Problem::new(format!("listeners.{listener}.tls{key}"), message);
    let provider = provider();
    let mut keys = Vec::with_capacity(tls.certificates.len());
    for (index, files) in tls.certificates.iter().enumerate() {
        let key = certified_key(&files.certificate, &files.key, &provider);
        keys.push(Arc::new(key.map_err(|e| problem(&format!(".certificates[{index}]"), e))?));
    }
    if keys.is_empty() {
        return Err(problem(".certificates", "at least one certificate is needed".to_owned()));
    }
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder =
        builder.with_safe_default_protocol_versions().map_err(|e| problem("", e.to_string()))?;
    let builder = match &tls.client_ca {
        Some(file) => {
            let verifier = client_verifier(file, provider).map_err(|e| problem(".client_ca", e))?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Certificates(keys)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The one that is installed, and in a test the one that would be.
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
    CertifiedKey::from_der(chain, private, provider).map_err(|error| of_file(key, &error))
}

fn client_verifier(
    file: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
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

fn of_file(file: &Path, error: &dyn Display) -> String {
    format!("{}: {error}", file.display())
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
