//! The header of the PROXY protocol, in which a load balancer announces whose connection it relays.
//!
//! Source: "The PROXY protocol, versions 1 & 2" of HAProxy (doc/proxy-protocol.txt). Version 1 is a
//! line of text, version 2 is binary; the first byte tells them apart. Here is only what the bytes
//! mean; `super::super::listener` decides from whom a header is read, and for how long.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Limit in bytes on a line of version 1, with its CRLF.
const MAX_V1: usize = 107;
/// Limit in bytes on a header of version 2 with all that it carries. The protocol allows 64 KiB,
/// which no sender needs.
pub const MAX_V2: usize = 4096;
const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family, and length of version 2.
const FIXED: usize = V2.len() + 4;
/// The extension about the client's TLS (PP2_TYPE_SSL).
const SSL: u8 = 0x20;
/// Its bit for TLS between client and balancer (PP2_CLIENT_SSL); without it, there is none.
const CLIENT_SSL: u8 = 0x01;
/// The bits, and the result of the certificate's verification; what follows is not needed here.
const SSL_FIXED: usize = 5;

/// A complete header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyHeader {
    /// How many bytes it takes; the client's own bytes follow.
    pub length: usize,
    /// Whose connection it is.
    pub source: Source,
    /// Whether the client has a TLS connection to the balancer.
    pub secure: bool,
}

/// Whose connection a header announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// That of a client with this address.
    Client(IpAddr),
    /// That of a client whose address the balancer does not know, or that has none: `UNKNOWN`, a
    /// Unix socket.
    Unknown,
    /// The balancer's own, such as for a health check: `LOCAL`.
    Balancer,
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// They do not begin like a header.
    Absent,
    /// They begin like a header, and break its form.
    Malformed,
    /// Another version or command than those that are defined.
    Unsupported,
    /// Longer than a header may be.
    TooLong,
}

impl Fault {
    /// The stable name: the value of the metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Fault::Absent => "absent",
            Fault::Malformed => "malformed",
            Fault::Unsupported => "unsupported",
            Fault::TooLong => "too_long",
        }
    }

    /// What is wrong, in words.
    pub const fn phrase(self) -> &'static str {
        match self {
            Fault::Absent => "the connection does not begin with a PROXY header",
            Fault::Malformed => "the PROXY header is malformed",
            Fault::Unsupported => "the PROXY header has an unknown version, command or family",
            Fault::TooLong => "the PROXY header is too long",
        }
    }
}

/// Reads the header at the start of `bytes`, which is all that has come so far; `None` if more must
/// come. The verdict does not depend on the pieces in which the bytes arrive.
///
/// # Errors
/// [`Fault`]: no bytes that may follow make a header of them.
pub fn parse(bytes: &[u8]) -> Result<Option<ProxyHeader>, Fault> {
    match bytes.first() {
        None => Ok(None),
        Some(b'P') => parse_v1(bytes),
        Some(_) => parse_v2(bytes),
    }
}

fn parse_v1(bytes: &[u8]) -> Result<Option<ProxyHeader>, Fault> {
    if !begins(bytes, V1) {
        return Err(Fault::Absent);
    }
    let line = &bytes[..bytes.len().min(MAX_V1)];
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        return if line.len() < MAX_V1 { Ok(None) } else { Err(Fault::TooLong) };
    };
    let text = line[..end].strip_suffix(b"\r").and_then(|text| text.strip_prefix(V1));
    let source = text.and_then(source_v1).ok_or(Fault::Malformed)?;
    Ok(Some(ProxyHeader { length: end + 1, source, secure: false }))
}

/// What follows `PROXY `: `TCP4 source destination port port`, or `UNKNOWN` and anything.
fn source_v1(text: &[u8]) -> Option<Source> {
    if text.split(|byte| *byte == b' ').next()? == b"UNKNOWN" {
        return Some(Source::Unknown);
    }
    let mut words = std::str::from_utf8(text).ok()?.split(' ');
    let parse: fn(&str) -> Option<IpAddr> = match words.next()? {
        "TCP4" => |word| word.parse().map(IpAddr::V4).ok(),
        "TCP6" => |word| word.parse().map(IpAddr::V6).ok(),
        _ => return None,
    };
    let source = parse(words.next()?)?;
    parse(words.next()?)?;
    let is_port =
        |word: &str| word.bytes().all(|byte| byte.is_ascii_digit()) && word.parse::<u16>().is_ok();
    let ports = is_port(words.next()?) && is_port(words.next()?);
    (ports && words.next().is_none()).then_some(Source::Client(source))
}

fn parse_v2(bytes: &[u8]) -> Result<Option<ProxyHeader>, Fault> {
    if !begins(bytes, V2) {
        return Err(Fault::Absent);
    }
    let rest = bytes.get(V2.len()..).unwrap_or_default();
    let is_local = match rest.first() {
        None => return Ok(None),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(_) => return Err(Fault::Unsupported),
    };
    let [_, family, high, low, rest @ ..] = rest else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if FIXED + length > MAX_V2 {
        return Err(Fault::TooLong);
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    let (source, secure) =
        if is_local { (Source::Balancer, false) } else { source_v2(*family, body)? };
    Ok(Some(ProxyHeader { length: FIXED + length, source, secure }))
}

/// The source of a relayed connection, and whether it is over TLS: two addresses and two ports, then
/// extensions, of which only that about TLS is read. The form of all is checked: bytes that do not
/// fit are not what was meant.
fn source_v2(family: u8, body: &[u8]) -> Result<(Source, bool), Fault> {
    let (source, addresses) = match family {
        // Without a family the body has no form, and "the receiver must ignore" what it holds.
        0x00 => return Ok((Source::Unknown, false)),
        0x11 => (Source::Client(Ipv4Addr::from(start::<4>(body)?).into()), 12),
        0x21 => (Source::Client(Ipv6Addr::from(start::<16>(body)?).into()), 36),
        // A Unix socket has no address of a network.
        0x31 => (Source::Unknown, 216),
        // Datagrams among them: this is a connection.
        _ => return Err(Fault::Unsupported),
    };
    let mut extensions = body.get(addresses..).ok_or(Fault::Malformed)?;
    let mut secure = false;
    while !extensions.is_empty() {
        let [kind, high, low, rest @ ..] = extensions else { return Err(Fault::Malformed) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, next) = rest.split_at_checked(length).ok_or(Fault::Malformed)?;
        if *kind == SSL {
            let bits = value.first_chunk::<SSL_FIXED>().ok_or(Fault::Malformed)?[0];
            secure |= bits & CLIENT_SSL != 0;
        }
        extensions = next;
    }
    Ok((source, secure))
}

fn start<const N: usize>(body: &[u8]) -> Result<[u8; N], Fault> {
    body.first_chunk().copied().ok_or(Fault::Malformed)
}

/// Whether `bytes` begins with `wanted`, as far as it goes.
fn begins(bytes: &[u8], wanted: &[u8]) -> bool {
    let compared = bytes.len().min(wanted.len());
    bytes[..compared] == wanted[..compared]
}

#[cfg(test)]
mod tests;
