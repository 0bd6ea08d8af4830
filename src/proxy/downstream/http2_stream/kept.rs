//! What was read of a request's body, for a retry.

use bytes::{Bytes, BytesMut};

/// The most bytes: as many as Pingora keeps for HTTP/1.
const MOST: usize = 64 * 1024;

/// The part of a body that was read; nothing, once it has been too much.
#[derive(Default)]
pub(super) struct Kept {
    bytes: BytesMut,
    truncated: bool,
}

impl Kept {
    pub(super) fn push(&mut self, data: &[u8]) {
        if self.truncated || self.bytes.len() + data.len() > MOST {
            *self = Kept { bytes: BytesMut::new(), truncated: true };
        } else {
            self.bytes.extend_from_slice(data);
        }
    }

    pub(super) fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// All that was read; `None` if that is nothing, or was too much.
    pub(super) fn bytes(&self) -> Option<Bytes> {
        (!self.truncated && !self.bytes.is_empty()).then(|| self.bytes.clone().freeze())
    }
}
