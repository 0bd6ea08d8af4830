//! The content codings gzip and deflate (RFC 1952, RFC 1950): bounded decoding, and encoding.
//!
//! What counts as well-formed follows Go's `gzip.Reader`: several members in a row form one body; a
//! truncated body, a wrong checksum, or anything after the last member is an error.
//!
//! The decoder's state takes 40 KiB and is allocated for each body. A message of 1 KiB takes 2.6
//! µs, and reusing the state would not save a tenth of that.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use http::HeaderMap;
use http::header::{AsHeaderName, HeaderValue};

/// The value of fields that list what the gateway can decode.
pub const READ: HeaderValue = HeaderValue::from_static("gzip, deflate, identity");
/// The largest possible window; a sender may have used any size.
const WINDOW_BITS: u8 = 15;
/// JSON of 4 KiB becomes 1191 bytes in 15 µs; the usual level, 6, makes 1049 in 39 µs.
const LEVEL: u32 = 2;
/// Each member costs as much as a body of its own, however short it is.
const MOST_MEMBERS: usize = 1024;
/// The best ratio that deflate can reach.
const MOST_COMPRESSED: usize = 1032;
/// The buffer that a body of unknown length is decoded through, in bytes.
const BUFFER: usize = 16 * 1024;

/// A coding that the gateway decodes and encodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950: with a zlib header.
    Deflate,
}

/// How a sender says that a body or message is encoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Encoding {
    /// As it is; also if nothing is said.
    #[default]
    Identity,
    /// In one coding that can be decoded.
    Coded(Coding),
    /// In a coding that is not supported, or in several at once.
    Unknown,
}

/// Why a body could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// It is not of the declared coding, is truncated, or something follows it.
    Malformed,
    /// Its decoded size exceeds the limit.
    TooLarge,
}

impl Encoding {
    /// The encoding named by the field `name`, over all its lines.
    pub fn of(headers: &HeaderMap, name: impl AsHeaderName) -> Self {
        let mut encoding = Encoding::Identity;
        let values = headers.get_all(name).into_iter();
        for value in values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')) {
            match (Encoding::named(value), encoding) {
                (Encoding::Identity, _) => {}
                (found, Encoding::Identity) => encoding = found,
                (_, Encoding::Coded(_) | Encoding::Unknown) => return Encoding::Unknown,
            }
        }
        encoding
    }

    /// The encoding with this name.
    pub fn named(name: &[u8]) -> Self {
        let name = name.trim_ascii();
        if name.is_empty() || name.eq_ignore_ascii_case(b"identity") {
            Encoding::Identity
        } else if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") {
            Encoding::Coded(Coding::Gzip)
        } else if name.eq_ignore_ascii_case(b"deflate") {
            Encoding::Coded(Coding::Deflate)
        } else {
            Encoding::Unknown
        }
    }
}

impl Coding {
    /// The token of `Content-Encoding` and `grpc-encoding`.
    pub const fn name(self) -> HeaderValue {
        match self {
            Coding::Gzip => HeaderValue::from_static("gzip"),
            Coding::Deflate => HeaderValue::from_static("deflate"),
        }
    }

    /// The coding that the field `name` prefers, if it prefers one to no coding. Weights are as in
    /// `Accept-Encoding` (RFC 9110, section 12.5.3); a list without weights, as in gRPC, works too.
    pub fn preferred(headers: &HeaderMap, name: impl AsHeaderName) -> Option<Self> {
        let Weights { gzip, deflate, identity } = Weights::of(headers, name);
        let best = if gzip >= deflate { Coding::Gzip } else { Coding::Deflate };
        let weight = gzip.max(deflate);
        (weight > 0 && weight >= identity).then_some(best)
    }

    /// Whether the field `name` allows a response in this coding.
    pub fn is_accepted(self, headers: &HeaderMap, name: impl AsHeaderName) -> bool {
        let Weights { gzip, deflate, identity: _ } = Weights::of(headers, name);
        match self {
            Coding::Gzip => gzip > 0,
            Coding::Deflate => deflate > 0,
        }
    }

    /// Decodes a whole body. Holds at most `limit` bytes of it and a small buffer, and stops once
    /// the body turns out larger. An empty input gives an empty body.
    ///
    /// # Errors
    /// The body is not well-formed, or its decoded size exceeds `limit` bytes.
    pub fn read(self, bytes: &[u8], limit: usize) -> Result<Vec<u8>, Unreadable> {
        if let Some(length) = self.announced(bytes).filter(|length| *length <= limit) {
            let mut read = Vec::with_capacity(length + 1);
            match self.decode(bytes, &mut read, length) {
                Ok(_) => return Ok(read),
                // The length was that of the last member only, or wrong.
                Err(Unreadable::TooLarge) => {}
                Err(Unreadable::Malformed) => return Err(Unreadable::Malformed),
            }
        }
        // First find out the length, then allocate: a growing buffer would hold the body twice.
        let mut buffer = Vec::with_capacity(BUFFER);
        let length = self.decode(bytes, &mut buffer, limit)?;
        if length == buffer.len() {
            return Ok(buffer);
        }
        drop(buffer);
        let mut read = Vec::with_capacity(length + 1);
        self.decode(bytes, &mut read, length)?;
        Ok(read)
    }

    /// The decoded length that a body declares. A gzip member ends with its length.
    fn announced(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Coding::Gzip => {
                let length = u32::from_le_bytes(*bytes.last_chunk::<4>()?) as usize;
                Some(length).filter(|length| *length / MOST_COMPRESSED <= bytes.len())
            }
            Coding::Deflate => None,
        }
    }

    /// Decodes at most `most` bytes into the capacity of `room`, starting over whenever it is full,
    /// and returns how many bytes there were. If the capacity exceeds that number, `room` holds all
    /// of them.
    fn decode(self, bytes: &[u8], room: &mut Vec<u8>, most: usize) -> Result<usize, Unreadable> {
        let (mut rest, mut members, mut passed) = (bytes, 0, 0);
        while !rest.is_empty() {
            let goes_on = match self {
                Coding::Gzip => members < MOST_MEMBERS,
                Coding::Deflate => members == 0,
            };
            if !goes_on {
                return Err(Unreadable::Malformed);
            }
            rest = self.decode_member(rest, room, &mut passed, most)?;
            members += 1;
        }
        Ok(passed + room.len())
    }

    /// Decodes one member, and returns the bytes after it.
    fn decode_member<'a>(
        self,
        mut bytes: &'a [u8],
        room: &mut Vec<u8>,
        passed: &mut usize,
        most: usize,
    ) -> Result<&'a [u8], Unreadable> {
        let mut decoder = match self {
            Coding::Gzip => Decompress::new_gzip(WINDOW_BITS),
            Coding::Deflate => Decompress::new(true),
        };
        loop {
            if room.len() == room.capacity() {
                *passed += room.len();
                room.clear();
            }
            let before = decoder.total_in();
            let status = decoder
                .decompress_vec(bytes, room, FlushDecompress::None)
                .map_err(|_| Unreadable::Malformed)?;
            let used = usize::try_from(decoder.total_in() - before).unwrap_or(usize::MAX);
            bytes = bytes.get(used..).unwrap_or_default();
            if *passed + room.len() > most {
                return Err(Unreadable::TooLarge);
            }
            match status {
                Status::StreamEnd => return Ok(bytes),
                // There was room left, so the input ended too early.
                Status::Ok | Status::BufError if room.len() < room.capacity() => {
                    return Err(Unreadable::Malformed);
                }
                Status::Ok | Status::BufError => {}
            }
        }
    }

    /// Encodes a whole body; `None` if that does not make it smaller.
    pub fn write(self, bytes: &[u8]) -> Option<Vec<u8>> {
        let level = Compression::new(LEVEL);
        let mut encoder = match self {
            Coding::Gzip => Compress::new_gzip(level, WINDOW_BITS),
            Coding::Deflate => Compress::new(level, true),
        };
        let mut written = Vec::with_capacity(bytes.len());
        let status = encoder.compress_vec(bytes, &mut written, FlushCompress::Finish);
        (matches!(status, Ok(Status::StreamEnd)) && written.len() < bytes.len()).then_some(written)
    }
}

/// The weights that a field such as `Accept-Encoding` gives each coding, in thousandths.
struct Weights {
    gzip: u16,
    deflate: u16,
    identity: u16,
}

impl Weights {
    fn of(headers: &HeaderMap, name: impl AsHeaderName) -> Self {
        let (mut gzip, mut deflate, mut others) = (None, None, 0);
        let mut identity = 0;
        let values = headers.get_all(name).into_iter();
        for item in values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')) {
            let (name, weight) = weighted(item);
            match Encoding::named(name) {
                _ if name.is_empty() => {}
                _ if name == b"*" => others = weight,
                Encoding::Coded(Coding::Gzip) => gzip = Some(weight),
                Encoding::Coded(Coding::Deflate) => deflate = Some(weight),
                Encoding::Identity => identity = weight,
                Encoding::Unknown => {}
            }
        }
        Weights { gzip: gzip.unwrap_or(others), deflate: deflate.unwrap_or(others), identity }
    }
}

/// An item of a list and its weight in thousandths; an invalid or missing weight counts as 1000.
fn weighted(item: &[u8]) -> (&[u8], u16) {
    let mut parts = item.split(|byte| *byte == b';');
    let name = parts.next().unwrap_or_default().trim_ascii();
    let weight = parts.find_map(|part| {
        let part = part.trim_ascii();
        let number = part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q="))?;
        std::str::from_utf8(number).ok()?.parse::<f32>().ok()
    });
    // The cast saturates.
    (name, weight.map_or(1000, |weight| (weight * 1000.0) as u16))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOTH: [Coding; 2] = [Coding::Gzip, Coding::Deflate];

    fn text(length: usize) -> Vec<u8> {
        b"{\"name\":\"Ada Lovelace\"},".iter().copied().cycle().take(length).collect()
    }

    fn written(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        coding.write(bytes).expect("it gets smaller")
    }

    #[test]
    fn what_is_written_is_read_up_to_the_bound_and_no_further() {
        for coding in BOTH {
            for length in [60, 1000, 100_000] {
                let (text, coded) = (text(length), written(coding, &text(length)));
                assert!(coded.len() < length);
                assert_eq!(coding.read(&coded, length).as_ref(), Ok(&text), "{coding:?} {length}");
                assert_eq!(coding.read(&coded, length - 1), Err(Unreadable::TooLarge));
                assert_eq!(coding.read(&coded, 0), Err(Unreadable::TooLarge));
            }
        }
    }

    #[test]
    fn a_bomb_is_read_no_further_than_the_bound_in_the_room_there_is() {
        let zeros = vec![0; 10 << 20];
        for coding in BOTH {
            let bomb = written(coding, &zeros);
            assert!(bomb.len() < 100_000, "{}", bomb.len());
            for lie in [0, 900, 1 << 20, 1 << 30] {
                let mut bomb = bomb.clone();
                if coding == Coding::Gzip {
                    let end = bomb.len() - 4;
                    bomb[end..].copy_from_slice(&u32::to_le_bytes(lie));
                }
                assert!(coding.announced(&bomb).unwrap_or(0) <= (bomb.len() + 1) * MOST_COMPRESSED);
                assert_eq!(coding.read(&bomb, 100_000), Err(Unreadable::TooLarge));
                let mut room = Vec::with_capacity(10);
                assert_eq!(coding.decode(&bomb, &mut room, 1000), Err(Unreadable::TooLarge));
                assert_eq!(room.capacity(), 10);
            }
        }
    }

    #[test]
    fn members_in_a_row_are_one_body() {
        let member = written(Coding::Gzip, &text(100));
        let both = [&member[..], &member].concat();
        assert_eq!(Coding::Gzip.read(&both, 200), Ok([text(100), text(100)].concat()));
        assert_eq!(Coding::Gzip.read(&both, 199), Err(Unreadable::TooLarge));
        let zlib = written(Coding::Deflate, &text(100));
        assert_eq!(Coding::Deflate.read(&[&zlib[..], &zlib].concat(), 200), Err(MALFORMED));
        let many = member.repeat(MOST_MEMBERS + 1);
        assert_eq!(Coding::Gzip.read(&many, usize::MAX), Err(MALFORMED));
    }

    const MALFORMED: Unreadable = Unreadable::Malformed;

    #[test]
    fn what_is_cut_short_damaged_or_followed_by_more_is_malformed() {
        for coding in BOTH {
            let coded = written(coding, &text(100));
            for end in 1..coded.len() {
                assert_eq!(coding.read(&coded[..end], 1000), Err(MALFORMED), "{coding:?} {end}");
            }
            for more in [&b"\0"[..], b"garbage", &[0x1f, 0x8b], &[0; 20]] {
                assert_eq!(coding.read(&[&coded, more].concat(), 1000), Err(MALFORMED), "{more:?}");
            }
            let mut wrong = coded.clone();
            // Within the checksum; in gzip the length follows it.
            let at = coded.len() - if coding == Coding::Gzip { 5 } else { 1 };
            wrong[at] ^= 1;
            assert_eq!(coding.read(&wrong, 1000), Err(MALFORMED));
            assert_eq!(coding.read(b"{\"name\":\"Ada\"}", 1000), Err(MALFORMED));
            assert_eq!(coding.read(b"", 0), Ok(Vec::new()));
        }
        let mut wrong = written(Coding::Gzip, &text(100));
        let end = wrong.len() - 1;
        wrong[end] ^= 1;
        assert_eq!(Coding::Gzip.read(&wrong, 1000), Err(MALFORMED));
    }

    #[test]
    fn what_gets_no_smaller_is_not_written() {
        for coding in BOTH {
            assert_eq!(coding.write(b""), None);
            assert_eq!(coding.write(b"{}"), None);
        }
    }

    #[test]
    fn an_encoding_has_one_name() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("content-encoding", HeaderValue::from_static(value));
            }
            Encoding::of(&headers, "content-encoding")
        };
        assert_eq!(of(&[]), Encoding::Identity);
        assert_eq!(of(&[""]), Encoding::Identity);
        assert_eq!(of(&["identity"]), Encoding::Identity);
        for gzip in ["gzip", "GZIP", "x-gzip", " gzip , identity"] {
            assert_eq!(of(&[gzip]), Encoding::Coded(Coding::Gzip), "{gzip}");
        }
        assert_eq!(of(&["deflate"]), Encoding::Coded(Coding::Deflate));
        for unknown in [&["br"][..], &["gzip, gzip"], &["gzip", "br"], &["zstd"], &["gzip;q=1"]] {
            assert_eq!(of(unknown), Encoding::Unknown, "{unknown:?}");
        }
    }

    #[test]
    fn the_coding_is_the_one_that_is_preferred() {
        let preferred = |value: &'static str| {
            let headers = HeaderMap::from_iter([(
                http::header::ACCEPT_ENCODING,
                HeaderValue::from_static(value),
            )]);
            Coding::preferred(&headers, "accept-encoding")
        };
        for gzip in
            ["gzip", "deflate, gzip", "br, gzip;q=0.5", "*", "GZIP;Q=0.001", "identity,gzip"]
        {
            assert_eq!(preferred(gzip), Some(Coding::Gzip), "{gzip}");
        }
        for deflate in ["deflate", "gzip;q=0.5, deflate", "gzip;q=0, *"] {
            assert_eq!(preferred(deflate), Some(Coding::Deflate), "{deflate}");
        }
        for none in
            ["", "br", "identity", "gzip;q=0", "gzip;q=0.1, identity", "*;q=0", "gzip; q=0.0"]
        {
            assert_eq!(preferred(none), None, "{none}");
        }
        assert_eq!(Coding::preferred(&HeaderMap::new(), "accept-encoding"), None);
    }

    proptest! {
        #[test]
        fn whatever_arrives_nothing_panics_or_grows_past_its_bound(bytes in prop::collection::vec(any::<u8>(), 0..300), head in 0_usize..3) {
            for coding in BOTH {
                let start = [&b""[..], &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], &[0x78, 0x9c]][head];
                if let Ok(read) = coding.read(&[start, &bytes].concat(), 100) {
                    prop_assert!(read.len() <= 100);
                }
            }
        }
    }
}
