//! Session tickets: TLS sessions that clients keep, encrypted, and present to resume.
//!
//! The gateway stores none of them, so it can serve any number of clients. A holder of the ticket
//! key could decrypt TLS 1.2 sessions and impersonate clients. The gateway's own key is random,
//! rotated, and never leaves the process.

use std::fmt::{self, Debug, Formatter};
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::aead::{self, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use aws_lc_rs::rand;
use rustls::crypto::GetRandomFailed;
use rustls::pki_types::UnixTime;
use rustls::server::ProducesTickets;
use rustls::ticketer::TicketRotator;

use super::Digest;
use super::handshake::{self, Terms};
use crate::files::text::text_of;
use crate::units::reason;

/// Seconds after its full handshake for which a session can be resumed.
const LIFETIME: u32 = 12 * 60 * 60;
/// Seconds after which the gateway changes its own key. The previous key still opens tickets.
const ROTATION: u32 = LIFETIME / 2;
/// Fewest characters of a key that replicas share: the Base64 form of 24 random bytes.
const SHORTEST: usize = 32;
/// Limit in bytes. Longer sessions, such as those with very long client certificate chains, are not
/// worth sending.
const LONGEST_SESSION: usize = 16 * 1024;

const NAME: usize = 16;
const SALT: usize = 32;
/// The length in bytes: two numbers of 64 bits.
const TERMS: usize = 16;
/// Stands in for the expiry of a client certificate if there is none.
const NEVER: u64 = u64::MAX;

/// A ticketer with the gateway's own keys.
pub(super) fn own() -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
    let generate = || -> Result<Box<dyn ProducesTickets>, GetRandomFailed> {
        let mut secret = [0; 32];
        rand::fill(&mut secret).map_err(|_| GetRandomFailed)?;
        Ok(Box::new(Key::derive(&secret, &Digest::default()).ok_or(GetRandomFailed)?))
    };
    Ok(Arc::new(TicketRotator::new(ROTATION, generate)?))
}

/// A ticketer with the keys of a file, for sessions verified by the same certificates and
/// authorities.
pub(super) fn shared(
    file: &Path,
    verified_by: &Digest,
) -> Result<Arc<dyn ProducesTickets>, String> {
    let name = file.display();
    let bytes = std::fs::read(file)
        .map_err(|error| format!("the file `{name}` cannot be read: {}", reason(&error)))?;
    let keys =
        keys(&bytes, verified_by).map_err(|message| format!("the file `{name}` {message}"))?;
    Ok(Arc::new(Shared(keys)))
}

/// Reads one key per line.
fn keys(bytes: &[u8], verified_by: &Digest) -> Result<Vec<Key>, String> {
    let text = text_of(bytes).map_err(|error| error.reason)?;
    let mut keys: Vec<(usize, Key)> = Vec::new();
    let lines = (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty());
    for (number, secret) in lines {
        if secret.len() < SHORTEST {
            return Err(format!(
                "has a key of {} characters in line {number}, which needs at least {SHORTEST}",
                secret.len()
            ));
        }
        let key = Key::derive(secret.as_bytes(), verified_by)
            .ok_or_else(|| format!("has a key in line {number} that cannot be used"))?;
        if let Some((first, _)) = keys.iter().find(|(_, other)| other.name == key.name) {
            return Err(format!("has the key of line {first} in line {number} again"));
        }
        keys.push((number, key));
    }
    if keys.is_empty() {
        return Err("holds no key".to_owned());
    }
    Ok(keys.into_iter().map(|(_, key)| key).collect())
}

/// The first key seals; all of them open.
#[derive(Debug)]
struct Shared(Vec<Key>);

impl ProducesTickets for Shared {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        self.0.first()?.encrypt(session)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.0.iter().find(|key| ticket.starts_with(&key.name))?.decrypt(ticket)
    }
}

/// Seals and opens tickets. A ticket is the key's name, a salt, and the encrypted terms and
/// session.
struct Key {
    name: [u8; NAME],
    secret: Prk,
    verified_by: Digest,
}

impl Debug for Key {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").finish_non_exhaustive()
    }
}

impl Key {
    fn derive(secret: &[u8], verified_by: &Digest) -> Option<Key> {
        let secret = Salt::new(HKDF_SHA256, b"portcullis tls tickets 1").extract(secret);
        let mut name = [0; NAME];
        secret.expand(&[b"name", verified_by], Length(NAME)).ok()?.fill(&mut name).ok()?;
        Some(Key { name, secret, verified_by: *verified_by })
    }

    /// Derives a key for each ticket, so that a key that replicas share is not worn out by the
    /// number of tickets.
    fn of_ticket(&self, salt: &[u8]) -> Option<LessSafeKey> {
        let of = [b"ticket", &self.verified_by[..], salt];
        let key = self.secret.expand(&of, &AES_256_GCM).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(key)))
    }

    fn seal(&self, session: &[u8], terms: Terms) -> Option<Vec<u8>> {
        if session.len() > LONGEST_SESSION {
            return None;
        }
        let mut salt = [0; SALT];
        rand::fill(&mut salt).ok()?;
        let room = NAME + SALT + TERMS + session.len() + aead::MAX_TAG_LEN;
        let mut ticket = Vec::with_capacity(room);
        ticket.extend_from_slice(&self.name);
        ticket.extend_from_slice(&salt);
        ticket.extend_from_slice(&terms.begun.to_be_bytes());
        ticket.extend_from_slice(&terms.client_until.unwrap_or(NEVER).to_be_bytes());
        ticket.extend_from_slice(session);
        let plain = ticket.get_mut(NAME + SALT..)?;
        let sealed = self.of_ticket(&salt)?.seal_in_place_separate_tag(only(), Aad::empty(), plain);
        ticket.extend_from_slice(sealed.ok()?.as_ref());
        Some(ticket)
    }

    /// Opens a ticket. Also `None` if the session has expired.
    fn open(&self, ticket: &[u8], now: u64) -> Option<(Terms, Vec<u8>)> {
        let ticket = ticket.strip_prefix(&self.name)?;
        let (salt, sealed) = ticket.split_at_checked(SALT)?;
        let mut plain = sealed.to_vec();
        let opened = self.of_ticket(salt)?.open_in_place(only(), Aad::empty(), &mut plain).ok()?;
        let (begun, rest) = opened.split_first_chunk()?;
        let (client_until, session) = rest.split_first_chunk()?;
        let (begun, client_until) = (u64::from_be_bytes(*begun), u64::from_be_bytes(*client_until));
        // `begun` may lie in the future, if a replica with a fast clock sealed the ticket.
        if now.saturating_sub(begun) >= u64::from(LIFETIME) || now > client_until {
            return None;
        }
        let client_until = (client_until != NEVER).then_some(client_until);
        Some((Terms { begun, client_until }, session.to_vec()))
    }
}

/// A fixed nonce, safe because each key seals only once.
fn only() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

impl ProducesTickets for Key {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        self.seal(session, handshake::terms(UnixTime::now().as_secs()))
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (terms, session) = self.open(ticket, UnixTime::now().as_secs())?;
        handshake::offered(terms);
        Some(session)
    }
}

/// The number of bytes to derive.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
    const NOW: u64 = 1_800_000_000;
    const TERMS: Terms = Terms { begun: NOW, client_until: None };

    fn key(verified_by: u8) -> Key {
        Key::derive(SECRET, &[verified_by; 32]).expect("a key")
    }

    #[test]
    fn a_ticket_opens_by_the_same_secret_and_authorities_alone() {
        let ticket = key(1).seal(b"session", TERMS).expect("a ticket");
        assert_eq!(key(1).open(&ticket, NOW), Some((TERMS, b"session".to_vec())));
        assert_eq!(key(2).open(&ticket, NOW), None, "other authorities");
        let other = Key::derive(b"another secret of 32 characters.", &[1; 32]).expect("a key");
        assert_eq!(other.open(&ticket, NOW), None);
        // The name only tells which key to try.
        let renamed = [&other.name[..], &ticket[NAME..]].concat();
        assert_eq!(other.open(&renamed, NOW), None);
        assert!(!ticket.windows(7).any(|part| part == b"session"));
    }

    #[test]
    fn a_ticket_that_was_touched_or_cut_does_not_open() {
        let ticket = key(1).seal(b"session", TERMS).expect("a ticket");
        for at in 0..ticket.len() {
            assert_eq!(key(1).open(&ticket[..at], NOW), None, "cut at {at}");
            let mut touched = ticket.clone();
            touched[at] ^= 1;
            assert_eq!(key(1).open(&touched, NOW), None, "touched at {at}");
        }
    }

    #[test]
    fn a_session_ends_twelve_hours_after_its_full_handshake() {
        let ticket = key(1).seal(b"session", TERMS).expect("a ticket");
        let lifetime = u64::from(LIFETIME);
        assert!(key(1).open(&ticket, NOW + lifetime - 1).is_some());
        assert_eq!(key(1).open(&ticket, NOW + lifetime), None);
        assert!(key(1).open(&ticket, NOW - 60).is_some(), "a clock behind the sealing one");
    }

    #[test]
    fn a_session_ends_with_its_clients_certificate() {
        let terms = Terms { begun: NOW, client_until: Some(NOW + 60) };
        let ticket = key(1).seal(b"session", terms).expect("a ticket");
        assert_eq!(key(1).open(&ticket, NOW + 60), Some((terms, b"session".to_vec())));
        assert_eq!(key(1).open(&ticket, NOW + 61), None);
    }

    #[test]
    fn no_two_tickets_are_alike() {
        let seal = || key(1).seal(b"session", TERMS).expect("a ticket");
        assert_ne!(seal()[NAME..], seal()[NAME..]);
    }

    #[test]
    fn a_session_too_long_for_a_ticket_gets_none() {
        assert!(key(1).seal(&[0; LONGEST_SESSION], TERMS).is_some());
        assert!(key(1).seal(&[0; LONGEST_SESSION + 1], TERMS).is_none());
    }

    #[test]
    fn the_first_key_seals_and_every_key_opens() {
        let (old, new) = ("o".repeat(32), "n".repeat(32));
        let shared = |text: &str| Shared(keys(text.as_bytes(), &[1; 32]).expect("keys"));
        let before = shared(&old).encrypt(b"session").expect("a ticket");
        let rotated = shared(&format!("{new}\n\n  {old}  \n"));
        assert_eq!(rotated.decrypt(&before).as_deref(), Some(&b"session"[..]));
        let after = rotated.encrypt(b"session").expect("a ticket");
        assert_eq!(shared(&old).decrypt(&after), None);
        assert_eq!(shared(&new).decrypt(&after).as_deref(), Some(&b"session"[..]));
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_key() {
        let (first, second) = ("f".repeat(32), "s".repeat(32));
        let shared = |text: &str| Shared(keys(text.as_bytes(), &[1; 32]).expect("keys"));
        let marked = shared(&format!("\u{feff}{first}\r\n{second}\r\n"));
        let ticket = marked.encrypt(b"session").expect("a ticket");
        assert_eq!(shared(&first).decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        let ticket = shared(&second).encrypt(b"session").expect("a ticket");
        assert_eq!(marked.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
    }

    #[test]
    fn keys_that_are_short_double_or_absent_are_refused() {
        let long = "k".repeat(32);
        let refused = |text: &str| keys(text.as_bytes(), &[1; 32]).expect_err("no keys");
        let short = refused(&format!("{long}\nsecret"));
        assert!(
            short.contains("a key of 6 characters in line 2, which needs at least 32"),
            "{short}"
        );
        assert!(!short.contains("secret"), "{short}");
        assert!(
            refused(&format!("{long}\n\n{long}")).contains("the key of line 1 in line 3 again")
        );
        assert!(refused(" \n").contains("no key"));
        assert_eq!(keys(b"\xff\xfek\0", &[1; 32]).expect_err("no text"), "is in UTF-16");
    }

    #[test]
    fn keys_of_the_gateways_own_are_never_alike() {
        let (one, two) = (own().expect("a ticketer"), own().expect("a ticketer"));
        let ticket = one.encrypt(b"session").expect("a ticket");
        assert_eq!(one.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(two.decrypt(&ticket), None);
        assert_eq!(one.lifetime(), LIFETIME);
    }
}
