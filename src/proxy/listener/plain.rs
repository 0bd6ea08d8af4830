//! Plain HTTP on a port that takes HTTPS: it is answered in words, within bounds of its own.
//!
//! A client that gets an alert of TLS in answer to a request shows its user next to nothing.

use std::io;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::proxy::downstream::http1::GuardedIo;

/// The type of a record in which a handshake begins.
const HANDSHAKE: u8 = 22;
/// Bytes of the first read; most of what clients send first arrives whole in it.
const FIRST_READ: usize = 1024;
/// The most bytes that are read for a request line.
const LONGEST_LINE: usize = 8 * 1024;
/// After the response so much is read, and for so long, until the client closes: if it were closed with
/// bytes unread, the client's system would throw the response away.
const LINGER: (usize, Duration) = (64 * 1024, Duration::from_secs(1));
/// For people.
const WORDS: &str = "this port takes HTTPS, and this was plain HTTP\n";

/// What a client begins with.
#[derive(Debug, PartialEq, Eq)]
enum Beginning {
    /// It cannot be told yet.
    Unclear,
    /// It is left to TLS, whatever it is.
    Tls,
    /// A request in plain HTTP.
    Http,
}

/// Reads what the client sends first, and puts it back if it is not plain HTTP. Otherwise it is answered,
/// and `true` returned: nothing more is to be done.
///
/// # Errors
/// The connection ended, or its deadline passed.
pub(super) async fn answered(io: &mut GuardedIo) -> io::Result<bool> {
    let mut seen = Vec::with_capacity(FIRST_READ);
    loop {
        if io.read_buf(&mut seen).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match beginning(&seen) {
            Beginning::Unclear => {}
            Beginning::Tls => {
                io.unread(seen);
                return Ok(false);
            }
            Beginning::Http => {
                // The client may have left meanwhile, which changes nothing.
                let _ = answer(io, seen.starts_with(b"HEAD ")).await;
                return Ok(true);
            }
        }
    }
}

fn beginning(seen: &[u8]) -> Beginning {
    match seen.first() {
        None => return Beginning::Unclear,
        Some(&HANDSHAKE) => return Beginning::Tls,
        Some(_) => {}
    }
    let method = seen.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
    let is_method = method > 0 && seen.get(method).is_none_or(|byte| *byte == b' ');
    if !is_method {
        return Beginning::Tls;
    }
    match seen.iter().position(|byte| *byte == b'\n') {
        None if seen.len() < LONGEST_LINE => Beginning::Unclear,
        None => Beginning::Tls,
        Some(end) => {
            let line = seen.get(..end).unwrap_or_default();
            let version = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
            match version.starts_with(b"HTTP/") {
                true => Beginning::Http,
                false => Beginning::Tls,
            }
        }
    }
}

async fn answer(io: &mut GuardedIo, is_head: bool) -> io::Result<()> {
    let date = httpdate::fmt_http_date(SystemTime::now());
    let length = WORDS.len();
    let body = if is_head { "" } else { WORDS };
    let response = format!(
        "HTTP/1.1 400 Bad Request\r\nDate: {date}\r\nContent-Type: text/plain\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    io.write_all(response.as_bytes()).await?;
    io.flush().await?;
    AsyncWriteExt::shutdown(io).await?;
    let (most, time) = LINGER;
    let rest = async {
        let mut left = most;
        let mut room = [0; FIRST_READ];
        while left > 0 {
            let read = io.read(&mut room).await?;
            if read == 0 {
                break;
            }
            left = left.saturating_sub(read);
        }
        Ok(())
    };
    tokio::time::timeout(time, rest).await.unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_line_is_plain_http_and_nothing_else_is() {
        for (seen, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], Beginning::Http),
            (b"OPTIONS * HTTP/1.0\n", Beginning::Http),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Beginning::Http),
            (b"GET / HTTP/1.1", Beginning::Unclear),
            (b"GE", Beginning::Unclear),
            (b"", Beginning::Unclear),
            (b"GET /\r\n", Beginning::Tls),
            (b"EHLO mail.example\r\n", Beginning::Tls),
            (b"\x16\x03\x01", Beginning::Tls),
            (b"\x80\x2e\x01", Beginning::Tls),
            (b"GET\x00", Beginning::Tls),
            (b"get / HTTP/1.1\r\n", Beginning::Tls),
        ] {
            assert_eq!(beginning(seen), expected, "{:?}", String::from_utf8_lossy(seen));
        }
        let endless = [b"GET /", &[b'x'; LONGEST_LINE][..]].concat();
        assert_eq!(beginning(&endless), Beginning::Tls);
    }
}
