//! What the two services that are asked about requests have in common.

use std::num::NonZeroU32;

use http::HeaderName;

use crate::units::{Secret, Timespan};

/// The most questions under way at once, unless the file says otherwise.
pub(super) const IN_FLIGHT: NonZeroU32 = NonZeroU32::new(128).expect("not zero");

pub(super) fn in_flight() -> NonZeroU32 {
    IN_FLIGHT
}

pub(super) fn two_seconds() -> Timespan {
    Timespan::from_secs(2)
}

pub(super) fn five_seconds() -> Timespan {
    Timespan::from_secs(5)
}

/// The names in a list under `key`.
pub(super) fn names(key: &str, written: &[String]) -> Result<Vec<HeaderName>, String> {
    written.iter().map(|name| self::name(key, name)).collect()
}

/// The name of a header field under `key`.
pub(super) fn name(key: &str, written: &str) -> Result<HeaderName, String> {
    written
        .parse()
        .map_err(|_| format!("{key}: `{written}` is not the name of a header, such as X-User"))
}

/// Checks that `token` can be sent in a header.
pub(super) fn bearer(token: &Secret) -> Result<(), String> {
    if token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err("token: expected visible ASCII without spaces; look for a line break at its end".to_owned())
}
