//! Fuzz target for paths and hosts: there is one canonical form, and it means what was sent.

use percent_encoding::percent_decode;

use super::host;
use super::path::{as_sent, canonicalize, other_readings};

/// The path of a request as received; the same bytes as a host, too.
///
/// A canonical path is a fixed point, stands for the same octets, contains nothing that servers
/// interpret in different ways, and is at most three times as long. A path whose slashes are kept
/// keeps all of them.
pub fn path(input: &[u8]) {
    check_host(input);
    let kept = as_sent(input);
    if let Ok(canonical) = canonicalize(input) {
        assert_eq!(canonicalize(canonical.as_bytes()).as_deref(), Ok(&*canonical));
        assert_eq!(kept.as_deref(), Ok(&*canonical), "where slashes are kept, no other form");
        assert!(!canonical.contains("//") && !canonical.contains("%2F"));
    }
    let Ok(kept) = kept else { return };
    assert_eq!(as_sent(kept.as_bytes()).as_deref(), Ok(&*kept));
    assert!(kept.starts_with('/') && kept.is_ascii() && kept.len() <= 3 * input.len());
    assert!(!kept.contains(['\\', ' ', '?', '#']) && !kept.contains("%5C"));
    let slashes = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'/').count();
    assert_eq!(slashes(kept.as_bytes()), slashes(input));
    let meaning = |path| percent_decode(path).collect::<Vec<u8>>();
    let means = meaning(kept.as_bytes());
    assert_eq!(means, meaning(input), "another path than was sent");
    assert!(!means.iter().any(u8::is_ascii_control) && std::str::from_utf8(&means).is_ok());
    for reading in other_readings(&kept) {
        assert_eq!(
            reading.replace("%2F", "/").replace('/', ""),
            kept.replace("%2F", "/").replace('/', "")
        );
        check_segments(&reading);
    }
    check_segments(&kept);
}

/// No segment is `.` or `..`, even after decoding and without parameters.
fn check_segments(path: &str) {
    let decoded: Vec<u8> = percent_decode(path.as_bytes()).collect();
    for segment in decoded.split(|byte| *byte == b'/') {
        let name = segment.split(|byte| *byte == b';').next();
        assert!(!matches!(name, Some(b"." | b"..")), "{path}");
    }
}

fn check_host(input: &[u8]) {
    let Ok(name) = host::normalize(input) else { return };
    assert_eq!(host::normalize(name.as_bytes()).as_deref(), Ok(&*name));
    assert!(name.len() <= input.len() + 32 && !name.is_empty());
    assert!(name.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()));
    assert!(!name.contains(['/', '@', '%', '?', '#']) && !name.ends_with('.'));
}
