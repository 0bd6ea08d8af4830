//! What a key is looked up by, and what distinguishes two requests with one key.
//!
//! Both are SHA-256 digests, so that a store holds neither the key nor any part of the request.

use std::net::IpAddr;

use aws_lc_rs::digest::{Context, SHA256};

use super::key::Key;

/// The owner of a key: two clients may choose the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Principal<'a> {
    /// A consumer's name is only unique within its authority.
    Consumer {
        /// The entry of `auth` that verified the credentials.
        authority: &'a str,
        /// As the credentials prove it.
        name: &'a str,
    },
    /// A client without credentials, with `anonymous: address`.
    Address(IpAddr),
    /// All clients without credentials.
    Anyone,
}

/// A key within its consumer and route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope(pub [u8; 32]);

/// A request, without what may differ when it is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl Scope {
    /// `route` is the route's name: keys of different routes are different.
    pub fn new(principal: Principal<'_>, route: &str, key: &Key) -> Self {
        let mut digest = Fields::new();
        match principal {
            Principal::Consumer { authority, name } => {
                digest.add(b"consumer");
                digest.add(authority.as_bytes());
                digest.add(name.as_bytes());
            }
            Principal::Address(address) => {
                digest.add(b"address");
                digest.add(address.to_canonical().to_string().as_bytes());
            }
            Principal::Anyone => digest.add(b"anyone"),
        }
        digest.add(route.as_bytes());
        digest.add(key.as_bytes());
        Scope(digest.finish())
    }
}

impl Fingerprint {
    /// The fingerprint of a request as received, with its canonical path. The order of query
    /// parameters does not matter.
    pub fn new(
        method: &str,
        path: &str,
        query: Option<&str>,
        content_type: Option<&[u8]>,
        body: &[u8],
    ) -> Self {
        let mut digest = Fields::new();
        digest.add(method.as_bytes());
        digest.add(path.as_bytes());
        let mut parts: Vec<&str> = query.into_iter().flat_map(|query| query.split('&')).collect();
        parts.sort_unstable();
        digest.add(&(parts.len() as u64).to_be_bytes());
        parts.iter().for_each(|part| digest.add(part.as_bytes()));
        digest.add(content_type.unwrap_or_default());
        digest.add(body);
        Fingerprint(digest.finish())
    }
}

/// A digest over fields with their lengths, so that no two lists of fields give the same input.
struct Fields(Context);

impl Fields {
    fn new() -> Self {
        Fields(Context::new(&SHA256))
    }

    fn add(&mut self, field: &[u8]) {
        self.0.update(&(field.len() as u64).to_be_bytes());
        self.0.update(field);
    }

    fn finish(self) -> [u8; 32] {
        let mut digest = [0; 32];
        // SHA-256 is 32 bytes long.
        digest.copy_from_slice(self.0.finish().as_ref());
        digest
    }
}
