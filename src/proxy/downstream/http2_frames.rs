//! Control frames of an HTTP/2 client, counted against what it asks for and is sent.
//!
//! The h2 library bounds resets, continuations and empty DATA, and answers every PING and every SETTINGS
//! for ever. Here the heads of the client's frames are read as they come. Each HEADERS and each DATA with content
//! pays for ten control frames, and so does each KiB that is sent to the client, because the client acknowledges
//! it by WINDOW_UPDATE. A client that is further in debt than [`MOST`] frames has [`SPELL`] to be so again: one that
//! only keeps its connection alive takes longer than that.

use std::time::Duration;

use crate::time::Moment;

/// Control frames that nothing pays for, within [`SPELL`].
pub const MOST: i32 = 1000;
/// Debts older than this are forgiven.
const SPELL: Duration = Duration::from_secs(10);
/// Control frames for each frame of a message, or KiB that is sent.
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

/// What is known of a client's frames.
#[derive(Debug)]
pub struct Frames {
    /// The head under way: length (3 bytes), type, flags, stream.
    head: [u8; 9],
    /// Bytes of it that have come.
    come: usize,
    /// Bytes to pass over: the preface, then payloads.
    skip: u32,
    /// Control frames that are not paid for; negative: what is saved up.
    debt: i32,
    /// When the debt began.
    since: Moment,
    /// Bytes sent that have not paid for anything yet.
    sent: usize,
}

impl Frames {
    /// Of a connection that begins at `now` with the preface.
    pub fn new(now: Moment) -> Self {
        Frames { head: [0; 9], come: 0, skip: PREFACE, debt: 0, since: now, sent: 0 }
    }

    /// `bytes` come next from the client. `now` is called only if it is in debt.
    ///
    /// # Errors
    /// [`Flood`], at the first frame that is too many.
    pub fn receive(&mut self, mut bytes: &[u8], now: impl Fn() -> Moment) -> Result<(), Flood> {
        while !bytes.is_empty() {
            let skipped = bytes.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            self.skip -= u32::try_from(skipped).unwrap_or(self.skip);
            bytes = &bytes[skipped..];
            let taken = bytes.len().min(self.head.len() - self.come);
            self.head[self.come..self.come + taken].copy_from_slice(&bytes[..taken]);
            self.come += taken;
            bytes = &bytes[taken..];
            if self.come == self.head.len() {
                self.come = 0;
                self.frame(&now)?;
            }
        }
        Ok(())
    }

    /// So many bytes have been sent to the client.
    pub fn send(&mut self, bytes: usize) {
        self.sent += bytes;
        let kib = self.sent / 1024;
        self.sent %= 1024;
        self.pay(i32::try_from(kib).unwrap_or(i32::MAX));
    }

    fn frame(&mut self, now: &impl Fn() -> Moment) -> Result<(), Flood> {
        let [a, b, c, kind, flags, ..] = self.head;
        self.skip = u32::from_be_bytes([0, a, b, c]);
        match kind {
            HEADERS => self.pay(1),
            DATA if self.skip > 0 || flags & END_STREAM != 0 => self.pay(1),
            _ => self.debt += 1,
        }
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

    #[test]
    fn what_is_sent_may_be_acknowledged_in_small_pieces_at_any_time() {
        let now = Clock::now();
        let mut frames = begun(now);
        // 64 MiB, and only then a WINDOW_UPDATE for the stream and the connection for each 256 bytes.
        for _ in 0..4096 {
            frames.send(16 * 1024 + 9);
        }
        let both = frame(WINDOW_UPDATE, 0, 4).repeat(2);
        for _ in 0..64 * 4096 {
            assert_eq!(frames.receive(&both, || now), Ok(()));
        }
        let mut frames = begun(now);
        for _ in 0..1_000_000 {
            frames.send(256);
            assert_eq!(frames.receive(&both, || now), Ok(()));
        }
        assert!(taken(&mut frames, &both, now) < 800_000, "what is saved up has an end");
    }

    #[test]
    fn what_the_gateway_answers_does_not_pay_for_the_flood() {
        let now = Clock::now();
        let (mut frames, ping) = (begun(now), frame(PING, 0, 8));
        let answered = (0..100_000).take_while(|_| {
            frames.send(17);
            frames.receive(&ping, || now).is_ok()
        });
        assert!(answered.count() < 1300);
    }
}
