//! Messages in a stream of RPC, on their way to the upstream: flags, length, bytes. How they follow one
//! another, for answers too.
//!
//! Looked at, never changed or held back. What breaks the framing, or would make a server do more
//! than was agreed on, ends the request: the upstream sees its stream cut, never a broken message
//! passed off as a whole one.
//!
//! Sources: "gRPC over HTTP2" (Length-Prefixed-Message, Compressed-Flag), the Connect protocol
//! (Streaming-Request).

use http::HeaderMap;
use http::header::HeaderName;

use super::dialect::Protocol;
use super::rejection::Rejection;

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const CONNECT_ENCODING: HeaderName = HeaderName::from_static("connect-content-encoding");
const PREFIX: usize = 5;
pub const COMPRESSED: u8 = 1;

/// How far a reader of envelopes has come.
#[derive(Debug, Default)]
pub struct Walk {
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that are there.
    prefix_length: usize,
    /// Bytes of the message still to come.
    left: u64,
}

impl Walk {
    /// On to the end of the next prefix, or of `piece`: the message's bytes up to there, and the flags
    /// and the length of the message that begins.
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

    /// Whether no byte of a message is still to come; a part of the next prefix may be there.
    pub fn is_past_message(&self) -> bool {
        self.left == 0
    }

    /// Whether a message has ended, and none has begun.
    pub fn is_between(&self) -> bool {
        self.left == 0 && self.prefix_length == 0
    }
}

/// The field that names how messages in envelopes are compressed, in the protocols that have them.
pub fn encoding_name(protocol: Protocol) -> Option<HeaderName> {
    match protocol {
        Protocol::ConnectStream => Some(CONNECT_ENCODING),
        Protocol::Grpc | Protocol::GrpcWeb | Protocol::GrpcWebText => Some(GRPC_ENCODING),
        Protocol::Http | Protocol::Connect => None,
    }
}

/// Where in its stream a request's body is.
#[derive(Debug, Default)]
pub struct Envelopes {
    /// The caller has named an encoding that compresses.
    may_compress: bool,
    /// The longest message; zero means no limit.
    max_message: u64,
    walk: Walk,
}

impl Envelopes {
    /// For a request whose body is a stream of envelopes.
    pub fn of(protocol: Protocol, headers: &HeaderMap, max_message: u64) -> Option<Self> {
        if protocol == Protocol::GrpcWebText {
            // Of a request, Base64 is not looked into.
            return None;
        }
        let encoding = headers.get(encoding_name(protocol)?);
        let may_compress = encoding.is_some_and(|encoding| encoding != "identity");
        Some(Envelopes { may_compress, max_message, ..Envelopes::default() })
    }

    /// From the beginning again: the body is replayed.
    pub fn restart(&mut self) {
        self.walk = Walk::default();
    }

    /// The next piece of the body.
    pub fn pass(&mut self, mut piece: &[u8]) -> Result<(), Rejection> {
        while !piece.is_empty() {
            if let (_, Some((flags, length))) = self.walk.step(&mut piece) {
                self.begin(flags, length)?;
            }
        }
        Ok(())
    }

    /// The body is over.
    pub fn end(&self) -> Result<(), Rejection> {
        match self.walk.is_between() {
            true => Ok(()),
            false => Err(Rejection::InvalidRpc("the last message is incomplete")),
        }
    }

    /// Checks a body that is there as a whole, and is to be one message.
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

    fn begin(&self, flags: u8, length: u64) -> Result<(), Rejection> {
        if flags & !COMPRESSED != 0 {
            return Err(Rejection::InvalidRpc("a message has flags that no request has"));
        }
        if flags & COMPRESSED != 0 && !self.may_compress {
            return Err(Rejection::UnexpectedCompression);
        }
        if self.max_message != 0 && length > self.max_message {
            return Err(Rejection::BodyTooLarge);
        }
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
