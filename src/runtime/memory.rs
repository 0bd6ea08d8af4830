//! Memory that the process holds and has no use for.
//!
//! Three things make a crowd of connections dear, and leave what it cost behind. With huge pages one
//! small block that lives keeps two mebibytes. What one thread has freed of another's stays with that
//! one until it allocates a good deal. And pages that are free go back to the system when further ones
//! become free: when the crowd has left, none do. All of it is so with mimalloc, the allocator of the
//! binary; another one is not harmed by what is done here.

use std::hint::black_box;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::thread::disable_transparent_huge_pages;
use tokio::runtime::Handle;

/// From one look at the load to the next.
const PERIOD: Duration = Duration::from_millis(500);
/// Large enough for pages of its own: when it is freed, all pages that have been free for a second go
/// back to the system. It is not written to.
const PAGES: usize = 8 << 20;
/// Blocks of this size are counted by the thread that allocates them. With every `MANY` it looks for
/// pages of its own that are free.
const COUNTED: usize = 2 << 10;
const MANY: usize = 11_000;
/// How long a worker waits for the others, so that none of them takes another's turn.
const PATIENCE: Duration = Duration::from_millis(3);

/// Client connections, and requests on them.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub now: usize,
    /// Since the last look: a crowd may come and leave between two.
    pub highest: usize,
}

/// Whether the kernel may back memory with huge pages from now on. Containers of some kinds forbid to
/// say so.
pub(super) fn allow_huge_pages(allowed: bool) {
    if let Err(error) = disable_transparent_huge_pages(!allowed) {
        log::warn!("server.huge_pages: the kernel does not obey: {error}");
    }
}

/// Give back what becomes free when `load` falls, until the process ends. Must be called in the runtime
/// whose threads carry the load.
///
/// # Errors
/// There is no thread to be had.
pub fn keep_giving_back(load: impl Fn() -> Load + Send + 'static) -> std::io::Result<()> {
    let (runtime, mut ebb) = (Handle::current(), Ebb::default());
    let workers = runtime.metrics().num_workers();
    let giving_back = move || {
        loop {
            std::thread::sleep(PERIOD);
            if ebb.shows(load()) {
                let meeting = Arc::new(Meeting::default());
                for _ in 0..workers {
                    let meeting = meeting.clone();
                    runtime.spawn(async move {
                        meeting.attend(workers);
                        tidy();
                    });
                }
            }
            drop(black_box(Vec::<u8>::with_capacity(PAGES)));
        }
    };
    // Its own thread: the system takes a millisecond to take ten mebibytes back.
    std::thread::Builder::new().name("memory".to_owned()).spawn(giving_back).map(drop)
}

/// Where all workers of a runtime are at the same time: nothing else makes sure that one task runs on
/// each of them.
#[derive(Debug, Default)]
struct Meeting {
    present: Mutex<usize>,
    changed: Condvar,
}

impl Meeting {
    /// Wait until `all` are here, or for as long as there is patience.
    fn attend(&self, all: usize) {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        *present += 1;
        self.changed.notify_all();
        let some_are_missing = |present: &mut usize| *present < all;
        // Come or not, the work goes on.
        let _ = self.changed.wait_timeout_while(present, PATIENCE, some_are_missing);
    }
}

/// Let this thread find its free pages; a third of a millisecond.
fn tidy() {
    for _ in 0..MANY {
        drop(black_box(Vec::<u8>::with_capacity(COUNTED)));
    }
}

/// When to tidy up: a few times after the load has fallen.
#[derive(Debug, Default)]
struct Ebb {
    /// Highest load since it last fell.
    highest: usize,
    rounds: u8,
}

impl Ebb {
    /// Rounds after a fall. Pages that were in use shortly before are spared by the first ones, and a
    /// thread that is busy may be late for some.
    const ROUNDS: u8 = 12;
    /// About a mebibyte's worth of connections.
    const LEAST: usize = 64;

    fn shows(&mut self, load: Load) -> bool {
        self.highest = self.highest.max(load.highest);
        let fallen = self.highest.saturating_sub(load.now);
        // A part of it, too: a load of thousands is never still.
        if fallen >= Ebb::LEAST && fallen >= self.highest / 4 {
            (self.highest, self.rounds) = (load.now, Ebb::ROUNDS);
        }
        let shows = self.rounds > 0;
        self.rounds = self.rounds.saturating_sub(1);
        shows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(ebb: &mut Ebb, loads: &[usize]) -> usize {
        let load = |&now: &usize| Load { now, highest: now };
        loads.iter().map(load).filter(|load| ebb.shows(*load)).count()
    }

    #[test]
    fn a_crowd_that_came_and_left_between_two_looks_is_tidied_up_after() {
        let mut ebb = Ebb::default();
        assert_eq!(rounds(&mut ebb, &[0, 0]), 0);
        assert!(ebb.shows(Load { now: 3, highest: 1000 }));
        assert_eq!(rounds(&mut ebb, &[3; 11]), 11);
    }

    #[test]
    fn a_crowd_that_has_left_is_tidied_up_after_a_few_times() {
        let mut ebb = Ebb::default();
        assert_eq!(rounds(&mut ebb, &[0, 10, 5000, 5000]), 0);
        assert_eq!(rounds(&mut ebb, &[0; 20]), usize::from(Ebb::ROUNDS));
    }

    #[test]
    fn one_that_leaves_slowly_is_tidied_up_after_until_it_has_left() {
        let mut ebb = Ebb::default();
        assert_eq!(rounds(&mut ebb, &[1000, 900, 800, 740]), 1);
        assert_eq!(rounds(&mut ebb, &[500, 400, 300, 200, 100, 50]), 6);
        assert_eq!(rounds(&mut ebb, &[50; 20]), usize::from(Ebb::ROUNDS) - 2);
    }

    #[test]
    fn a_load_that_is_only_not_still_costs_nothing() {
        let mut ebb = Ebb::default();
        assert_eq!(rounds(&mut ebb, &[5000, 5400, 4600, 5300, 4900]), 0);
        assert_eq!(rounds(&mut ebb, &[5000, 5000, 5060, 5000]), 0);
        assert_eq!(rounds(&mut Ebb::default(), &[0, 40, 0, 63, 0]), 0);
    }
}
