//! Which HTTP a client speaks on a port without TLS, from its first bytes.
//!
//! HTTP/2 "with prior knowledge" begins with a preface that is not a valid HTTP/1 request (RFC
//! 9113, section 3.4). A client speaks HTTP/1 if any byte differs from the preface. This is decided
//! at the first such byte, so a request shorter than the preface need not wait for more. The guard
//! bounds the time.

use std::io;

use tokio::io::AsyncReadExt;

use crate::proxy::downstream::http1::GuardedIo;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of the first read; most heads arrive whole in it.
const FIRST_READ: usize = 1024;

/// What the connection is read as, to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2 (RFC 9113).
    Http2,
}

/// Reads the first bytes of `io` and puts them back, also where it fails.
///
/// # Errors
/// The connection ended, or its deadline passed, before the protocol was clear.
pub async fn sniff(io: &mut GuardedIo) -> io::Result<Protocol> {
    let mut seen = Vec::with_capacity(FIRST_READ);
    loop {
        let read = io.read_buf(&mut seen).await;
        if !matches!(read, Ok(1..)) {
            io.unread(seen);
            return Err(read.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()));
        }
        let compared = seen.len().min(PREFACE.len());
        let alike = seen[..compared] == PREFACE[..compared];
        if !alike || compared == PREFACE.len() {
            io.unread(seen);
            return Ok(if alike { Protocol::Http2 } else { Protocol::Http1 });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::io::{AsyncWriteExt, duplex};

    use super::super::guard::Guard;
    use super::*;
    use crate::time::Clock;

    async fn sniffed(pieces: &[&[u8]]) -> (io::Result<Protocol>, Vec<u8>) {
        let (mut client, server) = duplex(4096);
        let guard = Guard::new(Duration::ZERO, Duration::from_millis(50), Clock::now());
        let mut io = GuardedIo::new(Box::new(server), Arc::new(guard));
        for piece in pieces {
            client.write_all(piece).await.expect("room");
            tokio::task::yield_now().await;
        }
        let protocol = sniff(&mut io).await;
        drop(client);
        let mut all = Vec::new();
        // The error is the guard's, whose deadline has passed.
        let _ = io.read_to_end(&mut all).await;
        (protocol, all)
    }

    #[tokio::test]
    async fn the_preface_is_http_2_in_however_many_pieces() {
        let pieces: Vec<&[u8]> = PREFACE.chunks(5).chain([&b"\0\0\0"[..]]).collect();
        let (protocol, all) = sniffed(&pieces).await;
        assert_eq!(protocol.expect("a protocol"), Protocol::Http2);
        assert_eq!(all, [PREFACE, b"\0\0\0"].concat());
    }

    #[tokio::test]
    async fn a_request_shorter_than_the_preface_is_http_1_at_once() {
        for request in ["GET / HTTP/1.0\r\n\r\n", "PRI / HTTP/1.1\r\n", "P O"] {
            let (protocol, all) = sniffed(&[request.as_bytes()]).await;
            assert_eq!(protocol.expect("a protocol"), Protocol::Http1, "{request:?}");
            assert_eq!(all, request.as_bytes());
        }
    }

    #[tokio::test]
    async fn half_a_preface_is_waited_for_as_long_as_for_a_head() {
        let (protocol, _) = sniffed(&[b"PRI * HT"]).await;
        assert_eq!(protocol.expect_err("too late").kind(), io::ErrorKind::TimedOut);
    }
}
