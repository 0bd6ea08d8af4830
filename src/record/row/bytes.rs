//! What values are made of in the journal's bytes. Numbers are in groups of seven bits, the lowest
//! first, with the highest bit of a byte set if more follow; text has its length before it.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use super::value::{TraceId, micros};

/// A part of a row as bytes.
pub(super) trait Bytes<'a>: Sized {
    fn write(self, out: &mut Vec<u8>);

    /// Takes one off the front of `from`; `None` if there is none.
    fn read(from: &mut &'a [u8]) -> Option<Self>;
}

impl Bytes<'_> for u64 {
    fn write(mut self, out: &mut Vec<u8>) {
        while self >= 0x80 {
            out.push(self as u8 | 0x80);
            self >>= 7;
        }
        out.push(self as u8);
    }

    fn read(from: &mut &[u8]) -> Option<Self> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let (byte, rest) = from.split_first()?;
            *from = rest;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if bits << shift >> shift != bits {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

impl Bytes<'_> for u32 {
    fn write(self, out: &mut Vec<u8>) {
        u64::from(self).write(out);
    }

    fn read(from: &mut &[u8]) -> Option<Self> {
        u64::read(from)?.try_into().ok()
    }
}

impl Bytes<'_> for bool {
    fn write(self, out: &mut Vec<u8>) {
        out.push(u8::from(self));
    }

    fn read(from: &mut &[u8]) -> Option<Self> {
        match <[u8; 1]>::read(from)? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }
}

impl<const N: usize> Bytes<'_> for [u8; N] {
    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self);
    }

    fn read(from: &mut &[u8]) -> Option<Self> {
        let (bytes, rest) = from.split_first_chunk()?;
        *from = rest;
        Some(*bytes)
    }
}

impl<'a> Bytes<'a> for &'a str {
    fn write(self, out: &mut Vec<u8>) {
        (self.len() as u64).write(out);
        out.extend_from_slice(self.as_bytes());
    }

    fn read(from: &mut &'a [u8]) -> Option<Self> {
        let length = u64::read(from)?.try_into().ok()?;
        let (text, rest) = from.split_at_checked(length)?;
        *from = rest;
        std::str::from_utf8(text).ok()
    }
}

impl Bytes<'_> for Uuid {
    fn write(self, out: &mut Vec<u8>) {
        self.into_bytes().write(out);
    }

    fn read(from: &mut &[u8]) -> Option<Self> {
        TraceId::read(from).map(Uuid::from_bytes)
    }
}

/// In microseconds since 1970.
impl Bytes<'_> for SystemTime {
    fn write(self, out: &mut Vec<u8>) {
        micros(self.duration_since(UNIX_EPOCH).unwrap_or_default()).write(out);
    }

    fn read(from: &mut &[u8]) -> Option<Self> {
        UNIX_EPOCH.checked_add(Duration::from_micros(u64::read(from)?))
    }
}

/// Zero and four bytes, or one and sixteen.
impl Bytes<'_> for IpAddr {
    fn write(self, out: &mut Vec<u8>) {
        match self {
            IpAddr::V4(address) => {
                out.push(0);
                address.octets().write(out);
            }
            IpAddr::V6(address) => {
                out.push(1);
                address.octets().write(out);
            }
        }
    }

    fn read(from: &mut &[u8]) -> Option<Self> {
        match <[u8; 1]>::read(from)? {
            [0] => <[u8; 4]>::read(from).map(IpAddr::from),
            [1] => <[u8; 16]>::read(from).map(IpAddr::from),
            _ => None,
        }
    }
}
