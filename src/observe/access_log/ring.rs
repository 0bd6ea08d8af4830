//! The latest requests that failed or were slow, in bounded memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// The most requests, and the most bytes of their lines.
const REQUESTS: usize = 512;
const BYTES: usize = 1024 * 1024;

/// The lines about the latest requests. Locked only by requests that failed or were slow.
#[derive(Default)]
pub(super) struct Ring(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    lines: VecDeque<(Box<str>, Arc<[u8]>)>,
    bytes: usize,
}

impl Ring {
    pub(super) fn push(&self, id: &str, line: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += id.len() + line.len();
        kept.lines.push_back((id.into(), line.into()));
        while kept.lines.len() > REQUESTS || kept.bytes > BYTES {
            let Some((id, line)) = kept.lines.pop_front() else { return };
            kept.bytes -= id.len() + line.len();
        }
    }

    /// The latest first.
    pub(super) fn latest(&self) -> Vec<Arc<[u8]>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.lines.iter().rev().map(|(_, line)| Arc::clone(line)).collect()
    }

    /// The latest one with this id.
    pub(super) fn find(&self, id: &str) -> Option<Arc<[u8]>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.lines.iter().rev().find(|(own, _)| **own == *id);
        found.map(|(_, line)| Arc::clone(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_give_way_to_the_latest() {
        let ring = Ring::default();
        for n in 0..REQUESTS + 10 {
            ring.push(&n.to_string(), b"line");
        }
        assert_eq!(ring.latest().len(), REQUESTS);
        assert!(ring.find("9").is_none() && ring.find("10").is_some());
    }

    #[test]
    fn long_lines_are_fewer() {
        let ring = Ring::default();
        let line = vec![b'x'; BYTES / 4];
        for n in 0..10 {
            ring.push(&n.to_string(), &line);
        }
        assert_eq!(ring.latest().len(), 3);
        assert!(ring.find("9").is_some());
    }
}
