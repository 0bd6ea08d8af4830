//! One answer of a scripted upstream: what it says, and how it misbehaves.

use std::time::Duration;

use super::coding::compress;

/// Built from a status (`503.into()`) or by name; adjusted by chaining.
#[derive(Clone, Debug)]
pub struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) delay: Duration,
    pub(super) held: bool,
    pub(super) manner: Manner,
}

/// How the answer is given.
#[derive(Clone, Debug)]
pub(super) enum Manner {
    /// Whole, after the request's body was read.
    Proper,
    /// Whole, before the request's body is read.
    Early,
    /// Never.
    Hang,
    /// The connection is reset instead.
    Reset,
    /// The connection is closed instead.
    Close,
    /// The bytes of `body` as they are, then the connection is closed.
    Verbatim,
    /// The connection is closed after the body, which is shorter than announced.
    Truncate { announced: usize },
    /// The head byte by byte.
    DripHead(Duration),
    /// The body byte by byte.
    DripBody(Duration),
    /// The head and the first byte of the body; the rest when the upstream is released.
    HoldBody,
    /// The same in chunks.
    HoldChunks,
    /// The body in chunks of this size.
    Chunked(usize),
    /// This many bytes, made on the way.
    Stream(u64),
}

impl From<u16> for Answer {
    fn from(status: u16) -> Self {
        let body = if status == 200 { "ok".to_owned() } else { format!("upstream {status}") };
        Answer {
            status,
            headers: Vec::new(),
            body: body.into_bytes(),
            delay: Duration::ZERO,
            held: false,
            manner: Manner::Proper,
        }
    }
}

impl Answer {
    pub fn ok() -> Self {
        200.into()
    }

    pub fn json(status: u16, body: &str) -> Self {
        Answer::from(status).header("Content-Type", "application/json").body(body)
    }

    pub fn hang() -> Self {
        Answer::ok().manner(Manner::Hang)
    }

    pub fn reset() -> Self {
        Answer::ok().manner(Manner::Reset)
    }

    pub fn close() -> Self {
        Answer::ok().manner(Manner::Close)
    }

    /// Exactly these bytes, then the end of the connection.
    pub fn verbatim(bytes: &str) -> Self {
        Answer::ok().body(bytes).manner(Manner::Verbatim)
    }

    /// Announces `announced` bytes, sends `body`, closes.
    pub fn truncated(body: &str, announced: usize) -> Self {
        Answer::ok().body(body).manner(Manner::Truncate { announced })
    }

    pub fn drip_head(every: Duration) -> Self {
        Answer::ok().manner(Manner::DripHead(every))
    }

    pub fn drip_body(every: Duration) -> Self {
        Answer::ok().body(&"drop".repeat(100)).manner(Manner::DripBody(every))
    }

    /// The body's end waits for [`super::Upstream::release`].
    pub fn hold_body() -> Self {
        Answer::ok().manner(Manner::HoldChunks)
    }

    /// The same, with the length announced.
    pub fn hold_body_of_known_length() -> Self {
        Answer::ok().manner(Manner::HoldBody)
    }

    pub fn chunked(body: &str, size: usize) -> Self {
        Answer::ok().body(body).manner(Manner::Chunked(size))
    }

    pub fn stream(bytes: u64) -> Self {
        Answer::ok().manner(Manner::Stream(bytes))
    }

    /// Answers as soon as the request's head is there.
    pub fn early(status: u16) -> Self {
        Answer::from(status).manner(Manner::Early)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Compressed by `coding`, and says so.
    pub fn compressed(mut self, coding: &str) -> Self {
        self.body = compress(coding, &self.body);
        self.header("Content-Encoding", coding)
    }

    pub fn body(mut self, body: &str) -> Self {
        self.body = body.as_bytes().to_vec();
        self
    }

    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Nothing is answered before [`super::Upstream::release`].
    pub fn held(mut self) -> Self {
        self.held = true;
        self
    }

    /// The head as bytes, framed for `length` bytes of body or as the manner says.
    pub(super) fn head(&self, length: usize) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        match self.manner {
            Manner::Chunked(_) | Manner::HoldChunks => head += "Transfer-Encoding: chunked\r\n",
            Manner::Stream(bytes) => head += &format!("Content-Length: {bytes}\r\n"),
            Manner::Truncate { announced } => head += &format!("Content-Length: {announced}\r\n"),
            _ if self.status == 204 || self.status == 304 => {}
            _ => head += &format!("Content-Length: {length}\r\n"),
        }
        head += "\r\n";
        head.into_bytes()
    }

    fn manner(mut self, manner: Manner) -> Self {
        self.manner = manner;
        self
    }
}
