//! One message in the frames of a protocol.
//!
//! Sources: "gRPC over HTTP2" (Length-Prefixed-Message), "gRPC-Web" (Message framing, Text-encoded
//! streams), the Connect protocol (Unary-Request, Unary-Get-Request).

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use percent_encoding::percent_decode_str;

use super::{Codec, Fault};

/// What surrounds a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Nothing: Connect, plain HTTP.
    Bare,
    Grpc,
    GrpcWeb,
    /// In Base64.
    GrpcWebText,
}

const PREFIX: usize = 5;
const COMPRESSED: u8 = 1;
/// The frame that ends an answer of gRPC-Web, here a good one.
const TRAILERS: &[u8] = b"\x80\x00\x00\x00\x0fgrpc-status:0\r\n";

const INDIFFERENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, INDIFFERENT);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, INDIFFERENT);

/// The one message of a body. `announced`: its sender named an encoding that compresses.
pub fn unwrap(framing: Framing, body: &[u8], announced: bool) -> Result<Cow<'_, [u8]>, Fault> {
    match framing {
        Framing::Bare if announced => Err(Fault::Compressed),
        Framing::Bare => Ok(Cow::Borrowed(body)),
        Framing::Grpc | Framing::GrpcWeb => unframe(body, announced).map(Cow::Borrowed),
        Framing::GrpcWebText => {
            let mut decoded = of_base64(body)?;
            unframe(&decoded, announced)?;
            decoded.drain(..PREFIX);
            Ok(Cow::Owned(decoded))
        }
    }
}

fn unframe(body: &[u8], announced: bool) -> Result<&[u8], Fault> {
    let Some(([flags, length @ ..], message)) = body.split_first_chunk::<PREFIX>() else {
        return Err(Fault::Malformed("there is no whole message"));
    };
    match *flags {
        0 => {}
        COMPRESSED if announced => return Err(Fault::Compressed),
        COMPRESSED => return Err(Fault::UnannouncedCompression),
        _ => return Err(Fault::Malformed("the message has flags that none has")),
    }
    match u64::from(u32::from_be_bytes(*length)).cmp(&(message.len() as u64)) {
        std::cmp::Ordering::Equal => Ok(message),
        std::cmp::Ordering::Greater => Err(Fault::Malformed("the message is incomplete")),
        std::cmp::Ordering::Less => Err(Fault::Malformed("there is more than one message")),
    }
}

/// Whole pieces of Base64 one after another, each with its own padding.
pub fn of_base64(mut text: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut decoded = Vec::with_capacity(text.len() / 4 * 3);
    while !text.is_empty() {
        let padded = text.iter().position(|byte| *byte == b'=').map(|at| (at / 4 + 1) * 4);
        let (piece, rest) = text.split_at(padded.unwrap_or(text.len()).min(text.len()));
        BASE64
            .decode_vec(piece, &mut decoded)
            .map_err(|_| Fault::Malformed("the message is not Base64"))?;
        text = rest;
    }
    Ok(decoded)
}

/// A message as the body of a request or of a good answer.
pub fn wrap(framing: Framing, message: Vec<u8>) -> Vec<u8> {
    match framing {
        Framing::Bare => message,
        Framing::Grpc => frame(&message),
        Framing::GrpcWeb => [&frame(&message), TRAILERS].concat(),
        Framing::GrpcWebText => STANDARD.encode([&frame(&message), TRAILERS].concat()).into_bytes(),
    }
}

fn frame(message: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(PREFIX + message.len() + TRAILERS.len());
    framed.push(0);
    // No limit on messages goes as far.
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(message);
    framed
}

/// The message that an answer begins with; whatever follows it says how it ended.
pub fn first(framing: Framing, body: &[u8]) -> Result<Cow<'_, [u8]>, Fault> {
    let framed = match framing {
        Framing::Bare => return Ok(Cow::Borrowed(body)),
        Framing::Grpc | Framing::GrpcWeb => Cow::Borrowed(body),
        Framing::GrpcWebText => Cow::Owned(of_base64(body)?),
    };
    let length = framed.get(1..PREFIX).and_then(|length| length.try_into().ok());
    let length = length.map_or(0, u32::from_be_bytes) as usize;
    let whole = framed.get(..PREFIX.saturating_add(length)).unwrap_or(&framed);
    unframe(whole, false).map(|message| Cow::Owned(message.to_vec()))
}

/// The codec that the query of a Connect GET names.
pub fn codec_of_query(query: &str) -> Result<Codec, Fault> {
    match parameter(query, "encoding") {
        Some("json") => Ok(Codec::Json),
        Some("proto") => Ok(Codec::Proto),
        Some(_) | None => Err(Fault::Malformed("the query names no encoding, json or proto")),
    }
}

/// The message in the query of a Connect GET.
pub fn message_of_query(query: &str) -> Result<Vec<u8>, Fault> {
    if !matches!(parameter(query, "compression"), None | Some("" | "identity")) {
        return Err(Fault::Compressed);
    }
    let message = parameter(query, "message");
    let message = message.ok_or(Fault::Malformed("the query has no message"))?;
    // As forms are written: some clients' spaces are plus signs.
    let message: Vec<u8> = percent_decode_str(&message.replace('+', " ")).collect();
    match parameter(query, "base64") {
        Some("1") => {
            BASE64_URL.decode(message).map_err(|_| Fault::Malformed("the message is not Base64"))
        }
        Some(_) | None => Ok(message),
    }
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let value = |pair: &'a str| pair.strip_prefix(name)?.strip_prefix('=');
    query.split('&').find_map(value)
}
