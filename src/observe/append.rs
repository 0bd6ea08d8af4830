//! Numbers and addresses appended to a line, without the formatter of the standard library: it takes
//! longer for them than all texts of a line of the access log.

use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

pub(super) fn number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// A number of tenths, with one decimal.
pub(super) fn tenths(out: &mut Vec<u8>, tenths: u64) {
    number(out, tenths / 10);
    out.push(b'.');
    number(out, tenths % 10);
}

/// In 32 hexadecimal digits.
pub(super) fn hex(out: &mut Vec<u8>, number: u128) {
    for byte in number.to_be_bytes() {
        out.extend([byte >> 4, byte & 0xf].map(|nibble| DIGITS[usize::from(nibble)]));
    }
}

pub(super) fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            let [first, rest @ ..] = address.octets();
            number(out, first.into());
            for octet in rest {
                out.push(b'.');
                number(out, octet.into());
            }
        }
        // Writing into memory does not fail.
        IpAddr::V6(address) => {
            let _ = write!(out, "{address}");
        }
    }
}

/// Whole microseconds.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn appended(append: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        append(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn what_is_appended_is_what_the_standard_library_would_write() {
        for value in [0, 1, 0x0a, u128::MAX, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736] {
            assert_eq!(appended(|out| hex(out, value)), format!("{value:032x}"));
        }
        for text in ["0.0.0.0", "192.0.2.10", "255.255.255.255", "::", "2001:db8::1"] {
            let value: IpAddr = text.parse().expect("an address");
            assert_eq!(appended(|out| address(out, value)), text);
        }
        for (value, text) in [(0, "0.0"), (9, "0.9"), (10, "1.0"), (12345, "1234.5")] {
            assert_eq!(appended(|out| tenths(out, value)), text);
        }
    }
}
