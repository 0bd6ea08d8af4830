//! An upstream's plain error on its way into the caller's protocol.

use crate::coding::Encoding;
use crate::config::error_codes::ErrorCodes;
use crate::proxy::rejection::RpcError;

/// An upstream's plain error, collected to be written in the caller's protocol.
pub struct Translation {
    /// The upstream's, which decides the code.
    pub status: u16,
    /// The upstream's `Retry-After`.
    pub retry_after: Option<std::time::Duration>,
    /// How `body` is encoded.
    pub encoding: Encoding,
    /// What has arrived, up to a limit.
    pub body: Vec<u8>,
}

impl Translation {
    /// Undo how the upstream has encoded it. What cannot be read, or has more than `limit` bytes, says
    /// nothing.
    pub fn inflate(&mut self, limit: usize) {
        self.body = match std::mem::take(&mut self.encoding) {
            Encoding::Identity => return,
            Encoding::Coded(coding) => coding.read(&self.body, limit).unwrap_or_default(),
            Encoding::Unknown => Vec::new(),
        };
    }

    /// The error for the client; `message` is the upstream's.
    pub fn error<'a>(&self, codes: &ErrorCodes, message: &'a str) -> RpcError<'a> {
        let code = codes.of_status(self.status);
        RpcError { code, message, retry_after: self.retry_after }
    }
}
