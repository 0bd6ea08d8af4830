use proptest::prelude::*;

use super::*;

const V1_LINE: &[u8] = b"PROXY TCP4 192.0.2.7 10.0.0.1 44364 443\r\n";

fn client(address: &str) -> Source {
    Source::Client(address.parse().expect("an address"))
}

/// A header of version 2 with this version and command, family and body.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("a short body").to_be_bytes();
    [V2, &[command, family], &length, body].concat()
}

fn v4(extensions: &[u8]) -> Vec<u8> {
    let addresses = [192, 0, 2, 7, 10, 0, 0, 1, 0xad, 0x4c, 0x01, 0xbb];
    v2(0x21, 0x11, &[&addresses[..], extensions].concat())
}

/// What becomes of `bytes` if they come in pieces that end at `cuts`: the first verdict.
fn in_pieces(
    bytes: &[u8],
    cuts: impl IntoIterator<Item = usize>,
) -> Result<Option<ProxyHeader>, Fault> {
    let verdicts = cuts.into_iter().map(|cut| parse(&bytes[..cut.min(bytes.len())]));
    verdicts.chain([parse(bytes)]).find(|verdict| *verdict != Ok(None)).unwrap_or(Ok(None))
}

#[track_caller]
fn assert_source(bytes: &[u8], source: Source) {
    assert_header(bytes, source, false);
}

#[track_caller]
fn assert_header(bytes: &[u8], source: Source, secure: bool) {
    let header = ProxyHeader { length: bytes.len(), source, secure };
    assert_eq!(parse(bytes), Ok(Some(header)));
    for cut in 0..bytes.len() {
        assert_eq!(parse(&bytes[..cut]), Ok(None), "the first {cut} bytes");
    }
    // What the client sends next is not looked at, whatever it is; another header neither.
    for next in [&b"GET / HTTP/1.1\r\n"[..], V1_LINE, &v4(&[]), b"\n", b"\xff"] {
        assert_eq!(parse(&[bytes, next].concat()), Ok(Some(header)));
    }
}

#[test]
fn a_line_of_version_1_names_the_client() {
    assert_source(V1_LINE, client("192.0.2.7"));
    let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let line = format!("PROXY TCP6 {longest} {longest} 65535 65535\r\n");
    assert_source(line.as_bytes(), client(longest));
    assert_source(b"PROXY TCP6 2001:db8::7 ::1 0 65535\r\n", client("2001:db8::7"));
}

#[test]
fn an_unknown_client_of_version_1_may_have_anything_in_its_line() {
    let line = |filler: usize| ["PROXY UNKNOWN ", &"f".repeat(filler), "\r\n"].concat();
    let longest = line(MAX_V1 - 16);
    assert_eq!(longest.len(), MAX_V1);
    for line in [&b"PROXY UNKNOWN\r\n"[..], b"PROXY UNKNOWN \xff 1\r\n", longest.as_bytes()] {
        assert_source(line, Source::Unknown);
    }
    assert_eq!(parse(line(MAX_V1 - 15).as_bytes()), Err(Fault::TooLong));
}

#[test]
fn what_haproxy_sends_is_understood() {
    assert_source(b"PROXY TCP4 127.0.0.1 127.0.0.1 44364 45587\r\n", client("127.0.0.1"));
    assert_source(&v4(&[]), client("192.0.2.7"));
    // A checksum and a unique id.
    let id = [&[0x05, 0, 22][..], b"0A000001:AD4C_0A000002"].concat();
    let header = v4(&[&[0x03, 0, 4, 0xde, 0xad, 0xbe, 0xef][..], &id].concat());
    assert_source(&header, client("192.0.2.7"));
    let check = v2(0x20, 0, &[]);
    assert_eq!(check.len(), 16);
    assert_source(&check, Source::Balancer);
}

#[test]
fn a_header_of_version_2_names_the_client_of_each_family() {
    let address: Ipv6Addr = "2001:db8::7".parse().expect("an address");
    let v6 = [&address.octets()[..], &[0; 20]].concat();
    assert_source(&v2(0x21, 0x21, &v6), client("2001:db8::7"));
    assert_source(&v2(0x21, 0x31, &[b'/'; 216]), Source::Unknown);
    assert_source(&v2(0x21, 0, &[]), Source::Unknown);
    // Whatever it holds: not even what looks like an extension is one.
    for body in [&[1][..], &[0xff; 12], &[9; 216], &ssl(CLIENT_SSL)] {
        assert_source(&v2(0x21, 0, body), Source::Unknown);
    }
    // What a balancer says of its own connection is not read.
    assert_source(&v2(0x20, 0x11, &[1; 5]), Source::Balancer);
}

#[test]
fn extensions_are_skipped_if_they_fit() {
    let most = MAX_V2 - FIXED - 12 - 3;
    let long = [&[0xe0][..], &u16::try_from(most).expect("short").to_be_bytes(), &vec![0; most]];
    let header = v4(&long.concat());
    assert_eq!(header.len(), MAX_V2);
    assert_source(&header, client("192.0.2.7"));
    assert_source(&v4(&[0x04, 0, 0]), client("192.0.2.7"));
    for overrun in
        [&[0x04][..], &[0x04, 0], &[0x04, 0, 1], &[0x04, 0xff, 0xff, 0], &[0x04, 0, 0, 1]]
    {
        assert_eq!(parse(&v4(overrun)), Err(Fault::Malformed), "{overrun:?}");
    }
}

/// The extension that says of the client's TLS what `bits` do.
fn ssl(bits: u8) -> Vec<u8> {
    // As HAProxy writes it: the certificate's verification, then the version (PP2_SUBTYPE_SSL_VERSION).
    [&[SSL, 0, 15, bits, 0, 0, 0, 0, 0x21, 0, 7][..], b"TLSv1.3"].concat()
}

#[test]
fn a_client_is_secure_if_the_extension_says_so_and_the_connection_is_its_own() {
    assert_header(&v4(&ssl(CLIENT_SSL)), client("192.0.2.7"), true);
    let others = [&[3, 0, 4, 9, 9, 9, 9][..], &ssl(0x07), &[4, 0, 0]].concat();
    assert_header(&v4(&others), client("192.0.2.7"), true);
    let unix = v2(0x21, 0x31, &[&[b'/'; 216][..], &ssl(CLIENT_SSL)].concat());
    assert_header(&unix, Source::Unknown, true);
    // Certificates of a connection or session, and no TLS.
    assert_header(&v4(&ssl(0x06)), client("192.0.2.7"), false);
    assert_header(&v4(&ssl(0)), client("192.0.2.7"), false);
    let v4 = v4(&ssl(CLIENT_SSL));
    assert_header(&v2(0x20, 0x11, &v4[FIXED..]), Source::Balancer, false);
    for short in [&[SSL, 0, 0][..], &[SSL, 0, 4, 1, 0, 0, 0]] {
        assert_eq!(parse(&self::v4(short)), Err(Fault::Malformed), "{short:?}");
    }
}

#[test]
fn a_header_that_says_too_much_is_not_waited_for() {
    let announced = [V2, &[0x21, 0x11, 0x0f, 0xf1]].concat();
    assert_eq!(parse(&announced), Err(Fault::TooLong));
    assert_eq!(parse(&[V2, &[0x21, 0x11, 0x0f, 0xf0]].concat()), Ok(None));
    assert_eq!(parse(&[b"PROXY TCP4 ", &[b'1'; 100][..]].concat()), Err(Fault::TooLong));
}

#[test]
fn another_version_command_or_family_is_refused() {
    for command in (0..=255).filter(|command| !matches!(command, 0x20 | 0x21)) {
        assert_eq!(parse(&[V2, &[command]].concat()), Err(Fault::Unsupported), "{command:#x}");
    }
    for family in (0..=255).filter(|family| !matches!(family, 0 | 0x11 | 0x21 | 0x31)) {
        let header = v2(0x21, family, &[0; 216]);
        assert_eq!(parse(&header), Err(Fault::Unsupported), "{family:#x}");
    }
}

#[test]
fn addresses_that_are_cut_short_are_malformed() {
    for (family, length) in [(0x11, 11), (0x21, 35), (0x31, 215), (0x11, 0), (0x21, 16)] {
        let header = v2(0x21, family, &vec![0; length]);
        assert_eq!(parse(&header), Err(Fault::Malformed), "{family:#x}");
    }
}

#[test]
fn a_line_that_breaks_the_form_is_refused() {
    for rest in [
        "TCP4 192.0.2.7 10.0.0.1 1\r\n",
        "TCP4 192.0.2.7 10.0.0.1 1 2 3\r\n",
        "TCP4 192.0.2.7 10.0.0.1 1 65536\r\n",
        "TCP4 192.0.2.7 10.0.0.1 +1 2\r\n",
        "TCP4 192.0.2.7 10.0.0.1 1 \r\n",
        "TCP4 192.0.2.7  10.0.0.1 1 2\r\n",
        "TCP4 192.0.2.7\t10.0.0.1 1 2\r\n",
        "TCP4 192.0.2.300 10.0.0.1 1 2\r\n",
        "TCP4 2001:db8::7 ::1 1 2\r\n",
        "TCP6 192.0.2.7 10.0.0.1 1 2\r\n",
        "TCP4 example.org 10.0.0.1 1 2\r\n",
        "TCP4 192.0.2.7 10.0.0.1 1 2\n",
        "TCP4 192.0.2.7 10.0.0.1 1 2\r\r\n",
        "UDP4 192.0.2.7 10.0.0.1 1 2\r\n",
        "tcp4 192.0.2.7 10.0.0.1 1 2\r\n",
        "UNKNOWNS\r\n",
        "\r\n",
    ] {
        assert_eq!(parse(format!("PROXY {rest}").as_bytes()), Err(Fault::Malformed), "{rest:?}");
    }
}

#[test]
fn what_begins_like_no_header_is_refused_at_the_first_byte_that_differs() {
    for (bytes, first) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], 1),
        (b"POST / HTTP/1.1\r\n\r\n", 2),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 3),
        (b"\x16\x03\x01\x02\x00", 1),
        (b"PROXYTCP4", 6),
        (b"\r\n\r\nGET / HTTP/1.1", 5),
    ] {
        assert_eq!(parse(&bytes[..first - 1]), Ok(None), "{bytes:?}");
        assert_eq!(parse(&bytes[..first]), Err(Fault::Absent), "{bytes:?}");
    }
}

/// Bytes that are nearly a header: a sound one with some bytes changed, cut or added.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let address: Ipv6Addr = Ipv6Addr::LOCALHOST;
    let sound = prop_oneof![
        Just(V1_LINE.to_vec()),
        Just(b"PROXY UNKNOWN\r\n".to_vec()),
        Just(v4(&[0x03, 0, 2, 1, 1])),
        Just(v2(0x21, 0x21, &[&address.octets()[..], &[0; 20]].concat())),
        Just(v2(0x20, 0, &[])),
    ];
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    let rest = prop::collection::vec(any::<u8>(), 0..200);
    (sound, edits, rest, any::<bool>()).prop_map(|(mut bytes, edits, rest, cut)| {
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if cut {
            bytes.truncate(rest.len());
        }
        bytes.extend(rest);
        bytes
    })
}

proptest! {
    #[test]
    fn the_verdict_is_the_same_in_whatever_pieces_the_bytes_come(
        bytes in prop_oneof![nearly(), prop::collection::vec(any::<u8>(), 0..64)],
        mut cuts in prop::collection::vec(0..300_usize, 0..8),
    ) {
        let whole = parse(&bytes);
        cuts.sort_unstable();
        prop_assert_eq!(in_pieces(&bytes, cuts), whole);
        prop_assert_eq!(in_pieces(&bytes, 0..bytes.len()), whole);
        if let Ok(Some(header)) = whole {
            prop_assert!(header.length <= bytes.len() && header.length <= MAX_V2);
            // The bytes after it have no part in it.
            prop_assert_eq!(parse(&bytes[..header.length]), whole);
        }
    }

    #[test]
    fn every_address_comes_through_both_versions(v4 in any::<u32>(), v6 in any::<u128>(), port in any::<u16>()) {
        let (v4, v6) = (Ipv4Addr::from(v4), Ipv6Addr::from(v6));
        for (address, family, octets) in
            [(IpAddr::from(v4), "TCP4", v4.octets().to_vec()), (v6.into(), "TCP6", v6.octets().to_vec())]
        {
            let line = format!("PROXY {family} {address} {address} {port} {port}\r\n");
            assert_source(line.as_bytes(), Source::Client(address));
            let binary = if family == "TCP4" { 0x11 } else { 0x21 };
            let body = [&octets[..], &octets, &[0; 4]].concat();
            assert_source(&v2(0x21, binary, &body), Source::Client(address));
        }
    }
}
