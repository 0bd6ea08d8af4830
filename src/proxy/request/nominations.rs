//! What a client's `Connection` header may name: fields of its connection, which go no further (RFC
//! 9110, section 7.6.1).
//!
//! Pingora takes out of the request whatever is named. A client that names what is meant for the
//! upstream would have the gateway decide on one request and the upstream see another, so such
//! requests are refused; and so is what Pingora would refuse, in words that say why.

use http::HeaderMap;
use http::header::CONNECTION;

use crate::proxy::rejection::Rejection;

/// Pingora refuses a request that has more.
const MOST: usize = 9;
/// What is meant for the upstream. Whatever the gateway asserts itself need not be here: it is written
/// after all that was named is gone.
const END_TO_END: [&str; 10] = [
    "host",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "content-length",
    "content-type",
    "content-encoding",
    "authorization",
    "cookie",
    "idempotency-key",
];

/// # Errors
/// A refusal that says what is wrong with the header. It names only what is in our own list, nothing
/// that the client made up.
pub fn check(headers: &HeaderMap) -> Result<(), Rejection> {
    let mut count = 0;
    for line in headers.get_all(CONNECTION) {
        let line = line.as_bytes();
        if line.eq_ignore_ascii_case(b"keep-alive") || line.eq_ignore_ascii_case(b"close") {
            count += 1;
            continue;
        }
        for option in line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if option.is_empty() {
                continue;
            }
            count += 1;
            if !option.iter().all(|byte| is_token(*byte)) {
                return refused("the Connection header is malformed");
            }
            let is_named = |name: &&&str| name.as_bytes().eq_ignore_ascii_case(option);
            if let Some(name) = END_TO_END.iter().find(is_named) {
                let why =
                    format!("the Connection header names {name}, which is not the connection's");
                return Err(Rejection::BadRequest(why.into()));
            }
        }
    }
    if count > MOST {
        return refused("the Connection header names too many options");
    }
    Ok(())
}

fn refused(why: &'static str) -> Result<(), Rejection> {
    Err(Rejection::BadRequest(why.into()))
}

/// A character of a token (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(lines: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CONNECTION, line.parse().expect("a value"));
        }
        check(&headers).err().map(|rejection| rejection.detail().to_owned())
    }

    #[test]
    fn options_of_the_connection_are_taken() {
        for lines in [&[][..], &["close"], &["Keep-Alive, Upgrade"], &["X-Mine", ", te,"]] {
            assert_eq!(refusal(lines), None, "{lines:?}");
        }
    }

    #[test]
    fn what_is_meant_for_the_upstream_is_refused_by_name() {
        for lines in [&["Host"][..], &["keep-alive, host"], &["close", "x-a,  HOST"]] {
            let why = refusal(lines).expect("a refusal");
            assert_eq!(why, "the Connection header names host, which is not the connection's");
        }
    }

    #[test]
    fn what_pingora_would_refuse_is_refused_in_words() {
        for malformed in ["\"host\"", ":authority", "a b", "x{}"] {
            let why = refusal(&[malformed]);
            assert_eq!(why.as_deref(), Some("the Connection header is malformed"), "{malformed}");
        }
        assert_eq!(refusal(&["a,b,c,d,e,f,g,h,i"]), None);
        let why = refusal(&["a,b,c,d,e,f,g,h,i", "keep-alive"]);
        assert_eq!(why.as_deref(), Some("the Connection header names too many options"));
    }
}
