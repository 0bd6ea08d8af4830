//! Authorities, certificates, and clients that trust them.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::h2_client::wait;

/// Whoever trusts it trusts what it has signed.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub struct Leaf {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Authority(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn sign(&self, name: &str) -> Leaf {
        self.signed(CertificateParams::new(vec![name.to_owned()]).expect("a name"))
    }

    /// One that was good for a day, long ago.
    pub fn sign_expired(&self, name: &str) -> Leaf {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 2);
        self.signed(params)
    }

    fn signed(&self, params: CertificateParams) -> Leaf {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Leaf { certificate, key }
    }
}

impl Leaf {
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

/// A handshake with whoever is `name`, and trusted by `authority`.
pub fn connect_tls(
    address: SocketAddr,
    name: &str,
    authority: &Authority,
    own: Option<&Leaf>,
    protocol: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.0.der().clone()).expect("an authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match own {
        Some(leaf) => {
            let chain: Vec<CertificateDer<'static>> = vec![leaf.certificate.der().clone()];
            let key = PrivateKeyDer::try_from(leaf.key.serialize_der()).expect("a key");
            config.with_client_auth_cert(chain, key).expect("a client's certificate")
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    wait("a handshake", async {
        let stream = TcpStream::connect(address).await.expect("the gateway accepts");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    })
}
