//! A request's request id and correlation id.
//!
//! A client's ids are kept if they are safe to log, store and forward. Otherwise the gateway
//! generates them: UUID version 7, which sorts by time. They are marked so that HTTP/2 does not
//! index them (RFC 7541, section 6.2.3): each id occurs once, and would evict useful entries from
//! the table.

use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// Longest id that is kept, in bytes.
const MAX_LENGTH: usize = 128;

/// The id under `name` if it is safe.
pub fn kept(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let value = headers.get(name)?;
    is_safe(value.as_bytes()).then(|| of_one_use(value.clone()))
}

/// A new id as a header value.
pub fn made(id: Uuid) -> HeaderValue {
    let mut buffer = [0; uuid::fmt::Hyphenated::LENGTH];
    let text = id.hyphenated().encode_lower(&mut buffer);
    // Hexadecimal digits and hyphens always form a header value.
    of_one_use(HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("-")))
}

fn of_one_use(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

fn is_safe(id: &[u8]) -> bool {
    let safe = |b: &u8| b.is_ascii_alphanumeric() || b"._-:/+=@".contains(b);
    (1..=MAX_LENGTH).contains(&id.len()) && id.iter().all(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_safe_ids_are_kept() {
        for (id, safe) in [
            ("018f3a2e-1c4d-7000-8000-000000000000", true),
            ("Root=1-67891233-abcdef012345678912345678", true),
            ("", false),
            ("two words", false),
            ("quote\"", false),
            ("{json}", false),
        ] {
            assert_eq!(is_safe(id.as_bytes()), safe, "{id}");
        }
        assert!(is_safe(&[b'a'; 128]));
        assert!(!is_safe(&[b'a'; 129]));
    }

    #[test]
    fn an_id_is_kept_out_of_tables_of_headers() {
        let name = HeaderName::from_static("x-request-id");
        let headers = HeaderMap::from_iter([(name.clone(), HeaderValue::from_static("a"))]);
        assert!(kept(&headers, &name).is_some_and(|id| id.is_sensitive()));
        assert!(made(Uuid::now_v7()).is_sensitive());
    }

    #[test]
    fn a_made_id_is_a_safe_one() {
        assert!(is_safe(made(Uuid::now_v7()).as_bytes()));
    }
}
