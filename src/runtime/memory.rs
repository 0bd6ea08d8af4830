//! Memory that the process holds and has no use for.
//!
//! Three things make a crowd of connections dear, and leave what it cost behind. With huge pages one
//! small block that lives keeps two mebibytes. What one thread has freed of another's stays with that
//! one until it allocates a good deal. And pages that are free go back to the system when further ones
//! become free: when the crowd has left, none do. All of it is so with mimalloc, the allocator of the
//! binary; another one is not harmed by what is done here.

use std::hint::black_box;
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
pub fn keep_giving_back(load: impl Fn() -> usize + Send + 'static) -> std::io::Result<()> {
    let (runtime, mut ebb) = (Handle::current(), Ebb::default());
    let workers = runtime.metrics().num_workers();
    let giving_back = move || {
        loop {
            std::thread::sleep(PERIOD);
            if ebb.shows(load()) {
                for _ in 0..workers {
                    runtime.spawn(async { tidy() });
                }
            }
            drop(black_box(Vec::<u8>::with_capacity(PAGES)));
        }
    };
    // Its own thread: the system takes a millisecond to take ten mebibytes back.
    std::thread::Builder::new().name("memory".to_owned()).spawn(giving_back).map(drop)
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
    /// thread that is busy may have another one take its turn.
    const ROUNDS: u8 = 52;
    /// With so many left, the first six seconds are over: only each seventh round tidies up from then on.
    const LATE: u8 = 40;
    /// About a mebibyte's worth of connections.
    const LEAST: usize = 64;

    fn shows(&mut self, load: usize) -> bool {
        self.highest = self.highest.max(load);
        let fallen = self.highest - load;
        // A part of it, too: a load of thousands is never still.
        if fallen >= Ebb::LEAST && fallen >= self.highest / 4 {
            (self.highest, self.rounds) = (load, Ebb::ROUNDS);
        }
        let shows = self.rounds > Ebb::LATE || (self.rounds > 0 && self.rounds.is_multiple_of(7));
        self.rounds = self.rounds.saturating_sub(1);
        shows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(ebb: &mut Ebb, loads: &[usize]) -> usize {
        loads.iter().filter(|load| ebb.shows(**load)).count()
    }

    #[test]
    fn a_crowd_that_has_left_is_tidied_up_after_a_few_times() {
        let mut ebb = Ebb::default();
        assert_eq!(rounds(&mut ebb, &[0, 10, 5000, 5000]), 0);
        assert_eq!(rounds(&mut ebb, &[0; 12]), 12);
        assert_eq!(rounds(&mut ebb, &[0; 60]), 5);
    }

    #[test]
    fn one_that_leaves_slowly_is_tidied_up_after_until_it_has_left() {
        let mut ebb = Ebb::default();
        assert_eq!(rounds(&mut ebb, &[1000, 900, 800, 740]), 1);
        assert_eq!(rounds(&mut ebb, &[500, 400, 300, 200, 100, 50]), 6);
        assert_eq!(rounds(&mut ebb, &[50; 60]), 10 + 5);
    }

    #[test]
    fn a_load_that_is_only_not_still_costs_nothing() {
        let mut ebb = Ebb::default();
        assert_eq!(rounds(&mut ebb, &[5000, 5400, 4600, 5300, 4900]), 0);
        assert_eq!(rounds(&mut ebb, &[5000, 5000, 5060, 5000]), 0);
        assert_eq!(rounds(&mut Ebb::default(), &[0, 40, 0, 63, 0]), 0);
    }
}
