//! Control frames of an HTTP/2 client, counted against what it asks for and is sent.
//!
//! The h2 library bounds resets, continuations and empty DATA, and answers every PING and every SETTINGS
//! for ever. Here the heads of frames are read as they pass, in both directions. Each HEADERS and each DATA with
//! content pays for ten control frames. So does each KiB of DATA that is sent to the client, which may acknowledge
//! it in pieces, by WINDOW_UPDATE. Clients of gRPC in Go answer each message, however small, by a WINDOW_UPDATE and
//! a PING. The gateway's own control frames, such as acknowledgements of a PING, pay for nothing.
//!
//! A client that is further in debt than [`MOST`] frames has `SPELL` to be so again: one that only keeps its
//! connection alive takes longer than that.
//!
//! The library also resets each stream whose head is not one of HTTP, such as one with a `"` in its path, and tells
//! the gateway nothing of it. Some clients, Traefik among them, take a reset for a fault of the connection and try
//! again for as long as they can. So a response with the status 400 goes out before such a reset (RFC 9113, section
//! 8.1.1).

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::time::Moment;

/// Control frames that nothing pays for, within `SPELL`.
pub const MOST: i32 = 1000;
/// Debts older than this are forgiven.
const SPELL: Duration = Duration::from_secs(10);
/// Control frames for each frame of a message, and for each KiB of one that is sent.
const PAID: i32 = 10;
/// The most that can be saved up: a window of 64 MiB may be acknowledged at once.
const SAVED: i32 = -64 * 1024 * PAID;

const PREFACE: u32 = 24;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;
const RST_STREAM: u8 = 3;
const PROTOCOL_ERROR: [u8; 4] = [0, 0, 0, 1];
/// A head of a response that is whole: END_STREAM and END_HEADERS, and `:status: 400` by its index of the static
/// table (RFC 7541), which changes no state of the compression. Its stream's number is left out.
const BAD_REQUEST: [u8; 10] = [0, 0, 1, HEADERS, 5, 0, 0, 0, 0, 0x8c];

/// More control frames than an honest client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flood;

/// What is known of the frames of a connection.
#[derive(Debug)]
pub struct Frames {
    received: Heads,
    sent: Heads,
    /// Control frames that are not paid for; negative: what is saved up.
    debt: i32,
    /// When the debt began.
    since: Moment,
    /// Bytes that were looked at and not sent yet.
    ahead: usize,
    /// The reset that comes next has its response already.
    answered: bool,
    /// The stream whose head of a response was sent last: the library answers heads that are too large itself.
    headed: u32,
    /// What the connection's loop says and is told.
    streams: Arc<Streams>,
}

/// The streams that a client has opened on its connection.
#[derive(Debug, Default)]
pub struct Streams {
    // Relaxed: the connection runs in one task.
    latest: AtomicU32,
    refused: AtomicU32,
}

/// What may be sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// So many bytes.
    Bytes(usize),
    /// These first.
    Response([u8; 10]),
}

impl Streams {
    /// The library has handed on this stream.
    pub fn accepted(&self, stream: u32) {
        self.latest.store(stream, Ordering::Relaxed);
    }

    /// How many streams were refused by the library since this was last asked.
    pub fn take_refused(&self) -> u32 {
        self.refused.swap(0, Ordering::Relaxed)
    }
}

impl Frames {
    /// Of a connection that begins at `now` with the preface.
    pub fn new(now: Moment) -> Self {
        let (received, sent) = (Heads::after(PREFACE), Heads::after(0));
        let streams = Arc::default();
        Frames {
            received,
            sent,
            debt: 0,
            since: now,
            ahead: 0,
            answered: false,
            headed: 0,
            streams,
        }
    }

    /// Shared with the connection's loop.
    pub fn streams(&self) -> Arc<Streams> {
        self.streams.clone()
    }

    /// `bytes` come next from the client. `now` is called only if it is in debt.
    ///
    /// # Errors
    /// [`Flood`], at the first frame that is too many.
    pub fn receive(&mut self, mut bytes: &[u8], now: impl Fn() -> Moment) -> Result<(), Flood> {
        while let Some(frame) = self.received.next(&mut bytes) {
            match frame.is_of_message() {
                true => self.pay(1),
                false => self.owe(&now)?,
            }
        }
        Ok(())
    }

    /// Looks at `bufs`, which are to be sent to the client: bytes that were not sent when they were last looked at,
    /// and what follows them.
    pub fn look(&mut self, bufs: &[IoSlice<'_>]) -> Next {
        let mut begins = 0;
        for buf in bufs {
            let seen = self.ahead.saturating_sub(begins).min(buf.len());
            let mut rest = &buf[seen..];
            loop {
                // Begins at the head of a frame, if any begins in what is left.
                self.ahead += self.sent.pass(&mut rest);
                if let Some(response) = self.response_before(rest) {
                    return match self.ahead {
                        0 => {
                            self.answered = true;
                            self.streams.refused.fetch_add(1, Ordering::Relaxed);
                            Next::Response(response)
                        }
                        before => Next::Bytes(before),
                    };
                }
                let left = rest.len();
                let frame = self.sent.next(&mut rest);
                self.ahead += left - rest.len();
                let Some(frame) = frame else { break };
                self.answered = false;
                if frame.kind == HEADERS {
                    self.headed = frame.stream;
                }
                if frame.is_of_message() {
                    let kib = frame.length / 1024;
                    self.pay(1 + i32::try_from(kib).unwrap_or(i32::MAX - 1));
                }
            }
            begins += buf.len();
        }
        Next::Bytes(begins)
    }

    /// So many of the bytes that were looked at have been sent.
    pub fn sent(&mut self, bytes: usize) {
        self.ahead = self.ahead.saturating_sub(bytes);
    }

    /// The response that is lacking before `bytes`, if these begin with the reset of a stream that was not handed on.
    fn response_before(&self, bytes: &[u8]) -> Option<[u8; 10]> {
        let [0, 0, 4, RST_STREAM, _, a, b, c, d, code @ ..] = bytes else { return None };
        let stream = u32::from_be_bytes([*a, *b, *c, *d]);
        let is_refused = self.sent.passed == 0
            && !self.answered
            && code.starts_with(&PROTOCOL_ERROR)
            && stream != self.headed
            && stream > self.streams.latest.load(Ordering::Relaxed);
        is_refused.then(|| {
            let mut response = BAD_REQUEST;
            response[5..9].copy_from_slice(&[*a, *b, *c, *d]);
            response
        })
    }

    fn owe(&mut self, now: &impl Fn() -> Moment) -> Result<(), Flood> {
        self.debt += 1;
        if self.debt <= MOST {
            return Ok(());
        }
        let now = now();
        if now.since(self.since) < SPELL {
            return Err(Flood);
        }
        (self.debt, self.since) = (0, now);
        Ok(())
    }

    fn pay(&mut self, times: i32) {
        self.debt = self.debt.saturating_sub(times.saturating_mul(PAID)).max(SAVED);
    }
}

/// Finds the heads of frames in one direction.
#[derive(Debug)]
struct Heads {
    /// The head under way: length (3 bytes), type, flags, stream.
    head: [u8; 9],
    /// Bytes of it that have passed.
    passed: usize,
    /// Bytes to pass over: the preface, then payloads.
    skip: u32,
}

/// What the head of a frame says.
struct Frame {
    length: u32,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Heads {
    /// The first head follows after `skip` bytes.
    fn after(skip: u32) -> Self {
        Heads { head: [0; 9], passed: 0, skip }
    }

    /// Takes what is left of a payload, and returns how many bytes that were.
    fn pass(&mut self, bytes: &mut &[u8]) -> usize {
        let skipped = bytes.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
        self.skip -= u32::try_from(skipped).unwrap_or(self.skip);
        *bytes = &bytes[skipped..];
        skipped
    }

    /// The next frame that begins in `bytes`, which are taken as far as it needs; `None` once they are all taken.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        self.pass(bytes);
        let rest = *bytes;
        let taken = rest.len().min(self.head.len() - self.passed);
        self.head[self.passed..self.passed + taken].copy_from_slice(&rest[..taken]);
        self.passed += taken;
        *bytes = &rest[taken..];
        if self.passed < self.head.len() {
            return None;
        }
        self.passed = 0;
        let [a, b, c, kind, flags, stream @ ..] = self.head;
        self.skip = u32::from_be_bytes([0, a, b, c]);
        Some(Frame { length: self.skip, kind, flags, stream: u32::from_be_bytes(stream) })
    }
}

impl Frame {
    /// Whether it carries a part of a request or of a response.
    fn is_of_message(&self) -> bool {
        match self.kind {
            HEADERS => true,
            DATA => self.length > 0 || self.flags & END_STREAM != 0,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Clock;

    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        frame.extend(std::iter::repeat_n(0xff, length.into()));
        frame
    }

    /// All of these bytes are sent at once.
    fn send(frames: &mut Frames, bytes: &[u8]) {
        assert_eq!(frames.look(&[IoSlice::new(bytes)]), Next::Bytes(bytes.len()));
        frames.sent(bytes.len());
    }

    /// After the preface.
    fn begun(now: Moment) -> Frames {
        let mut frames = Frames::new(now);
        assert_eq!(frames.receive(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", || now), Ok(()));
        frames
    }

    /// How many frames of a kind are taken until there is a flood.
    fn taken(frames: &mut Frames, frame: &[u8], now: Moment) -> usize {
        let all = (0..100_000).take_while(|_| frames.receive(frame, || now).is_ok());
        all.count()
    }

    #[test]
    fn control_frames_that_nothing_pays_for_are_a_flood_however_they_are_cut() {
        let now = Clock::now();
        for kind in [2, 3, 4, PING, WINDOW_UPDATE, 9, 0xaa] {
            assert_eq!(taken(&mut begun(now), &frame(kind, 0, 8), now), 1000, "{kind}");
        }
        assert_eq!(taken(&mut begun(now), &frame(DATA, 0, 0), now), 1000, "empty DATA");
        for size in [1, 2, 8, 9, 10, 16, 23] {
            let mut frames = begun(now);
            let all = frame(PING, 0, 8).repeat(1001);
            let mut pieces = all.chunks(size);
            assert!(pieces.any(|piece| frames.receive(piece, || now).is_err()), "by {size}");
            let mut frames = begun(now);
            let mut pieces = all[17..].chunks(size);
            assert!(pieces.all(|piece| frames.receive(piece, || now).is_ok()), "by {size}");
        }
    }

    #[test]
    fn each_frame_of_a_message_pays_for_ten() {
        let now = Clock::now();
        for useful in [frame(HEADERS, 0, 4), frame(DATA, 0, 4), frame(DATA, END_STREAM, 0)] {
            let turn = [useful.clone(), frame(PING, 0, 8).repeat(10)].concat();
            assert_eq!(taken(&mut begun(now), &turn, now), 100_000, "{useful:?}");
            let turn = [useful, frame(PING, 0, 8).repeat(11)].concat();
            assert_eq!(taken(&mut begun(now), &turn, now), 1000);
        }
    }

    #[test]
    fn one_that_only_keeps_its_connection_alive_may_do_so_for_ever() {
        let mut now = Clock::now();
        let (mut frames, ping) = (begun(now), frame(PING, 0, 8));
        for _ in 0..100_000 {
            now = now + Duration::from_millis(11);
            assert_eq!(frames.receive(&ping, || now), Ok(()));
        }
        // Whatever it did before, a flood is one.
        assert!(taken(&mut frames, &ping, now) <= 2000);
    }

    /// A DATA frame of this length.
    fn data(length: u16) -> Vec<u8> {
        let [high, low] = length.to_be_bytes();
        let mut frame = vec![0, high, low, DATA, 0, 0, 0, 0, 1];
        frame.resize(9 + usize::from(length), 0xff);
        frame
    }

    #[test]
    fn what_is_sent_may_be_acknowledged_in_small_pieces_at_any_time() {
        let now = Clock::now();
        let mut frames = begun(now);
        // 64 MiB, and only then a WINDOW_UPDATE for the stream and the connection for each 256 bytes.
        let large = data(16 * 1024);
        for _ in 0..4096 {
            send(&mut frames, &large);
        }
        let both = frame(WINDOW_UPDATE, 0, 4).repeat(2);
        for _ in 0..64 * 4096 {
            assert_eq!(frames.receive(&both, || now), Ok(()));
        }
        assert!(taken(&mut frames, &both, now) < 100_000, "what is saved up has an end");
        let (mut frames, small) = (begun(now), data(256));
        for _ in 0..1_000_000 {
            send(&mut frames, &small);
            assert_eq!(frames.receive(&both, || now), Ok(()));
        }
    }

    #[test]
    fn each_message_that_is_sent_may_be_acknowledged_however_small_it_is_and_however_it_is_cut() {
        let now = Clock::now();
        let (update, ping) = (frame(WINDOW_UPDATE, 0, 4), frame(PING, 0, 8));
        let acknowledged = [update.clone(), update, ping].concat();
        for size in [1, 2, 8, 9, 10, 39, 100] {
            let (mut frames, sent) = (begun(now), data(30).repeat(10_000));
            for piece in sent.chunks(size * 39) {
                for part in piece.chunks(size) {
                    send(&mut frames, part);
                }
                for _ in 0..size {
                    assert_eq!(frames.receive(&acknowledged, || now), Ok(()), "by {size}");
                }
            }
        }
        for head in [frame(HEADERS, 0, 4), frame(DATA, END_STREAM, 0)] {
            let mut frames = begun(now);
            for _ in 0..10_000 {
                send(&mut frames, &head);
                assert_eq!(frames.receive(&acknowledged, || now), Ok(()));
            }
        }
    }

    #[test]
    fn what_the_gateway_answers_does_not_pay_for_the_flood() {
        let now = Clock::now();
        let ping = frame(PING, 0, 8);
        for (kind, length) in [(PING, 8), (4, 0), (3, 4), (WINDOW_UPDATE, 4), (DATA, 0)] {
            let (mut frames, answer) = (begun(now), frame(kind, 0, length));
            let answered = (0..100_000).take_while(|_| {
                send(&mut frames, &answer);
                frames.receive(&ping, || now).is_ok()
            });
            assert_eq!(answered.count(), 1000, "{kind}");
        }
    }

    /// What the client gets of `all`, given `of` bytes at a time, of which it takes `taken`.
    fn received(frames: &mut Frames, all: &[u8], of: usize, taken: usize) -> Vec<u8> {
        let (mut rest, mut received) = (all, Vec::new());
        while !rest.is_empty() {
            let given = &rest[..rest.len().min(of.max(taken))];
            match frames.look(&[IoSlice::new(&[]), IoSlice::new(given)]) {
                Next::Response(response) => received.extend(response),
                Next::Bytes(most) => {
                    let bytes = most.min(taken);
                    assert!(bytes > 0, "it goes on");
                    frames.sent(bytes);
                    received.extend(&rest[..bytes]);
                    rest = &rest[bytes..];
                }
            }
        }
        received
    }

    fn reset(stream: u8, code: u8) -> Vec<u8> {
        vec![0, 0, 4, RST_STREAM, 0, 0, 0, 0, stream, 0, 0, 0, code]
    }

    #[test]
    fn a_stream_that_has_a_response_gets_no_second_one() {
        let now = Clock::now();
        let all = [vec![0, 0, 1, HEADERS, 5, 0, 0, 0, 5, 0x8d], reset(5, 1), reset(7, 1)].concat();
        let mut frames = begun(now);
        let got = received(&mut frames, &all, 1000, 1000);
        assert_eq!(got.len(), all.len() + BAD_REQUEST.len());
        assert_eq!(frames.streams().take_refused(), 1);
    }

    #[test]
    fn a_stream_that_was_not_handed_on_gets_a_response_before_its_reset() {
        let now = Clock::now();
        let before = [data(300), frame(PING, 1, 8)].concat();
        let after = [reset(3, 1), reset(9, 7), data(40)].concat();
        let all = [before.clone(), reset(5, 1), reset(7, 1), after.clone()].concat();
        let (mut fifth, mut seventh) = (BAD_REQUEST, BAD_REQUEST);
        (fifth[8], seventh[8]) = (5, 7);
        let expected = [&before[..], &fifth, &reset(5, 1), &seventh, &reset(7, 1), &after].concat();
        // A reset that is given in two parts is let be; the library does not do so.
        for of in [64, 1000] {
            for taken in [1, 3, 9, 13, 26, 27, 400, 1000] {
                let mut frames = begun(now);
                frames.streams().accepted(3);
                let got = received(&mut frames, &all, of, taken);
                let resets = |bytes: &[u8]| {
                    bytes.windows(4).filter(|bytes| *bytes == [0, 0, 4, RST_STREAM]).count()
                };
                assert_eq!(resets(&got), 4);
                if of == 1000 {
                    assert!(got == expected, "{taken}: {got:?}");
                    assert_eq!(frames.streams().take_refused(), 2);
                    assert_eq!(frames.streams().take_refused(), 0);
                }
            }
        }
    }
}
