//! Where a Unix socket of the gateway's own is.

use std::path::PathBuf;

use serde::de::{self, Deserialize, Deserializer};

/// The longest path of a Unix socket, one byte less than `sun_path` of Linux holds.
const LONGEST_PATH: usize = 107;

/// An absolute path that fits.
///
/// # Errors
/// Says what such a path looks like.
pub(super) fn socket_path<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<PathBuf>, D::Error> {
    let path = String::deserialize(deserializer)?;
    if !path.starts_with('/') || path.len() > LONGEST_PATH || path.contains('\0') {
        return Err(de::Error::custom(format_args!(
            "expected an absolute path of at most {LONGEST_PATH} bytes, such as \
             /run/portcullis/admin.sock"
        )));
    }
    Ok(Some(path.into()))
}
