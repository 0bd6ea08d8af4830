//! Envelopes in a stream of RPC messages: flags, length, message. [`Envelopes`] checks those of a
//! request on its way upstream; [`Walk`] splits streams, responses too.
//!
//! The stream is neither changed nor held back. A framing error, or a message that would make the
//! server do more than was agreed, ends the request: the upstream sees its stream cut, never a
//! broken message passed off as a complete one.
//!
//! Sources: "gRPC over HTTP2" (Length-Prefixed-Message, Compressed-Flag), the Connect protocol
//! (Streaming-Request).

use http::HeaderMap;
use http::header::HeaderName;

use crate::proxy::dialect::Protocol;
use crate::proxy::dialect::names::{CONNECT_ENCODING, GRPC_ENCODING};
use crate::proxy::rejection::Rejection;

const PREFIX: usize = 5;
/// The lowest bit of an envelope's flags: its message is compressed.
pub const COMPRESSED: u8 = 1;

/// Position of a reader in a stream of envelopes.
#[derive(Debug, Default)]
pub struct Walk {
    prefix: [u8; PREFIX],
    /// Bytes of the prefix received so far.
    prefix_length: usize,
    /// Bytes of the message still to come.
    left: u64,
}

impl Walk {
    /// Advances to the end of the next prefix, or of `piece`. Returns the bytes of the current
    /// message up to there, and the flags and length of the message that begins.
    pub fn step<'a>(&mut self, piece: &mut &'a [u8]) -> (&'a [u8], Option<(u8, u64)>) {
        let length = piece.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let (message, rest) = piece.split_at(length);
        self.left -= message.len() as u64;
        let (prefix, rest) = rest.split_at(rest.len().min(PREFIX - self.prefix_length));
        self.prefix[self.prefix_length..][..prefix.len()].copy_from_slice(prefix);
        self.prefix_length += prefix.len();
        *piece = rest;
        if self.prefix_length < PREFIX {
            return (message, None);
        }
        self.prefix_length = 0;
        let [flags, length @ ..] = self.prefix;
        self.left = u32::from_be_bytes(length).into();
        (message, Some((flags, self.left)))
    }

    /// Whether no bytes of a message are outstanding; part of the next prefix may have arrived.
    pub fn is_past_message(&self) -> bool {
        self.left == 0
    }

    /// Whether the last message is complete and no other has begun.
    pub fn is_between(&self) -> bool {
        self.left == 0 && self.prefix_length == 0
    }
}

/// The field that names the compression of messages in envelopes; `None` for protocols without
/// envelopes.
pub fn encoding_name(protocol: Protocol) -> Option<HeaderName> {
    match protocol {
        Protocol::ConnectStream => Some(CONNECT_ENCODING),
        Protocol::Grpc | Protocol::GrpcWeb | Protocol::GrpcWebText => Some(GRPC_ENCODING),
        Protocol::Http | Protocol::Connect => None,
    }
}

/// Checks a request's body as a stream of envelopes.
#[derive(Debug, Default)]
pub struct Envelopes {
    /// The request names an encoding that compresses.
    may_compress: bool,
    /// The longest message in bytes; zero means no limit.
    max_message: u64,
    walk: Walk,
    /// The longest message so far.
    longest: u64,
}

impl Envelopes {
    /// `None` if the request's body is not a stream of envelopes.
    pub fn of(protocol: Protocol, headers: &HeaderMap, max_message: u64) -> Option<Self> {
        if protocol == Protocol::GrpcWebText {
            // A request body in Base64 is not decoded to check it.
            return None;
        }
        let encoding = headers.get(encoding_name(protocol)?);
        let may_compress = encoding.is_some_and(|encoding| encoding != "identity");
        Some(Envelopes { may_compress, max_message, ..Envelopes::default() })
    }

    /// Starts again from the beginning, because the body is replayed.
    pub fn restart(&mut self) {
        self.walk = Walk::default();
    }

    /// Checks the next piece of the body.
    ///
    /// # Errors
    /// The rejection of the message that begins in it.
    pub fn pass(&mut self, mut piece: &[u8]) -> Result<(), Rejection> {
        while !piece.is_empty() {
            if let (_, Some((flags, length))) = self.walk.step(&mut piece) {
                self.begin(flags, length)?;
            }
        }
        Ok(())
    }

    /// Checks the end of the body.
    ///
    /// # Errors
    /// The rejection of an incomplete message.
    pub fn end(&self) -> Result<(), Rejection> {
        match self.walk.is_between() {
            true => Ok(()),
            false => Err(Rejection::InvalidRpc("the last message is incomplete")),
        }
    }

    /// Checks a complete body that must be a single message.
    ///
    /// # Errors
    /// The rejection of any other body.
    pub fn check_one(&mut self, body: &[u8]) -> Result<(), Rejection> {
        self.restart();
        self.pass(body)?;
        self.end()?;
        let length = body.split_first_chunk::<PREFIX>().map(|([_, length @ ..], _)| *length);
        match length.map(u32::from_be_bytes) {
            None => Err(Rejection::InvalidRpc("there is no message")),
            Some(length) if length as usize + PREFIX == body.len() => Ok(()),
            Some(_) => Err(Rejection::InvalidRpc("there is more than one message")),
        }
    }

    /// The length of the longest message that has begun.
    pub fn longest(&self) -> u64 {
        self.longest
    }

    fn begin(&mut self, flags: u8, length: u64) -> Result<(), Rejection> {
        if flags & !COMPRESSED != 0 {
            return Err(Rejection::InvalidRpc("a message has flags that no request has"));
        }
        if flags & COMPRESSED != 0 && !self.may_compress {
            return Err(Rejection::UnexpectedCompression);
        }
        if self.max_message != 0 && length > self.max_message {
            return Err(Rejection::BodyTooLarge);
        }
        self.longest = self.longest.max(length);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelopes(max_message: u64) -> Envelopes {
        Envelopes::of(Protocol::Grpc, &HeaderMap::new(), max_message).expect("envelopes")
    }

    #[test]
    fn messages_pass_however_they_are_cut() {
        let stream = [0, 0, 0, 0, 3, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 9];
        for size in 1..=stream.len() {
            let mut envelopes = envelopes(3);
            for piece in stream.chunks(size) {
                assert!(envelopes.pass(piece).is_ok(), "{size}");
            }
            assert!(envelopes.end().is_ok(), "{size}");
        }
    }

    #[test]
    fn an_end_within_a_message_or_its_prefix_is_no_end() {
        for stream in [&[0][..], &[0, 0, 0, 0, 1], &[0, 0, 0, 0, 2, 1]] {
            let mut envelopes = envelopes(0);
            assert!(envelopes.pass(stream).is_ok());
            assert!(envelopes.end().is_err(), "{stream:?}");
            envelopes.restart();
            assert!(envelopes.end().is_ok());
        }
    }

    #[test]
    fn a_message_may_be_compressed_where_its_encoding_is_named() {
        let message = [1, 0, 0, 0, 1, 7];
        assert!(matches!(envelopes(0).pass(&message), Err(Rejection::UnexpectedCompression)));
        for (encoding, fine) in [("gzip", true), ("identity", false)] {
            let value = http::HeaderValue::from_static(encoding);
            let headers = HeaderMap::from_iter([(GRPC_ENCODING, value)]);
            let mut envelopes = Envelopes::of(Protocol::Grpc, &headers, 0).expect("envelopes");
            assert_eq!(envelopes.pass(&message).is_ok(), fine, "{encoding}");
        }
    }

    #[test]
    fn one_message_is_neither_none_nor_two_nor_half_of_one() {
        let one = [0, 0, 0, 0, 1, 7];
        let mut envelopes = envelopes(3);
        assert!(envelopes.check_one(&one).is_ok());
        assert!(envelopes.check_one(&one).is_ok(), "it begins anew");
        assert!(envelopes.check_one(&[0; 5]).is_ok(), "an empty message is one");
        let wrong = [&[][..], &one[..5], &one[..3], &[one, one].concat(), &[one[0]; 10]];
        assert!(wrong.iter().all(|body| envelopes.check_one(body).is_err()));
    }

    #[test]
    fn a_message_that_is_too_large_is_known_by_its_prefix() {
        assert!(matches!(envelopes(3).pass(&[0, 0, 0, 0, 4]), Err(Rejection::BodyTooLarge)));
        assert!(matches!(envelopes(3).pass(&[4]), Ok(())));
        assert!(matches!(envelopes(3).pass(&[4, 0, 0, 0, 0]), Err(Rejection::InvalidRpc(_))));
    }
}
