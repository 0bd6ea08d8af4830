//! Which certificate a client gets: a map by name and by address, made once when the configuration is
//! compiled. Nothing is parsed in a handshake.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;

use super::handshake;

/// A name that a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Name {
    /// This one, in lower case.
    Exact(String),
    /// Every name with one label before this: `example.com` for `*.example.com`.
    Below(String),
    /// This address.
    Address(IpAddr),
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Name::Exact(name) => f.write_str(name),
            Name::Below(name) => write!(f, "*.{name}"),
            Name::Address(address) => address.fmt(f),
        }
    }
}

/// The names that clients accept `leaf` for: those of its extension. The common name is not one of
/// them.
pub(super) fn of(leaf: &CertificateDer<'_>) -> Vec<Name> {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(leaf) else { return Vec::new() };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return Vec::new() };
    names.value.general_names.iter().filter_map(of_general).collect()
}

fn of_general(name: &GeneralName<'_>) -> Option<Name> {
    match name {
        GeneralName::DNSName(name) => of_dns(name),
        GeneralName::IPAddress(bytes) => {
            let v4 = || <[u8; 4]>::try_from(*bytes).ok().map(|bytes| Ipv4Addr::from(bytes).into());
            let v6 = || <[u8; 16]>::try_from(*bytes).ok().map(|bytes| Ipv6Addr::from(bytes).into());
            v4().or_else(v6).map(Name::Address)
        }
        _ => None,
    }
}

/// A wildcard counts only as the whole first label, as for clients.
fn of_dns(name: &str) -> Option<Name> {
    let name = canonical(name);
    let (is_wildcard, rest) = match name.strip_prefix("*.") {
        Some(rest) => (true, rest),
        None => (false, &*name),
    };
    if rest.is_empty() || rest.contains('*') {
        return None;
    }
    Some(if is_wildcard { Name::Below(rest.to_owned()) } else { Name::Exact(rest.to_owned()) })
}

/// In lower case, and without the dot of the root.
fn canonical(name: &str) -> Cow<'_, str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    }
}

/// A listener's certificates by name. Where several are for the same name, the first in the order of
/// the file has it.
#[derive(Debug)]
pub(super) struct Certificates {
    /// In the order of the file.
    all: Vec<Arc<CertifiedKey>>,
    exact: HashMap<Box<str>, usize>,
    below: HashMap<Box<str>, usize>,
    addresses: HashMap<IpAddr, usize>,
}

impl Certificates {
    pub(super) fn new(all: Vec<Arc<CertifiedKey>>) -> Self {
        let named = all.iter().map(|key| key.cert.first().map(of).unwrap_or_default());
        let named: Vec<_> = named.collect();
        Certificates { all, ..Certificates::named(&named) }
    }

    /// The map alone.
    fn named(certificates: &[Vec<Name>]) -> Self {
        let (all, exact, below) = (Vec::new(), HashMap::new(), HashMap::new());
        let mut map = Certificates { all, exact, below, addresses: HashMap::new() };
        for (place, names) in certificates.iter().enumerate() {
            for name in names {
                match name {
                    Name::Exact(name) => {
                        map.exact.entry(name.as_str().into()).or_insert(place);
                    }
                    Name::Below(name) => {
                        map.below.entry(name.as_str().into()).or_insert(place);
                    }
                    Name::Address(address) => {
                        map.addresses.entry(*address).or_insert(place);
                    }
                }
            }
        }
        map
    }

    /// The place of the certificate for a name: of one that has it, else of one with a wildcard.
    pub(super) fn of_name(&self, name: &str) -> Option<usize> {
        let name = canonical(name);
        let wildcard = || {
            let (label, rest) = name.split_once('.')?;
            (!label.is_empty()).then(|| self.below.get(rest))?
        };
        self.exact.get(&*name).or_else(wildcard).copied()
    }

    /// Whether a client that asks for no name may get another certificate than the first.
    pub(super) fn has_addresses(&self) -> bool {
        !self.addresses.is_empty()
    }

    fn of_address(&self, address: IpAddr) -> Option<usize> {
        self.addresses.get(&address.to_canonical()).copied()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let place = match hello.server_name() {
            Some(name) => self.of_name(name),
            None => handshake::local_address().and_then(|address| self.of_address(address)),
        };
        self.all.get(place.unwrap_or_default()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(certificates: &[&[&str]]) -> Certificates {
        let names = |names: &&[&str]| names.iter().filter_map(|name| of_dns(name)).collect();
        Certificates::named(&certificates.iter().map(names).collect::<Vec<_>>())
    }

    #[test]
    fn a_name_goes_before_a_wildcard_wherever_they_stand() {
        let map = map(&[&["*.example.com"], &["api.example.com"], &["example.com"]]);
        assert_eq!(map.of_name("api.example.com"), Some(1));
        assert_eq!(map.of_name("www.example.com"), Some(0));
        assert_eq!(map.of_name("example.com"), Some(2));
    }

    #[test]
    fn a_wildcard_is_for_one_label_alone() {
        let map = map(&[&["*.example.com"]]);
        for unknown in ["example.com", "a.b.example.com", ".example.com", "other.com", "com", ""] {
            assert_eq!(map.of_name(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn case_and_the_dot_of_the_root_make_no_difference() {
        let map = map(&[&["API.Example.com."], &["*.OTHER.test"]]);
        for name in ["api.example.com", "Api.Example.COM", "api.example.com."] {
            assert_eq!(map.of_name(name), Some(0), "{name}");
        }
        assert_eq!(map.of_name("X.other.TEST"), Some(1));
    }

    #[test]
    fn of_two_certificates_with_the_same_name_the_first_has_it() {
        let map = map(&[&["a.test"], &["b.test", "a.test", "*.c.test"], &["*.c.test"]]);
        assert_eq!(map.of_name("a.test"), Some(0));
        assert_eq!(map.of_name("b.test"), Some(1));
        assert_eq!(map.of_name("x.c.test"), Some(1));
    }

    #[test]
    fn a_wildcard_that_is_not_the_whole_first_label_is_for_no_name() {
        for odd in ["a*.example.com", "a.*.example.com", "*", "*.", "*.*.com", ""] {
            assert_eq!(of_dns(odd), None, "{odd}");
        }
    }

    #[test]
    fn the_names_of_a_certificate_are_those_of_its_extension() {
        let names = ["A.test", "*.b.test", "192.0.2.1", "2001:db8::1"].map(str::to_owned);
        let params = rcgen::CertificateParams::new(names).expect("names");
        let key = rcgen::KeyPair::generate().expect("a key");
        let leaf = params.self_signed(&key).expect("a certificate");
        let address = |text: &str| Name::Address(text.parse().expect("an address"));
        assert_eq!(
            of(leaf.der()),
            [
                Name::Exact("a.test".to_owned()),
                Name::Below("b.test".to_owned()),
                address("192.0.2.1"),
                address("2001:db8::1"),
            ]
        );
        let map = Certificates::named(&[Vec::new(), of(leaf.der())]);
        assert_eq!(map.of_address("::ffff:192.0.2.1".parse().expect("an address")), Some(1));
        assert_eq!(map.of_address("192.0.2.2".parse().expect("an address")), None);
        assert!(of(&CertificateDer::from(&b"nothing"[..])).is_empty());
    }
}
