//! The `Date` of a response: the upstream's, if it sent one.
//!
//! Caches compute a response's age from it, and signatures cover it; a gateway adds one only if it
//! is missing (RFC 9110, section 6.6.1). Pingora's HTTP/1 writer always replaces it with its own,
//! and cannot be told not to. So the right date is written over Pingora's in the bytes on their way
//! out, which is possible because all dates have the same length.

use std::cell::RefCell;
use std::io::IoSlice;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use http::header::DATE;
use httpdate::{fmt_http_date, parse_http_date};
use memchr::memmem;
use pingora_core::Result;
use pingora_http::ResponseHeader;

use crate::proxy::exchange::context::Context;

/// `Sun, 06 Nov 1994 08:49:37 GMT`
const LENGTH: usize = 29;
const FIELD: &[u8] = b"\r\nDate: ";
/// How the head of every HTTP/1 response begins.
const VERSION: &[u8] = b"HTTP/1.1 ";

/// Keeps the date of `head`, which is written next.
pub fn keep(ctx: &Context, head: &ResponseHeader) {
    if let Some(connection) = &ctx.connection {
        connection.guard.keep_date(head.headers.get(DATE).and_then(seconds).unwrap_or(0));
    }
}

/// Leaves `head` exactly one date: the upstream's if it is valid, otherwise the current one. For
/// HTTP/2, where the gateway writes the head itself.
///
/// # Errors
/// Those of Pingora's header functions.
pub fn settle(head: &mut ResponseHeader) -> Result<()> {
    let mut dates = head.headers.get_all(DATE).iter();
    let (first, is_single) = (dates.next(), dates.next().is_none());
    match first {
        Some(date) if is_single && is_in_form(date) => Ok(()),
        first => match first.and_then(seconds) {
            Some(seconds) => head.insert_header(DATE, text(seconds)),
            None => head.insert_header(DATE, current()),
        },
    }
}

thread_local! {
    /// The date of a response that was in form. Most responses of a second have the same one.
    static IN_FORM: RefCell<HeaderValue> = const { RefCell::new(HeaderValue::from_static("")) };
    /// The current date, and the second since 1970 that it is of.
    static CURRENT: RefCell<(u64, HeaderValue)> =
        const { RefCell::new((0, HeaderValue::from_static(""))) };
}

/// Whether `date` is one, in the current format.
fn is_in_form(date: &HeaderValue) -> bool {
    IN_FORM.with_borrow_mut(|known| {
        let is_in_form = known == date || (date.len() == LENGTH && seconds(date).is_some());
        if is_in_form && known != date {
            known.clone_from(date);
        }
        is_in_form
    })
}

/// The current date, formatted once a second.
fn current() -> HeaderValue {
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    CURRENT.with_borrow_mut(|(of, date)| {
        if *of != second
            && let Ok(text) = HeaderValue::try_from(fmt_http_date(now))
        {
            (*of, *date) = (second, text);
        }
        date.clone()
    })
}

/// Seconds since 1970. Also reads the obsolete date formats; the date is then written in the
/// current one.
fn seconds(date: &HeaderValue) -> Option<u32> {
    let date = parse_http_date(date.to_str().ok()?).ok()?;
    u32::try_from(date.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}

fn text(seconds: u32) -> String {
    let date: SystemTime = UNIX_EPOCH + Duration::from_secs(seconds.into());
    fmt_http_date(date)
}

/// A date to be written over the one in a head.
#[derive(Debug, PartialEq, Eq)]
pub struct Overlay {
    date: String,
    /// Its position in the bytes yet to be written; negative once part of it has been.
    at: isize,
}

impl Overlay {
    /// The date `seconds` after 1970, to go over the one in `buf`, if that holds the head of a
    /// final response.
    pub fn of(seconds: u32, buf: &[u8]) -> Option<Overlay> {
        let is_final = || buf.starts_with(VERSION) && buf.get(VERSION.len()) != Some(&b'1');
        if seconds == 0 || !is_final() {
            return None;
        }
        let at = memmem::find(buf, FIELD)? + FIELD.len();
        let date = text(seconds);
        let fits = date.len() == LENGTH && buf[at..].get(LENGTH..LENGTH + 2) == Some(b"\r\n");
        fits.then_some(Overlay { date, at: at as isize })
    }

    /// `buf` with the date written over its own.
    pub fn over<'a>(&'a self, buf: &'a [u8]) -> [IoSlice<'a>; 3] {
        let within = |at: isize| usize::try_from(at).unwrap_or(0).min(buf.len());
        let (from, to) = (within(self.at), within(self.at + LENGTH as isize));
        let begun = usize::try_from(-self.at).unwrap_or(0).min(LENGTH);
        let date = &self.date.as_bytes()[begun..begun + (to - from)];
        [IoSlice::new(&buf[..from]), IoSlice::new(date), IoSlice::new(&buf[to..])]
    }

    /// What remains of the overlay after `bytes` more have been written.
    pub fn after(self, bytes: usize) -> Option<Overlay> {
        let at = self.at - isize::try_from(bytes).ok()?;
        (at + LENGTH as isize > 0).then_some(Overlay { at, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] =
        b"HTTP/1.1 200 OK\r\nVia: a\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nServer: b\r\n\r\n";
    const MEANT: &[u8] =
        b"HTTP/1.1 200 OK\r\nVia: a\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nServer: b\r\n\r\n";
    const SECONDS: u32 = 784_111_777;

    /// The bytes sent if each write takes at most `piece` of them.
    fn written(piece: usize) -> Vec<u8> {
        let mut overlay = Overlay::of(SECONDS, HEAD);
        let (mut left, mut out) = (HEAD, Vec::new());
        while !left.is_empty() {
            let whole = match &overlay {
                Some(overlay) => overlay.over(left).map(|part| part.to_vec()).concat(),
                None => left.to_vec(),
            };
            assert_eq!(whole.len(), left.len());
            let taken = piece.min(left.len());
            out.extend_from_slice(&whole[..taken]);
            left = &left[taken..];
            overlay = overlay.and_then(|overlay| overlay.after(taken));
        }
        out
    }

    #[test]
    fn the_date_is_written_over_however_the_head_is_cut() {
        for piece in 1..=HEAD.len() {
            assert_eq!(written(piece), MEANT, "{piece}");
        }
    }

    #[test]
    fn nothing_but_the_head_of_a_final_response_is_touched() {
        assert_eq!(Overlay::of(0, HEAD), None);
        for other in [&b"HTTP/1.1 103 Early Hints\r\nDate: x\r\n\r\n"[..], b"\r\nDate: y", b"body"]
        {
            assert_eq!(Overlay::of(SECONDS, other), None);
        }
        let odd = b"HTTP/1.1 200 OK\r\nDate: soon\r\n\r\n";
        assert_eq!(Overlay::of(SECONDS, odd), None);
    }

    #[test]
    fn every_format_of_a_date_is_understood() {
        for date in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(seconds(&HeaderValue::from_static(date)), Some(SECONDS), "{date}");
        }
        assert_eq!(text(SECONDS), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(seconds(&HeaderValue::from_static("soon")), None);
        let now = current();
        assert!(is_in_form(&now) && seconds(&now).is_some_and(|now| now > SECONDS));
        assert_eq!(current().len(), LENGTH);
    }

    #[test]
    fn a_date_that_is_in_form_stays_and_another_is_written_anew() {
        let settled = |dates: &[&'static str]| {
            let mut head = ResponseHeader::build(200, None).expect("a head");
            for date in dates {
                head.append_header(DATE, *date).expect("a value");
            }
            settle(&mut head).expect("a date");
            let dates: Vec<HeaderValue> = head.headers.get_all(DATE).iter().cloned().collect();
            <[HeaderValue; 1]>::try_from(dates).expect("one date")[0].clone()
        };
        let good = "Sun, 06 Nov 1994 08:49:37 GMT";
        for dates in [&[good][..], &[good, good], &["Sun Nov  6 08:49:37 1994"], &[good]] {
            assert_eq!(settled(dates), good, "{dates:?}");
        }
        for none in [&[][..], &["soon"], &["Sun, 06 Nov 1994 08:49:37 XYZ"]] {
            let date = settled(none);
            assert!(seconds(&date).is_some_and(|now| now > SECONDS), "{none:?}: {date:?}");
        }
    }
}
