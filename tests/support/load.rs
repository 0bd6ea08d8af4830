//! Clients that call one after the other until they are told to stop, and remember what they heard:
//! their side of the ledger.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::client::{Call, Client, Ending};
use super::wait::pass;

/// A request that was answered, to the last byte.
#[derive(Clone, Debug)]
pub struct Answered {
    pub id: String,
    pub status: u16,
    pub took: Duration,
}

/// Clients at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    broken: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<Answered>>>,
}

impl Load {
    /// `clients` of them, each on a connection of its own; their request ids begin with `name`. One
    /// whose connection breaks has ended.
    pub fn start(address: SocketAddr, clients: usize, name: &str) -> Self {
        Load::paced(address, clients, name, Duration::ZERO)
    }

    /// The same at a fixed rate, each client `every` so often on average; what is late because an answer
    /// was, has been under way since it was due. From half as long to half as long again, by chance: at
    /// even intervals the same clients would meet all the time, or never. In the same way in each load.
    pub fn paced(address: SocketAddr, clients: usize, name: &str, every: Duration) -> Self {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let broken = Arc::new(AtomicUsize::new(0));
        let started = (0..clients).map(|number| {
            let (stop, answers) = (Arc::clone(&stop), Arc::clone(&answers));
            let broken = Arc::clone(&broken);
            let name = format!("{}-{number}", name.replace(' ', "-"));
            // Not all at once.
            let offset = every.mul_f64(number as f64 / clients as f64);
            let pace = (offset, every, fastrand::Rng::with_seed(number as u64));
            std::thread::spawn(move || call_on(address, &name, pace, &stop, (&answers, &broken)))
        });
        let clients = started.collect();
        Load { stop, answers, broken, clients }
    }

    /// Answers so far.
    pub fn answers(&self) -> usize {
        self.answers.load(Ordering::Relaxed)
    }

    /// Clients so far whose connection broke.
    pub fn broken(&self) -> usize {
        self.broken.load(Ordering::Relaxed)
    }

    /// No more requests; what was answered.
    pub fn finish(self) -> Vec<Answered> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
    }
}

fn call_on(
    address: SocketAddr,
    name: &str,
    (offset, every, mut chance): (Duration, Duration, fastrand::Rng),
    stop: &AtomicBool,
    (answers, broken): (&AtomicUsize, &AtomicUsize),
) -> Vec<Answered> {
    let mut answered = Vec::new();
    let mut client = Client::connect(address);
    let mut due = Instant::now() + offset;
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let id = format!("{name}-{n}");
        let call = Call::new("GET /").header("X-Request-Id", &id);
        // When it was meant to begin, unless it is the machine that woke us late.
        let begun = match due.checked_duration_since(Instant::now()) {
            None if !every.is_zero() => due,
            wait => {
                pass(wait.unwrap_or_default());
                Instant::now()
            }
        };
        due += every.mul_f64(0.5 + chance.f64());
        let Ok(response) = client.try_send(call.bytes()).and_then(|()| client.try_receive("GET"))
        else {
            broken.fetch_add(1, Ordering::Relaxed);
            break;
        };
        if response.ending == Ending::Truncated {
            broken.fetch_add(1, Ordering::Relaxed);
            break;
        }
        answered.push(Answered { id, status: response.status, took: begun.elapsed() });
        answers.fetch_add(1, Ordering::Relaxed);
    }
    answered
}

/// The time that `share` of the answers took at most.
pub fn quantile(answers: &[Answered], share: f64) -> Duration {
    let mut times: Vec<_> = answers.iter().map(|answer| answer.took).collect();
    times.sort();
    let last = times.len().saturating_sub(1);
    times.get((last as f64 * share) as usize).copied().unwrap_or_default()
}
