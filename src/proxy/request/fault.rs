//! The rejection of a message that cannot be transcoded.

use http::HeaderValue;

use crate::proxy::rejection::Rejection;
use crate::transcode::Fault;

/// The rejection the caller gets for `fault`.
pub fn rejected(fault: Fault) -> Rejection {
    match fault {
        Fault::Malformed(what) => Rejection::InvalidRpc(what),
        Fault::TooLarge => Rejection::BodyTooLarge,
        Fault::Compressed => Rejection::UnsupportedCompression,
        Fault::UnannouncedCompression => Rejection::UnexpectedCompression,
        Fault::NoMethod => Rejection::NoRoute,
        Fault::WrongMethod(allowed) => match HeaderValue::try_from(allowed) {
            Ok(allowed) => Rejection::MethodNotAllowed(allowed),
            Err(_) => Rejection::NoRoute,
        },
    }
}
