//! Returns memory that the process no longer uses to the system.
//!
//! Many connections at once are expensive for three reasons, and their cost stays after they close.
//! With huge pages, one small live block keeps two mebibytes. Memory of one thread that another
//! thread frees is reusable only after the owner has allocated a good deal more. And free pages
//! return to the system only when further pages become free, which stops once the connections have
//! closed. All of this holds for mimalloc, the allocator of the binary; the work done here does not
//! harm another allocator.

use std::hint::black_box;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::thread::disable_transparent_huge_pages;
use tokio::runtime::Handle;

/// Time between two checks of the load.
const PERIOD: Duration = Duration::from_millis(500);
/// Bytes of a block that is large enough for pages of its own. When it is freed, the allocator
/// returns all pages that have been free for a second to the system. The block is never written to.
const PAGES: usize = 8 << 20;
/// Bytes of a block whose allocations mimalloc counts per thread. After every `MANY` of them the
/// thread looks for free pages of its own.
const COUNTED: usize = 2 << 10;
const MANY: usize = 11_000;
/// How long a worker waits for the others, so that none of them runs another's task.
const PATIENCE: Duration = Duration::from_millis(3);

/// Client connections, and the requests on them.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// At this moment.
    pub now: usize,
    /// The highest since the last check: a burst may come and go between two.
    pub highest: usize,
}

/// Sets whether the kernel may back memory with huge pages from now on. Some kinds of containers
/// forbid the call.
pub(super) fn allow_huge_pages(allowed: bool) {
    if let Err(error) = disable_transparent_huge_pages(!allowed) {
        log::warn!("server.huge_pages: the kernel does not obey: {error}");
    }
}

/// Returns free memory to the system after `load` has fallen, until the process ends. Must be
/// called within the runtime whose threads carry the load.
///
/// # Errors
/// No thread can be started.
pub fn keep_giving_back(load: impl Fn() -> Load + Send + 'static) -> std::io::Result<()> {
    let (runtime, mut ebb) = (Handle::current(), Ebb::default());
    let workers = runtime.metrics().num_workers();
    let giving_back = move || {
        loop {
            std::thread::sleep(PERIOD);
            if ebb.shows(load()) {
                let meeting = Arc::new(Meeting::until(Instant::now() + PATIENCE));
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
    // On a thread of its own: the kernel takes a millisecond to take back ten mebibytes.
    std::thread::Builder::new().name("memory".to_owned()).spawn(giving_back).map(drop)
}

/// Holds all workers of a runtime at one point, because nothing else ensures that each of them runs
/// one of the tasks.
#[derive(Debug)]
struct Meeting {
    present: Mutex<usize>,
    changed: Condvar,
    /// When the wait is over for all of them: a worker that runs several tasks waits once.
    until: Instant,
}

impl Meeting {
    fn until(until: Instant) -> Self {
        Meeting { present: Mutex::default(), changed: Condvar::new(), until }
    }

    /// Waits until `all` workers have arrived, or the time is over.
    fn attend(&self, all: usize) {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        *present += 1;
        self.changed.notify_all();
        let some_are_missing = |present: &mut usize| *present < all;
        // The work goes on, whether or not all have arrived.
        let left = self.until.saturating_duration_since(Instant::now());
        let _ = self.changed.wait_timeout_while(present, left, some_are_missing);
    }
}

/// Makes this thread find its free pages; takes a third of a millisecond.
fn tidy() {
    for _ in 0..MANY {
        drop(black_box(Vec::<u8>::with_capacity(COUNTED)));
    }
}

/// Decides when to tidy up: a few times after the load has fallen.
#[derive(Debug, Default)]
struct Ebb {
    /// Highest load since it last fell.
    highest: usize,
    rounds: u8,
}

impl Ebb {
    /// Rounds after a fall. The first ones spare pages that were in use shortly before, and a busy
    /// thread may miss some.
    const ROUNDS: u8 = 12;
    /// The connections that take about a mebibyte.
    const LEAST: usize = 64;

    fn shows(&mut self, load: Load) -> bool {
        self.highest = self.highest.max(load.highest);
        let fallen = self.highest.saturating_sub(load.now);
        // Relative as well, because a load of thousands always varies.
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
