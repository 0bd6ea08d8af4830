//! Where the body of an HTTP/1 request ends.
//!
//! Pingora reads an empty chunk size as zero, and what follows as the next request. So the gateway
//! follows the body itself, exactly by RFC 9112, section 7.1: Pingora's parser gets only bytes that
//! are valid and belong to this request.

/// Most digits of a chunk size: 60 bits.
const MAX_DIGITS: u8 = 15;
/// Longest chunk extension in bytes; no known client sends any.
const MAX_EXTENSION: u16 = 1024;
/// Limit in bytes on all trailers together; Pingora's own is a little larger.
const MAX_TRAILERS: u16 = 8 * 1024;

/// A chunked body that breaks the chunked coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// What remains of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// This many bytes; zero at the end of every body.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunks(Chunks),
    /// Everything up to the end of the connection: a tunnel.
    Tunnel,
}

/// The part of a chunked body that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunks {
    /// The digits of a chunk's size: how many there were, and their value.
    Size {
        /// At most 15, so that the value cannot overflow.
        digits: u8,
        /// In bytes.
        size: u64,
    },
    /// White space between a size and its extension.
    Space {
        /// In bytes.
        size: u64,
    },
    /// The rest of the line after a size; its meaning is ignored.
    Extension {
        /// In bytes.
        size: u64,
        /// Bytes of it so far.
        length: u16,
    },
    /// The line feed after a size.
    SizeEnd {
        /// In bytes.
        size: u64,
    },
    /// A chunk's data.
    Data {
        /// Bytes until its end.
        left: u64,
    },
    /// The carriage return after a chunk's data.
    DataEnd,
    /// The line feed after it.
    DataEndFeed,
    /// A line of the trailers, with the bytes so far of the line and of all trailers.
    Trailer {
        /// Bytes of this line.
        line: u16,
        /// Bytes of all trailers.
        all: u16,
    },
    /// The line feed after a line of the trailers.
    TrailerFeed {
        /// Bytes of this line; 0 for the empty line that ends the body.
        line: u16,
        /// Bytes of all trailers.
        all: u16,
    },
}

impl Framing {
    /// A chunked body from its start.
    pub fn chunked() -> Self {
        Framing::Chunks(Chunks::Size { digits: 0, size: 0 })
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        *self == Framing::Length(0)
    }

    /// How many of `bytes`, which come next, belong to the body.
    ///
    /// # Errors
    /// [`Malformed`], at the first byte that RFC 9112 does not allow there.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        match self {
            Framing::Tunnel => Ok(bytes.len()),
            Framing::Length(left) => {
                let taken = u64::try_from(bytes.len()).unwrap_or(u64::MAX).min(*left);
                *left -= taken;
                Ok(usize::try_from(taken).unwrap_or(bytes.len()))
            }
            Framing::Chunks(_) => self.take_chunks(bytes),
        }
    }

    fn take_chunks(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut at = 0;
        while let (Framing::Chunks(chunks), Some(&byte)) = (&mut *self, bytes.get(at)) {
            if let Chunks::Data { left } = chunks {
                let available = bytes.len() - at;
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(available);
                *left -= taken as u64;
                at += taken;
                if *left == 0 {
                    *chunks = Chunks::DataEnd;
                }
                continue;
            }
            at += 1;
            match chunks.after(byte)? {
                Some(next) => *chunks = next,
                None => *self = Framing::Length(0),
            }
        }
        Ok(at)
    }
}

impl Chunks {
    /// The state after `byte`; `None` at the end of the body.
    fn after(self, byte: u8) -> Result<Option<Self>, Malformed> {
        let next = match (self, byte) {
            (Chunks::Size { digits, size }, byte) if byte.is_ascii_hexdigit() => {
                if digits == MAX_DIGITS {
                    return Err(Malformed);
                }
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                Chunks::Size { digits: digits + 1, size: size << 4 | u64::from(digit) }
            }
            (Chunks::Size { digits: 0, .. }, _) => return Err(Malformed),
            (Chunks::Size { size, .. } | Chunks::Extension { size, .. }, b'\r') => {
                Chunks::SizeEnd { size }
            }
            (Chunks::Size { size, .. } | Chunks::Space { size }, b' ' | b'\t') => {
                Chunks::Space { size }
            }
            (Chunks::Size { size, .. } | Chunks::Space { size }, b';') => {
                Chunks::Extension { size, length: 0 }
            }
            (Chunks::Extension { size, length }, byte)
                if length < MAX_EXTENSION && (byte == b'\t' || is_visible(byte)) =>
            {
                Chunks::Extension { size, length: length + 1 }
            }
            (Chunks::SizeEnd { size: 0 }, b'\n') => Chunks::Trailer { line: 0, all: 0 },
            (Chunks::SizeEnd { size }, b'\n') => Chunks::Data { left: size },
            (Chunks::DataEnd, b'\r') => Chunks::DataEndFeed,
            (Chunks::DataEndFeed, b'\n') => Chunks::Size { digits: 0, size: 0 },
            (Chunks::Trailer { line, all }, b'\r') => Chunks::TrailerFeed { line, all },
            (Chunks::Trailer { line, all }, byte)
                if all < MAX_TRAILERS && (byte == b'\t' || is_visible(byte)) =>
            {
                Chunks::Trailer { line: line + 1, all: all + 1 }
            }
            (Chunks::TrailerFeed { line: 0, .. }, b'\n') => return Ok(None),
            (Chunks::TrailerFeed { all, .. }, b'\n') => Chunks::Trailer { line: 0, all },
            (
                Chunks::Size { .. }
                | Chunks::Space { .. }
                | Chunks::Extension { .. }
                | Chunks::SizeEnd { .. }
                | Chunks::Data { .. }
                | Chunks::DataEnd
                | Chunks::DataEndFeed
                | Chunks::Trailer { .. }
                | Chunks::TrailerFeed { .. },
                _,
            ) => return Err(Malformed),
        };
        Ok(Some(next))
    }
}

fn is_visible(byte: u8) -> bool {
    byte >= b' ' && byte != 0x7f
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How much of `body` belongs to it, fed in pieces of `size`.
    fn taken(body: &str, size: usize) -> Result<(usize, bool), Malformed> {
        let mut framing = Framing::chunked();
        let mut all = 0;
        for piece in body.as_bytes().chunks(size) {
            let taken = framing.take(piece)?;
            all += taken;
            if taken < piece.len() {
                break;
            }
        }
        Ok((all, framing.is_done()))
    }

    #[test]
    fn a_body_in_chunks_ends_with_its_trailers_and_takes_nothing_of_what_follows() {
        for body in [
            "0\r\n\r\n",
            "3\r\nabc\r\n0\r\n\r\n",
            "00003\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nX-Sum: 1\r\nX-More:\t2\r\n\r\n",
            "3 ;q=\"a b\"\r\nabc\r\n000\r\n\r\n",
        ] {
            for size in [1, 2, 3, 7, 1000] {
                let followed = format!("{body}GET / HTTP/1.1\r\n");
                assert_eq!(taken(&followed, size), Ok((body.len(), true)), "{body:?} by {size}");
            }
        }
    }

    #[test]
    fn what_is_no_chunk_is_refused_however_it_is_cut() {
        for body in [
            "\r\n",
            ";x\r\n",
            " \r\n\r\n",
            " 3\r\nabc",
            "3\r\nabc\r\n\r\n",
            "3 \r\nabc\r\n",
            "3\nabc",
            "3\r\nabcd\r\n",
            "3\r\nabc\n",
            "3;a\nb\r\nabc",
            "3;a\0\r\nabc",
            "-3\r\nabc",
            "+3\r\nabc",
            "0x3\r\nabc",
            "g\r\n",
            "1000000000000000\r\n",
            "0\r\nX: \0\r\n\r\n",
            "0\r\nX: 1\n\r\n",
        ] {
            for size in [1, 2, 1000] {
                assert_eq!(taken(body, size), Err(Malformed), "{body:?} by {size}");
            }
        }
    }

    #[test]
    fn extensions_and_trailers_have_an_end() {
        assert_eq!(taken(&format!("3;{}", "x".repeat(2000)), 100), Err(Malformed));
        assert_eq!(taken(&format!("0\r\n{}", "X: 1\r\n".repeat(3000)), 100), Err(Malformed));
    }

    #[test]
    fn a_length_is_counted_down() {
        let mut framing = Framing::Length(5);
        assert_eq!(framing.take(b"abc"), Ok(3));
        assert!(!framing.is_done());
        assert_eq!(framing.take(b"defg"), Ok(2));
        assert!(framing.is_done());
        assert_eq!(framing.take(b"g"), Ok(0));
    }
}
