//! `key:` of a rate limit: which requests are counted together.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr};

use aws_lc_rs::digest::{Context, SHA256};
use http::{HeaderMap, HeaderName};
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::fields;
use crate::policy::auth::{Identity, KeptClaims};
use crate::units::schema;

/// One source, or a list of them: requests with equal values for all sources count together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(Box<[KeySource]>);

/// Where the key of a request comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeySource {
    /// The authenticated consumer; the client address for anonymous requests.
    #[default]
    Consumer,
    /// The client address.
    ClientAddress,
    /// One count for all requests of the route.
    Route,
    /// The first value of this request header; the client address for requests without it. If
    /// clients may choose the value, they choose their count.
    #[serde(deserialize_with = "fields::header_name")]
    #[schemars(with = "String")]
    Header(HeaderName),
    /// This claim of the verified token, by its name or by a path of names separated by dots. The
    /// consumer, if the token has no such claim that is a string, a number or a boolean, or if the
    /// credentials are not a token.
    #[serde(deserialize_with = "claim_name")]
    #[schemars(with = "String")]
    Claim(Box<str>),
}

/// What keys are made from.
#[derive(Debug, Clone, Copy)]
pub struct Requester<'a> {
    /// The authenticated consumer; never a name that the client merely claims.
    pub consumer: Option<Named<'a>>,
    /// The claims of its token, as far as they are kept.
    pub claims: Option<&'a KeptClaims>,
    /// The client's, as `client_address` determines it.
    pub address: IpAddr,
    /// Those of the request.
    pub headers: &'a HeaderMap,
}

/// A consumer: the same name from another authority is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Named<'a> {
    /// The entry of `auth` that has accepted its credentials; `None` where there is only one that could have.
    pub authority: Option<&'a str>,
    /// As that calls it.
    pub name: &'a str,
}

impl<'a> From<&'a Identity> for Named<'a> {
    fn from(identity: &'a Identity) -> Self {
        Named { authority: Some(identity.authority()), name: identity.consumer() }
    }
}

/// What a limit counts for. A consumer that is named like an address is a different subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject<'a> {
    /// A name that credentials have proven.
    Consumer(Named<'a>),
    /// A claim of the verified token, as text.
    Claim(&'a str),
    /// An IPv4 address, or an IPv6 network; see [`Subject::address`].
    Address(IpAddr),
    /// The first value of the header that the key names.
    Header(&'a [u8]),
    /// All requests of the route.
    Everyone,
}

impl<'a> Requester<'a> {
    /// The requester at `address`, with its identity.
    pub fn new(identity: Option<&'a Identity>, address: IpAddr, headers: &'a HeaderMap) -> Self {
        let (consumer, claims) = (identity.map(Named::from), identity.map(Identity::claims));
        Requester { consumer, claims, address, headers }
    }

    /// The same where only one authority is accepted. Its name is left out, so that limits in a store go on
    /// if it gets another one.
    #[must_use]
    pub fn of_one_authority(self) -> Self {
        let consumer = self.consumer.map(|consumer| Named { authority: None, ..consumer });
        Requester { consumer, ..self }
    }
}

impl Key {
    /// Feeds the subject of `requester` to `hasher`.
    pub fn hash_subject(&self, requester: &Requester<'_>, hasher: &mut impl Hasher) {
        for source in &self.0 {
            source.subject(requester).hash(hasher);
        }
    }

    /// The claims that the key is made from.
    pub fn claims(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|source| match source {
            KeySource::Claim(name) => Some(&**name),
            KeySource::Consumer
            | KeySource::ClientAddress
            | KeySource::Route
            | KeySource::Header(_) => None,
        })
    }

    /// The subject of `requester`, equal on every replica, and not revealing what it was made from:
    /// 128 bits of SHA-256.
    pub fn digest(&self, requester: &Requester<'_>) -> u128 {
        let mut digest = Context::new(&SHA256);
        for source in &self.0 {
            source.subject(requester).feed(&mut digest);
        }
        let digest = digest.finish();
        digest.as_ref().iter().take(16).fold(0, |bits, byte| bits << 8 | u128::from(*byte))
    }
}

/// As written in a file, several sources joined by `+`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, source) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str("+")?;
            }
            match source {
                KeySource::Consumer => f.write_str("consumer")?,
                KeySource::ClientAddress => f.write_str("client_address")?,
                KeySource::Route => f.write_str("route")?,
                KeySource::Header(name) => write!(f, "header={name}")?,
                KeySource::Claim(name) => write!(f, "claim={name}")?,
            }
        }
        Ok(())
    }
}

impl Default for Key {
    fn default() -> Self {
        KeySource::default().into()
    }
}

impl From<KeySource> for Key {
    fn from(source: KeySource) -> Self {
        Key([source].into())
    }
}

impl KeySource {
    /// The subject that a request counts for.
    pub fn subject<'a>(&self, requester: &Requester<'a>) -> Subject<'a> {
        let consumer = || requester.consumer.map(Subject::Consumer);
        let named = match self {
            KeySource::Consumer => consumer(),
            KeySource::Claim(name) => {
                let claim = requester.claims.and_then(|claims| claims.get(name));
                claim.map(Subject::Claim).or_else(consumer)
            }
            KeySource::ClientAddress => None,
            KeySource::Route => Some(Subject::Everyone),
            KeySource::Header(name) => {
                requester.headers.get(name).map(|value| Subject::Header(value.as_bytes()))
            }
        };
        named.unwrap_or_else(|| Subject::address(requester.address))
    }
}

impl Subject<'_> {
    /// A tag, the length, the bytes: no two subjects, or lists of them, give the same input.
    fn feed(&self, digest: &mut Context) {
        let mut part = |tag: u8, bytes: &[u8]| {
            digest.update(&[tag]);
            digest.update(&(bytes.len() as u64).to_be_bytes());
            digest.update(bytes);
        };
        match self {
            Subject::Consumer(Named { authority: None, name }) => part(1, name.as_bytes()),
            Subject::Consumer(Named { authority: Some(authority), name }) => {
                part(7, authority.as_bytes());
                part(8, name.as_bytes());
            }
            Subject::Address(IpAddr::V4(address)) => part(2, &address.octets()),
            Subject::Address(IpAddr::V6(address)) => part(3, &address.octets()),
            Subject::Header(value) => part(4, value),
            Subject::Everyone => part(5, &[]),
            Subject::Claim(value) => part(6, value.as_bytes()),
        }
    }

    /// The client at `address`. One IPv6 subscriber commonly has a /64, so that is what is counted.
    /// An IPv4 address written as IPv6 counts as the IPv4 address.
    pub fn address(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Subject::Address(address.into()),
            IpAddr::V6(address) => {
                let network = address.to_bits() & (u128::MAX << 64);
                Subject::Address(Ipv6Addr::from_bits(network).into())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KeyVisitor)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "consumer, client_address, route, {header: NAME}, {claim: NAME}, or a list of these",
        )
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Key, E> {
        KeySource::deserialize(StrDeserializer::new(name)).map(Key::from)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Key, A::Error> {
        KeySource::deserialize(MapAccessDeserializer::new(map)).map(Key::from)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Key, A::Error> {
        let mut sources = Vec::new();
        while let Some(source) = list.next_element()? {
            sources.push(source);
        }
        if sources.is_empty() {
            return Err(de::Error::custom("must name at least one source, such as consumer"));
        }
        Ok(Key(sources.into()))
    }
}

fn claim_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<str>, D::Error> {
    let name = String::deserialize(deserializer)?;
    if name.split('.').any(str::is_empty) {
        return Err(de::Error::custom("expected the name of a claim, such as tenant or org.id"));
    }
    Ok(name.into())
}

impl schemars::JsonSchema for Key {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        schema::one_or_many_name::<KeySource>()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schema::one_or_many::<KeySource>(generator)
    }
}

#[cfg(test)]
mod tests {
    use std::hash::DefaultHasher;

    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn parse(text: &str) -> Result<Key, String> {
        let from = serde_yaml::Deserializer::from_str(text);
        serde_yaml::with::singleton_map_recursive::deserialize(from).map_err(|e| e.to_string())
    }

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), http::HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    fn named(name: &str) -> Named<'_> {
        Named { authority: None, name }
    }

    fn requester<'a>(consumer: Option<&'a str>, headers: &'a HeaderMap) -> Requester<'a> {
        let consumer = consumer.map(named);
        Requester { consumer, claims: None, address: ADDRESS, headers }
    }

    fn hash(key: &str, requester: &Requester<'_>) -> u64 {
        let mut hasher = DefaultHasher::new();
        parse(key).expect("valid").hash_subject(requester, &mut hasher);
        hasher.finish()
    }

    fn address(text: &str) -> Subject<'static> {
        Subject::address(text.parse().expect("an address"))
    }

    #[test]
    fn whoever_lacks_what_is_counted_counts_for_its_address() {
        let (none, tenant) = (headers(&[]), headers(&[("x-tenant", "blue")]));
        let header = KeySource::Header(HeaderName::from_static("x-tenant"));
        let fallback = Subject::Address(ADDRESS);
        for (source, requester, expected) in [
            (KeySource::Consumer, requester(Some("acme"), &none), Subject::Consumer(named("acme"))),
            (KeySource::Consumer, requester(None, &none), fallback),
            (KeySource::ClientAddress, requester(Some("acme"), &none), fallback),
            (KeySource::Route, requester(Some("acme"), &none), Subject::Everyone),
            (header.clone(), requester(None, &tenant), Subject::Header(b"blue")),
            (header, requester(None, &none), fallback),
        ] {
            assert_eq!(source.subject(&requester), expected, "{source:?}");
        }
    }

    #[test]
    fn one_name_of_two_authorities_is_two_consumers() {
        let none = headers(&[]);
        let of = |authority| Requester {
            consumer: Some(Named { authority: Some(authority), name: "acme" }),
            ..requester(None, &none)
        };
        let (partners, mesh) = (of("partners"), of("mesh"));
        assert_ne!(hash("consumer", &partners), hash("consumer", &mesh));
        let key = Key::default();
        assert_ne!(key.digest(&partners), key.digest(&mesh));
        assert_eq!(key.digest(&partners), key.digest(&of("partners")));
    }

    #[test]
    fn a_combination_counts_apart_what_differs_in_any_part() {
        let (blue, red) = (headers(&[("x-tenant", "blue")]), headers(&[("x-tenant", "red")]));
        let hash = |requester| hash("[consumer, {header: X-Tenant}]", &requester);
        let one = hash(requester(Some("acme"), &blue));
        assert_eq!(one, hash(requester(Some("acme"), &blue)));
        assert_ne!(one, hash(requester(Some("acme"), &red)));
        assert_ne!(one, hash(requester(Some("other"), &blue)));
    }

    #[test]
    fn who_has_the_claim_counts_for_it_and_who_has_not_for_itself() {
        let none = headers(&[]);
        let claims = |tenant: &str| KeptClaims::from_iter([("org.id".into(), tenant.into())]);
        let (blue, red, nothing) = (claims("blue"), claims("red"), KeptClaims::default());
        let source = KeySource::Claim("org.id".into());
        let of = |consumer, claims| Requester { claims, ..requester(consumer, &none) };
        for (requester, expected) in [
            (of(Some("acme"), Some(&blue)), Subject::Claim("blue")),
            (of(Some("acme"), Some(&red)), Subject::Claim("red")),
            (of(Some("blue"), Some(&nothing)), Subject::Consumer(named("blue"))),
            (of(Some("acme"), None), Subject::Consumer(named("acme"))),
            (of(None, None), Subject::Address(ADDRESS)),
        ] {
            assert_eq!(source.subject(&requester), expected);
        }
        assert_ne!(
            hash("{claim: org.id}", &of(Some("x"), Some(&blue))),
            hash("{claim: org.id}", &of(Some("blue"), None)),
            "a consumer that is named like a tenant is not that tenant"
        );
        assert_ne!(
            hash("[{claim: org.id}, consumer]", &of(Some("x"), Some(&blue))),
            hash("[{claim: org.id}, consumer]", &of(Some("y"), Some(&blue)))
        );
    }

    #[test]
    fn parts_of_a_combination_do_not_run_into_each_other() {
        let (a, b) = (
            headers(&[("x-a", "one"), ("x-b", "two")]),
            headers(&[("x-a", "onet"), ("x-b", "wo")]),
        );
        let hash = |headers| hash("[{header: X-A}, {header: X-B}]", &requester(None, headers));
        assert_ne!(hash(&a), hash(&b));
    }

    #[test]
    fn a_digest_is_the_same_everywhere_and_tells_apart_what_a_count_does() {
        let digest = |key: &str, requester| parse(key).expect("valid").digest(&requester);
        let (blue, none) = (headers(&[("x-tenant", "blue")]), headers(&[]));
        // If this changed, every count would start over while replicas of two versions run.
        assert_eq!(
            digest("[consumer, {header: X-Tenant}]", requester(Some("acme"), &blue)),
            0xc4f7_78da_aedc_77fd_8047_b5be_3d49_1143
        );
        let like_an_address = requester(Some("192.0.2.1"), &none);
        assert_ne!(digest("consumer", like_an_address), digest("consumer", requester(None, &none)));
        let (a, b) = (
            headers(&[("x-a", "one"), ("x-b", "two")]),
            headers(&[("x-a", "onet"), ("x-b", "wo")]),
        );
        let both = "[{header: X-A}, {header: X-B}]";
        assert_ne!(digest(both, requester(None, &a)), digest(both, requester(None, &b)));
    }

    #[test]
    fn a_key_that_names_nothing_is_refused() {
        for text in [
            "[]",
            "path",
            "{header: 'no header'}",
            "{header: }",
            "{cookie: a}",
            "7",
            "{claim: ''}",
            "{claim: a..b}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_client_cannot_change_its_count_within_its_ipv6_network() {
        assert_eq!(address("2001:db8:0:1::1"), address("2001:db8:0:1:ffff::2"));
        assert_ne!(address("2001:db8:0:1::1"), address("2001:db8:0:2::1"));
    }

    #[test]
    fn an_ipv4_address_written_as_ipv6_is_itself() {
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
        assert_ne!(address("::ffff:192.0.2.1"), address("192.0.2.2"));
    }
}
