//! What a client's `Connection` header may name: fields of its connection, which are not forwarded
//! (RFC 9110, section 7.6.1).
//!
//! Pingora removes every field that is named. A client that names a field meant for the upstream
//! would make the gateway decide on one request and the upstream see another, so such requests are
//! refused. Those that Pingora would refuse are refused here too, with the reason.

use http::HeaderMap;
use http::header::CONNECTION;

use crate::proxy::rejection::Rejection;

/// Pingora refuses a request that names more options.
const MOST: usize = 9;
/// Fields meant for the upstream. The gateway's own fields need not be listed: they are written
/// after the named fields are gone.
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

/// Checks the options of a request's `Connection` header.
///
/// # Errors
/// A rejection that says what is wrong with the header. It quotes only names from this module's
/// list, nothing that the client wrote.
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

/// Whether `byte` may be part of a token (RFC 9110, section 5.6.2).
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
