//! Authorities, certificates, and clients that trust them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::h2_client::wait;

/// A client or server that trusts it trusts what it has signed.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub struct Leaf {
    certificate: rcgen::Certificate,
    key: KeyPair,
    serial: SerialNumber,
}

fn rand_serial() -> u64 {
    // The first bit is that of the sign.
    fastrand::u64(1..u64::MAX / 2)
}

impl Authority {
    pub fn new() -> Self {
        Authority::named("authority of the tests")
    }

    /// One whose certificate has this name.
    pub fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        Authority(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn sign(&self, name: &str) -> Leaf {
        self.signed(CertificateParams::new(vec![name.to_owned()]).expect("a name"))
    }

    /// One for several names, which may be addresses.
    pub fn sign_all(&self, names: &[&str]) -> Leaf {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        self.signed(CertificateParams::new(names).expect("names"))
    }

    /// One that was good for a day, long ago.
    pub fn sign_expired(&self, name: &str) -> Leaf {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 2);
        self.signed(params)
    }

    /// One that expires at the end of the current second and so many more.
    pub fn sign_until(&self, name: &str, seconds: u64) -> Leaf {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time");
        let until = Duration::from_secs(now.as_secs() + seconds);
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + until;
        self.signed(params)
    }

    /// One that is good between these numbers of seconds from now.
    pub fn sign_between(&self, name: &str, from: i64, until: i64) -> Leaf {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time");
        let at = |seconds: i64| {
            let since_1970 = now.as_secs().saturating_add_signed(seconds);
            rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(since_1970)
        };
        (params.not_before, params.not_after) = (at(from), at(until));
        self.signed(params)
    }

    /// One that is good for clients, and not for servers.
    pub fn sign_for_clients(&self, name: &str) -> Leaf {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.signed(params)
    }

    /// One for a client with these names: URIs, DNS names, and a common name if it is not empty.
    pub fn sign_client(&self, uris: &[&str], dns: &[&str], common_name: &str) -> Leaf {
        let dns: Vec<_> = dns.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(dns).expect("names");
        let uris = uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("ASCII")));
        params.subject_alt_names.extend(uris);
        params.distinguished_name = DistinguishedName::new();
        if !common_name.is_empty() {
            params.distinguished_name.push(DnType::CommonName, common_name);
        }
        self.signed(params)
    }

    /// A client whose alternative names are the bytes `names`: not DER, for a reader who looks.
    pub fn sign_unreadable(&self, names: &[u8], common_name: &str) -> Leaf {
        const ALTERNATIVE_NAMES: &[u64] = &[2, 5, 29, 17];
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        let names = CustomExtension::from_oid_content(ALTERNATIVE_NAMES, names.to_vec());
        params.custom_extensions.push(names);
        self.signed(params)
    }

    /// Puts a certificate, its key and this authority's own into a folder, by the names that Kubernetes has for
    /// them; each takes the place of the file before as a whole.
    pub fn put(&self, leaf: &Leaf, folder: &Path) {
        let files = [("tls.crt", leaf.pem()), ("tls.key", leaf.key_pem()), ("ca.crt", self.pem())];
        for (name, text) in files {
            let new = folder.join("new");
            std::fs::write(&new, text).expect("written");
            std::fs::rename(new, folder.join(name)).expect("renamed");
        }
    }

    /// A list of what it has revoked, in PEM.
    pub fn revoke(&self, leaves: &[&Leaf]) -> String {
        let day = |day: u64| rcgen::date_time_ymd(2020, 1, 1) + Duration::from_secs(day * 86_400);
        let revoked = leaves.iter().map(|leaf| RevokedCertParams {
            serial_number: leaf.serial.clone(),
            revocation_time: day(1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: day(1),
            next_update: day(36_500),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).expect("a list").pem().expect("PEM")
    }

    fn signed(&self, mut params: CertificateParams) -> Leaf {
        let serial = params.serial_number.clone();
        let serial = serial.unwrap_or_else(|| SerialNumber::from(rand_serial()));
        params.serial_number = Some(serial.clone());
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Leaf { certificate, key, serial }
    }
}

impl Leaf {
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub fn der(&self) -> &[u8] {
        self.certificate.der()
    }

    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// What a server goes by.
    pub fn server_config(&self) -> ServerConfig {
        let chain: Vec<CertificateDer<'static>> = vec![self.certificate.der().clone()];
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a server's certificate")
    }
}

/// What a client goes by.
pub fn client_config(
    authority: &Authority,
    own: Option<&Leaf>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(authority.0.der().clone()).expect("an authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots);
    match own {
        Some(leaf) => {
            let chain: Vec<CertificateDer<'static>> = vec![leaf.certificate.der().clone()];
            let key = PrivateKeyDer::try_from(leaf.key.serialize_der()).expect("a key");
            config.with_client_auth_cert(chain, key).expect("a client's certificate")
        }
        None => config.with_no_client_auth(),
    }
}

/// A handshake with a server whose certificate is for `name` and signed by `authority`.
pub fn connect_tls(
    address: SocketAddr,
    name: &str,
    authority: &Authority,
    own: Option<&Leaf>,
    protocol: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    connect_tls_after(b"", address, name, authority, own, protocol)
}

/// The same over a connection that begins with `first`, and not with the handshake.
pub fn connect_tls_after(
    first: &[u8],
    address: SocketAddr,
    name: &str,
    authority: &Authority,
    own: Option<&Leaf>,
    protocol: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut config = client_config(authority, own, rustls::DEFAULT_VERSIONS);
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    connect_tls_by(config, first, address, name)
}

/// The same of a client that goes by `config`. One that asks for an address names none in its hello.
pub fn connect_tls_by(
    config: ClientConfig,
    first: &[u8],
    address: SocketAddr,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    wait("a handshake", async {
        let mut stream = TcpStream::connect(address).await.expect("the gateway accepts");
        stream.write_all(first).await?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    })
}

/// What a client of `name` sends first.
pub fn client_hello(config: ClientConfig, name: &str) -> Vec<u8> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let client = rustls::ClientConnection::new(Arc::new(config), name);
    let mut hello = Vec::new();
    client.expect("a client").write_tls(&mut hello).expect("a hello");
    hello
}

/// A client of `one.test` that keeps its sessions.
pub struct Returning(Arc<ClientConfig>);

impl Returning {
    pub fn new(
        authority: &Authority,
        own: Option<&Leaf>,
        version: &'static SupportedProtocolVersion,
    ) -> Self {
        Returning(Arc::new(client_config(authority, own, &[version])))
    }

    /// Another one like it, without a session.
    pub fn another(&self) -> Self {
        let mut config = ClientConfig::clone(&self.0);
        config.resumption = Resumption::in_memory_sessions(4);
        Returning(Arc::new(config))
    }

    /// One request on a connection of its own: how they came to agree, if it was answered.
    pub fn visit(&self, address: SocketAddr) -> std::io::Result<HandshakeKind> {
        let name = ServerName::try_from("one.test").expect("a name");
        wait("a visit", async {
            let stream = TcpStream::connect(address).await?;
            let mut stream = TlsConnector::from(self.0.clone()).connect(name, stream).await?;
            let request = b"GET /x HTTP/1.1\r\nHost: one.test\r\nConnection: close\r\n\r\n";
            stream.write_all(request).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            if !answer.starts_with(b"HTTP/1.1 200") {
                return Err(std::io::Error::other(String::from_utf8_lossy(&answer).into_owned()));
            }
            Ok(stream.get_ref().1.handshake_kind().expect("a handshake"))
        })
    }
}
