//! The latest requests that failed or were slow, in bounded memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use memchr::memmem;

use super::line::REQUEST_ID;
use crate::observe::json::member;

/// The most requests, and the most bytes of their lines.
const REQUESTS: usize = 512;
const BYTES: usize = 1024 * 1024;

/// The lines about the latest requests. Locked only by requests that failed or were slow.
#[derive(Default)]
pub(super) struct Ring(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    lines: VecDeque<Arc<[u8]>>,
    bytes: usize,
}

impl Ring {
    /// `line` is a JSON object, which the output may have too.
    pub(super) fn push(&self, line: Arc<[u8]>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += line.len();
        kept.lines.push_back(line);
        while kept.lines.len() > REQUESTS || kept.bytes > BYTES {
            let Some(line) = kept.lines.pop_front() else { return };
            kept.bytes -= line.len();
        }
    }

    /// The latest first.
    pub(super) fn latest(&self) -> Vec<Arc<[u8]>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.lines.iter().rev().cloned().collect()
    }

    /// The latest one with this id. Its member cannot stand in another's text, where quotes are
    /// escaped.
    pub(super) fn find(&self, id: &str) -> Option<Arc<[u8]>> {
        let member = member(REQUEST_ID, id);
        let member = memmem::Finder::new(&member);
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.lines.iter().rev().find(|line| member.find(line).is_some()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::json::{Object, TEXT};

    fn line(id: &str, more: &str) -> Arc<[u8]> {
        let mut line = Object::begin(Vec::new());
        line.text(REQUEST_ID, id, TEXT);
        line.text("more", more, usize::MAX);
        line.end().into()
    }

    #[test]
    fn the_oldest_give_way_to_the_latest() {
        let ring = Ring::default();
        for n in 0..REQUESTS + 10 {
            ring.push(line(&n.to_string(), ""));
        }
        assert_eq!(ring.latest().len(), REQUESTS);
        assert!(ring.find("9").is_none() && ring.find("10").is_some());
    }

    #[test]
    fn long_lines_are_fewer() {
        let ring = Ring::default();
        let long = "x".repeat(BYTES / 4);
        for n in 0..10 {
            ring.push(line(&n.to_string(), &long));
        }
        assert_eq!(ring.latest().len(), 3);
        assert!(ring.find("9").is_some());
    }

    #[test]
    fn a_line_is_found_by_the_whole_id_and_not_by_what_another_says() {
        let ring = Ring::default();
        ring.push(line("a\"b", ""));
        ring.push(line("other", "\"portcullis.request_id\":\"victim\""));
        assert!(ring.find("a\"b").is_some(), "its quote is escaped in the line");
        for id in ["victim", "a", "othe", "ther", ""] {
            assert!(ring.find(id).is_none(), "{id}");
        }
    }
}
