//! Fuzz target for certificates of clients, and for what proxies tell of them.

use http::HeaderValue;
use pingora_core::utils::tls::get_organization_serial_bytes;
use rustls::pki_types::CertificateDer;

use super::clients;
use crate::identity::pattern::Pattern;
use crate::identity::{Name, Peer};

/// What a proxy appends to the field of its client.
const APPENDED: &str = "Hash=;URI=spiffe://prod/appended";

/// A certificate, and the same bytes as the text of an `X-Forwarded-Client-Cert` field.
///
/// Names are in their normal form and survive being told; what the gateway can read, Pingora can; and
/// whatever a client sends, the last element is the proxy's.
pub fn certificate(input: &[u8]) {
    if let Ok(peer) = clients::peer(&CertificateDer::from(input)) {
        // It would end the task of the connection.
        let _ = get_organization_serial_bytes(input);
        assert_eq!(peer.hash().len(), 64);
        check(&peer);
    }
    let Some(text) = HeaderValue::from_bytes(input).ok() else { return };
    let Ok(text) = text.to_str() else { return };
    if let Some(peer) = Peer::from_field(text) {
        check(&peer);
    }
    if let Some(peer) = Peer::from_field(&format!("{text},{APPENDED}")) {
        assert_eq!(names(&peer, true), ["spiffe://prod/appended"], "{text}");
    }
}

fn names(peer: &Peer, with_common_name: bool) -> Vec<&str> {
    peer.names(with_common_name).map(Name::as_str).collect()
}

fn check(peer: &Peer) {
    let kinds: Vec<_> = peer.names(true).collect();
    for name in &kinds {
        match name {
            Name::Spiffe(id) => {
                assert_eq!(kinds.len(), 1, "a SPIFFE id is the only name");
                assert_matches_itself(*name);
                let again = Peer::try_new([*id].into_iter(), [].into_iter(), None, &[]);
                assert_eq!(names(&again.expect("a SPIFFE id"), false), [*id]);
            }
            Name::Dns(dns) => {
                assert_eq!(dns.to_ascii_lowercase(), *dns);
                if !dns.starts_with('*') {
                    assert_matches_itself(*name);
                }
            }
            Name::Common(common) => assert!(!common.is_empty() && !common.contains("://")),
        }
    }
    let field = peer.to_field();
    HeaderValue::from_str(&field).expect("a header's value");
    let known = names(peer, false);
    match Peer::from_field(&field) {
        Some(told) => {
            assert_eq!(names(&told, false), known, "{field}");
            assert_eq!(told.hash(), peer.hash());
        }
        None => assert!(known.is_empty(), "{field}"),
    }
}

fn assert_matches_itself(name: Name<'_>) {
    let pattern: Pattern = name.as_str().parse().expect("a pattern");
    assert!(pattern.matches(name), "{name:?}");
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Steele, Lea and Flood's SplitMix64.
    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    #[test]
    fn ten_thousand_damaged_certificates_end_no_task() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/certificate");
        let files =
            fs::read_dir(folder).expect("a corpus").map(|file| file.expect("a file").path());
        let files = files.filter(|file| file.extension().is_some());
        let certificates: Vec<_> =
            files.map(|file| fs::read(file).expect("a certificate")).collect();
        let (mut state, mut read) = (1, 0);
        for number in 0..10_000 {
            let mut damaged = certificates[number % certificates.len()].clone();
            for _ in 0..=random(&mut state) % 4 {
                let at = random(&mut state) as usize % damaged.len();
                match random(&mut state) % 4 {
                    0 => damaged[at] ^= 1 << (random(&mut state) % 8),
                    1 => damaged[at] = random(&mut state) as u8,
                    2 => drop(damaged.remove(at)),
                    _ => damaged.insert(at, random(&mut state) as u8),
                }
                if damaged.is_empty() {
                    break;
                }
            }
            certificate(&damaged);
            read += usize::from(clients::peer(&CertificateDer::from(&damaged[..])).is_ok());
        }
        // Damage that is noticed at once would show nothing.
        assert!(read > 1_000, "{read}");
    }
}
