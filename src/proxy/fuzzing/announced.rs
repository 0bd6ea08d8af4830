//! Fuzz target for headers of the PROXY protocol: what arrives before anything has been agreed on.

use std::net::IpAddr;

use crate::proxy::downstream::proxy_header::{MAX_V2, ProxyHeader, Source, parse};

/// Longest line of version 1.
const MAX_V1: usize = 107;

/// The verdict does not depend on how the bytes are cut, nor on those after the header; what is
/// accepted is short, and a second reader finds the same address in it.
pub fn proxy_header(input: &[u8]) {
    let whole = parse(input);
    let cuts = (0..=input.len()).map(|cut| parse(&input[..cut]));
    let first = cuts.into_iter().find(|verdict| *verdict != Ok(None));
    assert_eq!(first.unwrap_or(Ok(None)), whole, "the verdict depends on the cut");
    match whole {
        Ok(Some(header)) => accepted(&input[..header.length], header),
        Ok(None) => assert!(input.len() < MAX_V2, "it waits for too much"),
        Err(_) => {}
    }
}

fn accepted(bytes: &[u8], header: ProxyHeader) {
    assert_eq!(parse(bytes), Ok(Some(header)), "what follows has a part in it");
    let Some(line) = bytes.strip_prefix(b"PROXY ") else {
        assert!(bytes.len() <= MAX_V2);
        assert_eq!((header.source, header.secure), second_reading(bytes));
        return;
    };
    assert!(bytes.len() <= MAX_V1 && bytes.ends_with(b"\r\n") && !header.secure);
    if let Source::Client(address) = header.source {
        let line = std::str::from_utf8(line).expect("text");
        let written: IpAddr = line[5..].split(' ').next().expect("a word").parse().expect("one");
        assert_eq!((address, address.is_ipv4()), (written, line.starts_with("TCP4 ")));
    }
}

/// The source of a header of version 2 that has been accepted, and whether it is over TLS, by the
/// offsets of the specification.
fn second_reading(bytes: &[u8]) -> (Source, bool) {
    let octets = |count: usize| bytes.get(16..16 + count).expect("a source");
    let (source, mut at) = match (bytes[12] & 0x0f, bytes[13] >> 4) {
        (0, _) => return (Source::Balancer, false),
        (_, 0) => return (Source::Unknown, false),
        (_, 1) => (Source::Client(<[u8; 4]>::try_from(octets(4)).expect("four").into()), 28),
        (_, 2) => (Source::Client(<[u8; 16]>::try_from(octets(16)).expect("sixteen").into()), 52),
        _ => (Source::Unknown, 232),
    };
    let mut secure = false;
    while at < bytes.len() {
        secure |= bytes[at] == 0x20 && bytes[at + 3] & 1 == 1;
        at += 3 + usize::from(bytes[at + 1]) * 256 + usize::from(bytes[at + 2]);
    }
    (source, secure)
}
