//! What a client is told of a message that cannot be transcoded.

use http::HeaderValue;

use crate::proxy::rejection::Rejection;
use crate::transcode::Fault;

/// What a caller gets for it.
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
