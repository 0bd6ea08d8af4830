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
}

impl Frames {
    /// Of a connection that begins at `now` with the preface.
    pub fn new(now: Moment) -> Self {
        let (received, sent) = (Heads::after(PREFACE), Heads::after(0));
        Frames { received, sent, debt: 0, since: now }
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

    /// `bytes` have been sent to the client.
    pub fn send(&mut self, mut bytes: &[u8]) {
        while let Some(frame) = self.sent.next(&mut bytes) {
            if frame.is_of_message() {
                let kib = frame.length / 1024;
                self.pay(1 + i32::try_from(kib).unwrap_or(i32::MAX - 1));
            }
        }
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
}

impl Heads {
    /// The first head follows after `skip` bytes.
    fn after(skip: u32) -> Self {
        Heads { head: [0; 9], passed: 0, skip }
    }

    /// The next frame that begins in `bytes`, which are taken as far as it needs; `None` once they are all taken.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        let skipped = bytes.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
        self.skip -= u32::try_from(skipped).unwrap_or(self.skip);
        let rest = &bytes[skipped..];
        let taken = rest.len().min(self.head.len() - self.passed);
        self.head[self.passed..self.passed + taken].copy_from_slice(&rest[..taken]);
        self.passed += taken;
        *bytes = &rest[taken..];
        if self.passed < self.head.len() {
            return None;
        }
        self.passed = 0;
        let [a, b, c, kind, flags, ..] = self.head;
        self.skip = u32::from_be_bytes([0, a, b, c]);
        Some(Frame { length: self.skip, kind, flags })
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
            frames.send(&large);
        }
        let both = frame(WINDOW_UPDATE, 0, 4).repeat(2);
        for _ in 0..64 * 4096 {
            assert_eq!(frames.receive(&both, || now), Ok(()));
        }
        assert!(taken(&mut frames, &both, now) < 100_000, "what is saved up has an end");
        let (mut frames, small) = (begun(now), data(256));
        for _ in 0..1_000_000 {
            frames.send(&small);
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
                    frames.send(part);
                }
                for _ in 0..size {
                    assert_eq!(frames.receive(&acknowledged, || now), Ok(()), "by {size}");
                }
            }
        }
        for head in [frame(HEADERS, 0, 4), frame(DATA, END_STREAM, 0)] {
            let mut frames = begun(now);
            for _ in 0..10_000 {
                frames.send(&head);
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
                frames.send(&answer);
                frames.receive(&ping, || now).is_ok()
            });
            assert_eq!(answered.count(), 1000, "{kind}");
        }
    }
}
