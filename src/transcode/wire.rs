//! A single message in the framing of a protocol.
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
use crate::coding::{Coding, Encoding, Unreadable};

/// What a message is wrapped in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Nothing: Connect, plain HTTP.
    Bare,
    /// A flag for compression, and four bytes with the length.
    Grpc,
    /// As gRPC; trailers are a frame of their own.
    GrpcWeb,
    /// As gRPC-Web, in Base64.
    GrpcWebText,
}

const PREFIX: usize = 5;
const COMPRESSED: u8 = 1;
/// The trailer frame at the end of a successful gRPC-Web response.
const TRAILERS: &[u8] = b"\x80\x00\x00\x00\x0fgrpc-status:0\r\n";

const INDIFFERENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, INDIFFERENT);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, INDIFFERENT);

/// The single message of a body whose sender named `encoding`. `limit` bounds the decoded message,
/// in bytes.
///
/// # Errors
/// The body is not exactly one message, or cannot be decoded within `limit`.
pub fn unwrap(
    framing: Framing,
    body: &[u8],
    encoding: Encoding,
    limit: usize,
) -> Result<Cow<'_, [u8]>, Fault> {
    match framing {
        Framing::Bare => match encoding {
            Encoding::Identity => Ok(Cow::Borrowed(body)),
            Encoding::Coded(_) | Encoding::Unknown => inflate(body, encoding, limit),
        },
        Framing::Grpc | Framing::GrpcWeb => unframe(body, encoding, limit),
        Framing::GrpcWebText => {
            let mut decoded = of_base64(body)?;
            if let Cow::Owned(message) = unframe(&decoded, encoding, limit)? {
                return Ok(Cow::Owned(message));
            }
            decoded.drain(..PREFIX);
            Ok(Cow::Owned(decoded))
        }
    }
}

fn unframe(body: &[u8], encoding: Encoding, limit: usize) -> Result<Cow<'_, [u8]>, Fault> {
    let Some(([flags, length @ ..], message)) = body.split_first_chunk::<PREFIX>() else {
        return Err(Fault::Malformed("there is no whole message"));
    };
    if flags & !COMPRESSED != 0 {
        return Err(Fault::Malformed("the message has flags that none has"));
    }
    match u64::from(u32::from_be_bytes(*length)).cmp(&(message.len() as u64)) {
        std::cmp::Ordering::Equal if *flags == 0 => Ok(Cow::Borrowed(message)),
        std::cmp::Ordering::Equal => inflate(message, encoding, limit),
        std::cmp::Ordering::Greater => Err(Fault::Malformed("the message is incomplete")),
        std::cmp::Ordering::Less => Err(Fault::Malformed("there is more than one message")),
    }
}

/// Decompresses a message that is marked as compressed.
fn inflate(message: &[u8], encoding: Encoding, limit: usize) -> Result<Cow<'_, [u8]>, Fault> {
    match encoding {
        Encoding::Identity => Err(Fault::UnannouncedCompression),
        Encoding::Unknown => Err(Fault::Compressed),
        Encoding::Coded(coding) => match coding.read(message, limit) {
            Ok(message) => Ok(Cow::Owned(message)),
            Err(Unreadable::TooLarge) => Err(Fault::TooLarge),
            Err(Unreadable::Malformed) => {
                Err(Fault::Malformed("the message is not compressed as its request says"))
            }
        },
    }
}

/// The body in the same framing, with all messages decompressed. `limit` bounds the result, in
/// bytes.
///
/// # Errors
/// The body is malformed, or cannot be decoded within `limit`.
pub fn inflated(
    framing: Framing,
    body: &[u8],
    encoding: Encoding,
    limit: usize,
) -> Result<Vec<u8>, Fault> {
    match framing {
        Framing::Bare => unwrap(framing, body, encoding, limit).map(Cow::into_owned),
        Framing::Grpc | Framing::GrpcWeb => inflate_frames(body, encoding, limit),
        Framing::GrpcWebText => {
            let frames = inflate_frames(&of_base64(body)?, encoding, limit)?;
            Ok(STANDARD.encode(frames).into_bytes())
        }
    }
}

fn inflate_frames(mut body: &[u8], encoding: Encoding, limit: usize) -> Result<Vec<u8>, Fault> {
    let mut frames = Vec::with_capacity(body.len());
    while !body.is_empty() {
        let (flags, message, rest) = next_frame(body)?;
        if flags & COMPRESSED == 0 {
            put_frame(&mut frames, flags, message);
        } else {
            let left = limit.saturating_sub(frames.len());
            put_frame(&mut frames, flags & !COMPRESSED, &inflate(message, encoding, left)?);
        }
        body = rest;
    }
    Ok(frames)
}

/// The body in the same framing, with its first message compressed; `None` if that does not make it
/// smaller.
pub fn deflated(framing: Framing, body: &[u8], coding: Coding) -> Option<Vec<u8>> {
    let deflate = |body: &[u8]| {
        let (flags, message, rest) = next_frame(body).ok()?;
        let message = coding.write(message).filter(|_| flags == 0)?;
        let mut frames = Vec::with_capacity(PREFIX + message.len() + rest.len());
        put_frame(&mut frames, COMPRESSED, &message);
        frames.extend_from_slice(rest);
        Some(frames)
    };
    match framing {
        Framing::Bare => coding.write(body),
        Framing::Grpc | Framing::GrpcWeb => deflate(body),
        Framing::GrpcWebText => {
            let frames = deflate(&of_base64(body).ok()?)?;
            Some(STANDARD.encode(frames).into_bytes())
        }
    }
}

/// The flags and the data of the first frame, and the bytes after it.
fn next_frame(body: &[u8]) -> Result<(u8, &[u8], &[u8]), Fault> {
    let incomplete = Fault::Malformed("the message is incomplete");
    let Some(([flags, length @ ..], rest)) = body.split_first_chunk::<PREFIX>() else {
        return Err(incomplete);
    };
    match rest.split_at_checked(u32::from_be_bytes(*length) as usize) {
        Some((message, rest)) => Ok((*flags, message, rest)),
        None => Err(incomplete),
    }
}

fn put_frame(frames: &mut Vec<u8>, flags: u8, message: &[u8]) {
    frames.push(flags);
    // Message size limits keep it far below that.
    frames.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frames.extend_from_slice(message);
}

/// Decodes pieces of Base64 in a row, each with its own padding.
///
/// # Errors
/// [`Fault::Malformed`], if it is not Base64.
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

/// A message as the body of a request or of a successful response.
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
    put_frame(&mut framed, 0, message);
    framed
}

/// The first message of a response; what follows it says how the call ended.
///
/// # Errors
/// There is no complete, uncompressed message.
pub fn first(framing: Framing, body: &[u8]) -> Result<Cow<'_, [u8]>, Fault> {
    let framed = match framing {
        Framing::Bare => return Ok(Cow::Borrowed(body)),
        Framing::Grpc | Framing::GrpcWeb => Cow::Borrowed(body),
        Framing::GrpcWebText => Cow::Owned(of_base64(body)?),
    };
    let length = framed.get(1..PREFIX).and_then(|length| length.try_into().ok());
    let length = length.map_or(0, u32::from_be_bytes) as usize;
    let whole = framed.get(..PREFIX.saturating_add(length)).unwrap_or(&framed);
    unframe(whole, Encoding::Identity, 0).map(|message| Cow::Owned(message.into_owned()))
}

/// The codec named in the query of a Connect GET.
///
/// # Errors
/// It names neither `json` nor `proto`.
pub fn codec_of_query(query: &str) -> Result<Codec, Fault> {
    match parameter(query, "encoding") {
        Some("json") => Ok(Codec::Json),
        Some("proto") => Ok(Codec::Proto),
        Some(_) | None => Err(Fault::Malformed("the query names no encoding, json or proto")),
    }
}

/// How the message in the query of a Connect GET is compressed.
pub fn encoding_of_query(query: &str) -> Encoding {
    Encoding::named(parameter(query, "compression").unwrap_or_default().as_bytes())
}

/// The message in the query of a Connect GET, in the codec named there and still compressed if it
/// is.
///
/// # Errors
/// There is no message, or it is not Base64 although the query says so.
pub fn message_of_query(query: &str) -> Result<Vec<u8>, Fault> {
    let message = parameter(query, "message");
    let message = message.ok_or(Fault::Malformed("the query has no message"))?;
    // Decoded like a form: some clients send spaces as plus signs.
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
