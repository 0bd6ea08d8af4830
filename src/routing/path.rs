//! The canonical path: the one form used to route, authenticate, limit, record and forward.
//!
//! If a gateway decides on one reading of a path and the upstream acts on another, the gateway can
//! be bypassed. So a path has exactly one form here, and a path that servers are known to read in
//! different ways has no form: it is [`Ambiguous`], a 400. The caller handles the query and bounds
//! on length.
//!
//! | in the path as received | here |
//! |---|---|
//! | `%41`, `%7e` (unreserved, RFC 3986 section 2.3) | decoded: `A`, `~` |
//! | `%c3%a9`, `%2b` | kept encoded, hex in upper case |
//! | `"` `<` `>` `[` `]` `^` `` ` `` `{` `|` `}`, raw UTF-8 | percent-encoded: not legal raw, but sent |
//! | `.` and `..` segments, however encoded, even within the root | refused: some resolve, some do not |
//! | `..;x`, `.%3Bx`, `;x` as a segment | refused: servlet containers drop `;x`, then resolve |
//! | `//` | refused: some merge, some do not; kept where the route says so |
//! | `%2F` | refused: a separator to some; kept where the route says so |
//! | `\`, `%5C` | refused: a separator to some |
//! | control characters, space, `?`, `#`, broken escapes, octets that are not UTF-8 | refused |
//!
//! A route may declare that its upstream distinguishes `%2F` from `/`, and `//` from `/`. Its paths
//! are [`as_sent`]: split at each raw `/` before anything is decoded. Nothing else is accepted, and
//! dot segments are refused however the slashes beside them are written.
//!
//! A trailing `/` is kept and makes a different path. Parameters after a name (`/a;v=1`) belong to
//! their segment and are kept: `/a;v=1` is not `/a`.

use std::borrow::Cow;

/// Why a path has no canonical form. The text may be sent to a client: it never quotes the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ambiguous {
    /// The first character is not `/`; an empty path included.
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    /// `//`, on a route that is not `as_sent`.
    #[error("the path contains an empty segment")]
    EmptySegment,
    /// `.` or `..`, however encoded and with parameters (`..;x`), or parameters alone.
    #[error("the path contains a dot segment")]
    DotSegment,
    /// `%2F`, on a route that is not `as_sent`.
    #[error("the path contains an encoded slash")]
    EncodedSlash,
    /// Raw or as `%5C`.
    #[error("the path contains a backslash")]
    Backslash,
    /// An octet below 0x20, or 0x7f, raw or encoded.
    #[error("the path contains a control character")]
    Control,
    /// A space, `?` or `#`.
    #[error("the path contains a character that must be percent-encoded")]
    Unencoded,
    /// A `%` that two hexadecimal digits do not follow.
    #[error("the path contains an invalid percent-encoding")]
    BadEscape,
    /// The octets, once decoded, are not UTF-8: overlong forms included.
    #[error("the path is not UTF-8")]
    NotUtf8,
}

/// The canonical form of `raw`, a path as received and without its query.
///
/// Idempotent. Does not allocate if `raw` is canonical already, unless it has encoded octets above
/// ASCII.
///
/// # Errors
/// [`Ambiguous`], with the first reason found.
pub fn canonicalize(raw: &[u8]) -> Result<Cow<'_, str>, Ambiguous> {
    if raw.first() != Some(&b'/') {
        return Err(Ambiguous::NotAbsolute);
    }
    if is_canonical(raw)? {
        return std::str::from_utf8(raw).map(Cow::Borrowed).map_err(|_| Ambiguous::NotUtf8);
    }
    let path = rewrite(raw, EncodedSlash::Refused)?;
    let segments = path.as_bytes()[1..].split(|&b| b == b'/');
    let last = segments.clone().count() - 1;
    for (index, segment) in segments.enumerate() {
        if !(segment.is_empty() && index == last) {
            check_segment(segment)?;
        }
    }
    Ok(Cow::Owned(path))
}

/// The canonical form of `raw` for an upstream that distinguishes slashes: as [`canonicalize`], but
/// encoded slashes (as `%2F`) and empty segments are kept.
///
/// # Errors
/// [`Ambiguous`], also for dot segments between encoded slashes.
pub fn as_sent(raw: &[u8]) -> Result<String, Ambiguous> {
    if raw.first() != Some(&b'/') {
        return Err(Ambiguous::NotAbsolute);
    }
    let path = rewrite(raw, EncodedSlash::Kept)?;
    let segments = path.split('/').flat_map(|segment| segment.split("%2F"));
    segments.filter(|segment| !segment.is_empty()).try_for_each(|s| check_segment(s.as_bytes()))?;
    Ok(path)
}

/// How servers that do not distinguish slashes would read `path`, which is [`as_sent`]: with
/// encoded slashes decoded, with empty segments merged, and with both.
pub fn other_readings(path: &str) -> impl Iterator<Item = String> {
    let decoded = path.replace("%2F", "/");
    let both = merged(&decoded);
    [merged(path), both, decoded].into_iter()
}

fn merged(path: &str) -> String {
    let mut merged = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !merged.ends_with('/') {
            merged.push(character);
        }
    }
    merged
}

/// What happens to `%2F`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum EncodedSlash {
    Refused,
    Kept,
}

/// The role of an octet in a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Octet {
    /// Means the same encoded or raw: written raw.
    Unreserved,
    /// Legal raw, but means something else when encoded: kept as it came.
    Delimiter,
    Slash,
    /// Begins an escape; as data it is written `%25`.
    Percent,
    /// Not legal raw, but harmless: written encoded.
    Encoded,
    /// Raw it would end the path or the request line: accepted only encoded.
    OnlyEncoded,
    Backslash,
    Control,
}

static OCTETS: [Octet; 256] = {
    let mut table = [Octet::Encoded; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                Octet::Unreserved
            }
            b'!' | b'$' | b'&'..=b',' | b';' | b'=' | b':' | b'@' => Octet::Delimiter,
            b'/' => Octet::Slash,
            b'%' => Octet::Percent,
            b' ' | b'?' | b'#' => Octet::OnlyEncoded,
            b'\\' => Octet::Backslash,
            0..=0x1f | 0x7f => Octet::Control,
            b'"' | b'<' | b'>' | b'[' | b']' | b'^' | b'`' | b'{'..=b'}' | 0x80.. => Octet::Encoded,
        };
        byte += 1;
    }
    table
};

fn octet(byte: u8) -> Octet {
    OCTETS[usize::from(byte)]
}

/// Scans once without changing anything; on `false`, [`rewrite`] decides.
fn is_canonical(raw: &[u8]) -> Result<bool, Ambiguous> {
    let mut at = 1;
    let mut segment = 1;
    while let Some(&byte) = raw.get(at) {
        match octet(byte) {
            Octet::Unreserved | Octet::Delimiter => {
                if at == segment && (byte == b'.' || byte == b';') {
                    check_segment(up_to_slash(&raw[at..]))?;
                }
            }
            Octet::Slash if at == segment => return Err(Ambiguous::EmptySegment),
            Octet::Slash => segment = at + 1,
            Octet::Percent if is_canonical_escape(&raw[at..]) => {
                if at == segment {
                    check_segment(up_to_slash(&raw[at..]))?;
                }
                at += 2;
            }
            Octet::Percent
            | Octet::Encoded
            | Octet::OnlyEncoded
            | Octet::Backslash
            | Octet::Control => return Ok(false),
        }
        at += 1;
    }
    Ok(true)
}

/// Whether `text` begins with an escape that [`rewrite`] would keep and that can be judged on its
/// own. Octets above ASCII cannot.
fn is_canonical_escape(text: &[u8]) -> bool {
    let &[_, high, low, ..] = text else { return false };
    let Ok(byte) = unescape(text) else { return false };
    let kept = match octet(byte) {
        Octet::Delimiter | Octet::Percent | Octet::Encoded | Octet::OnlyEncoded => byte.is_ascii(),
        Octet::Unreserved | Octet::Slash | Octet::Backslash | Octet::Control => false,
    };
    kept && !high.is_ascii_lowercase() && !low.is_ascii_lowercase()
}

/// Writes every octet in its canonical spelling. Segments are checked afterwards, so that a dot
/// counts as a dot however it was written.
fn rewrite(raw: &[u8], slash: EncodedSlash) -> Result<String, Ambiguous> {
    let mut path = String::with_capacity(raw.len() + 16);
    let mut plain = Vec::with_capacity(raw.len());
    let mut at = 0;
    while let Some(&first) = raw.get(at) {
        let escaped = first == b'%';
        let byte = if escaped { unescape(&raw[at..])? } else { first };
        at += if escaped { 3 } else { 1 };
        plain.push(byte);
        match octet(byte) {
            Octet::Unreserved => path.push(char::from(byte)),
            Octet::Delimiter | Octet::Slash if !escaped => path.push(char::from(byte)),
            Octet::Delimiter | Octet::Percent | Octet::Encoded => escape(byte, &mut path),
            Octet::OnlyEncoded if escaped => escape(byte, &mut path),
            Octet::OnlyEncoded => return Err(Ambiguous::Unencoded),
            Octet::Slash if slash == EncodedSlash::Kept => escape(byte, &mut path),
            Octet::Slash => return Err(Ambiguous::EncodedSlash),
            Octet::Backslash => return Err(Ambiguous::Backslash),
            Octet::Control => return Err(Ambiguous::Control),
        }
    }
    // This also refuses overlong forms of `/` and `.`.
    std::str::from_utf8(&plain).map_err(|_| Ambiguous::NotUtf8)?;
    Ok(path)
}

/// The octet that the escape at the start of `text` stands for.
fn unescape(text: &[u8]) -> Result<u8, Ambiguous> {
    let digit = |at: usize| text.get(at).and_then(|&b| char::from(b).to_digit(16));
    let (Some(high), Some(low)) = (digit(1), digit(2)) else { return Err(Ambiguous::BadEscape) };
    u8::try_from(high * 16 + low).map_err(|_| Ambiguous::BadEscape)
}

fn escape(byte: u8, path: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    path.push('%');
    path.push(char::from(HEX[usize::from(byte >> 4)]));
    path.push(char::from(HEX[usize::from(byte & 15)]));
}

fn up_to_slash(text: &[u8]) -> &[u8] {
    text.split(|&b| b == b'/').next().unwrap_or(text)
}

/// Refuses a segment whose name, without parameters, is empty, `.` or `..`.
fn check_segment(segment: &[u8]) -> Result<(), Ambiguous> {
    let begins_parameters = |at: &usize| segment[*at] == b';' || segment[*at..].starts_with(b"%3B");
    // A name of three octets or more is always accepted.
    let end = (0..segment.len().min(3)).find(begins_parameters).unwrap_or(segment.len());
    match &segment[..end] {
        b"" => Err(Ambiguous::EmptySegment),
        b"." | b".." => Err(Ambiguous::DotSegment),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(raw: &str) -> Result<String, Ambiguous> {
        canonicalize(raw.as_bytes()).map(Cow::into_owned)
    }

    #[test]
    fn a_canonical_path_is_lent_back() {
        for path in [
            "/",
            "/a",
            "/a/",
            "/a.b/.well-known/...",
            "/a;v=1/b:c@d",
            "/a%20b/%5B%2B",
            "/!$&'()*+,=",
        ] {
            assert!(matches!(canonicalize(path.as_bytes()), Ok(Cow::Borrowed(p)) if p == path));
        }
    }

    #[test]
    fn spellings_of_one_path_become_one() {
        for (raw, path) in [
            ("/%75sers/%7e%2D", "/users/~-"),
            ("/a%2bb%3a", "/a%2Bb%3A"),
            ("/caf\u{e9}", "/caf%C3%A9"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a[0]|{x}", "/a%5B0%5D%7C%7Bx%7D"),
            ("/a%252e", "/a%252e"),
            ("/a%2eb", "/a.b"),
        ] {
            assert_eq!(canonical(raw).as_deref(), Ok(path), "{raw}");
        }
    }

    #[test]
    fn what_servers_read_in_different_ways_is_refused() {
        use Ambiguous::*;
        for (raw, why) in [
            ("", NotAbsolute),
            ("*", NotAbsolute),
            ("a/b", NotAbsolute),
            ("//", EmptySegment),
            ("//a", EmptySegment),
            ("/a//b", EmptySegment),
            ("/%61//", EmptySegment),
            ("/a/./b", DotSegment),
            ("/a/..", DotSegment),
            ("/../etc", DotSegment),
            ("/a/%2e%2E/b", DotSegment),
            ("/a/.%2e", DotSegment),
            ("/a/..;/b", DotSegment),
            ("/a/.;x=1", DotSegment),
            ("/a/..%3Bx", DotSegment),
            ("/a/%2e%2e%3bx", DotSegment),
            ("/a/;x/b", EmptySegment),
            ("/a/%3Bx/b", EmptySegment),
            ("/a%2Fb", EncodedSlash),
            ("/a%2fb", EncodedSlash),
            ("/a\\b", Backslash),
            ("/a%5cb", Backslash),
            ("/a%00", Control),
            ("/a%1F", Control),
            ("/a%7f", Control),
            ("/a\tb", Control),
            ("/a b", Unencoded),
            ("/a?b", Unencoded),
            ("/a#b", Unencoded),
            ("/a%", BadEscape),
            ("/a%4", BadEscape),
            ("/a%zz", BadEscape),
            ("/a%+1", BadEscape),
            ("/%c0%af", NotUtf8),
            ("/%e9", NotUtf8),
        ] {
            assert_eq!(canonical(raw), Err(why), "{raw:?}");
        }
    }

    #[test]
    fn raw_octets_that_are_not_utf8_are_refused() {
        assert_eq!(canonicalize(b"/\xff"), Err(Ambiguous::NotUtf8));
    }

    fn canonical_of(raw: &[u8]) -> Result<String, Ambiguous> {
        canonicalize(raw).map(Cow::into_owned)
    }

    /// Octets that are likely to matter.
    fn raw_path() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"/".to_vec()),
            Just(b".".to_vec()),
            Just(b";".to_vec()),
            any::<u8>().prop_map(|b| format!("%{b:02x}").into_bytes()),
            any::<u8>().prop_map(|b| format!("%{b:02X}").into_bytes()),
            Just("\u{e9}".as_bytes().to_vec()),
            "[a-z0-9]{1,3}".prop_map(String::into_bytes),
            any::<u8>().prop_map(|b| vec![b]),
        ];
        proptest::collection::vec(piece, 0..8).prop_map(|pieces| {
            let mut path = b"/".to_vec();
            path.extend(pieces.concat());
            path
        })
    }

    #[test]
    fn slashes_are_kept_as_they_were_sent_where_they_may_be() {
        for (raw, path) in [
            ("/api/queues/%2F/q", "/api/queues/%2F/q"),
            ("/a%2fb%2Fc", "/a%2Fb%2Fc"),
            ("/files//a", "/files//a"),
            ("//", "//"),
            ("//a//", "//a//"),
            ("/%61%2f%2f", "/a%2F%2F"),
            ("/a%252F", "/a%252F"),
            ("/...%2F.a", "/...%2F.a"),
        ] {
            assert_eq!(as_sent(raw.as_bytes()).as_deref(), Ok(path), "{raw}");
        }
    }

    #[test]
    fn kept_slashes_let_in_nothing_else() {
        use Ambiguous::*;
        for (raw, why) in [
            ("*", NotAbsolute),
            ("/public/..%2Fadmin", DotSegment),
            ("/public%2F..%2fadmin", DotSegment),
            ("/public/%2e%2e%2fadmin", DotSegment),
            ("/public%2f%2e%2e", DotSegment),
            ("/a//../b", DotSegment),
            ("/a%2F.", DotSegment),
            ("/a%2F./b", DotSegment),
            ("/a/.%2Fb", DotSegment),
            ("/a%2F..;x/b", DotSegment),
            ("/a%2F..%3Bx%2Fb", DotSegment),
            ("/a%2F;x/b", EmptySegment),
            ("//;x", EmptySegment),
            ("/a%2F\\b", Backslash),
            ("/a%5cb", Backslash),
            ("/a%2F%00", Control),
            ("/a%2", BadEscape),
            ("/%c0%af", NotUtf8),
        ] {
            assert_eq!(as_sent(raw.as_bytes()), Err(why), "{raw:?}");
        }
    }

    #[test]
    fn other_readings_decode_and_merge() {
        let of = |path| other_readings(path).collect::<Vec<_>>();
        assert_eq!(of("//a%2Fb"), ["/a%2Fb", "/a/b", "//a/b"]);
        assert_eq!(of("/q/%2F/x"), ["/q/%2F/x", "/q/x", "/q///x"]);
    }

    proptest! {
        #[test]
        fn paths_without_such_slashes_are_the_same_either_way(raw in raw_path()) {
            let strict = canonical_of(&raw);
            match &strict {
                Err(Ambiguous::EncodedSlash | Ambiguous::EmptySegment) => {}
                Ok(_) => prop_assert_eq!(as_sent(&raw), strict),
                Err(_) => prop_assert!(as_sent(&raw).is_err()),
            }
        }

        #[test]
        fn no_reading_of_a_kept_path_has_a_dot_segment(raw in raw_path()) {
            let Ok(path) = as_sent(&raw) else { return Ok(()) };
            prop_assert_eq!(as_sent(path.as_bytes()), Ok(path.clone()));
            for reading in other_readings(&path).chain([path.clone()]) {
                // As strict as ever, except for the slashes.
                let segments = reading[1..].split('/').filter(|segment| !segment.is_empty());
                for segment in segments {
                    prop_assert_eq!(check_segment(segment.as_bytes()), Ok(()), "{}", reading);
                }
                prop_assert!(!reading.contains('\\') && reading.is_ascii());
            }
        }

        #[test]
        fn every_segment_of_a_kept_path_is_one_that_was_sent(raw in raw_path()) {
            let Ok(path) = as_sent(&raw) else { return Ok(()) };
            let count = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'/').count();
            prop_assert_eq!(count(path.as_bytes()), count(&raw));
        }

        #[test]
        fn canonical_paths_stay_as_they_are(raw in raw_path()) {
            if let Ok(path) = canonicalize(&raw) {
                let again = canonicalize(path.as_bytes());
                prop_assert_eq!(again.as_deref(), Ok(&*path));
            }
        }

        #[test]
        fn canonical_paths_hold_nothing_ambiguous(raw in raw_path()) {
            if let Ok(path) = canonicalize(&raw) {
                prop_assert!(path.starts_with('/') && path.is_ascii() && !path.contains('\\'));
                for segment in path[1..].split('/') {
                    let name = segment.replace("%3B", ";");
                    let name = name.split(';').next().unwrap_or_default();
                    prop_assert!(name != "." && name != "..", "{}", path);
                }
                prop_assert!(!path.contains("//") && !path.contains("%2F"));
            }
        }

        #[test]
        fn any_octets_are_survived(raw in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = canonicalize(&raw);
        }
    }
}
