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
    clients: Vec<JoinHandle<Vec<Answered>>>,
}

impl Load {
    /// `clients` of them, each on a connection of its own; their request ids begin with `name`. One
    /// whose connection breaks has ended.
    pub fn start(address: SocketAddr, clients: usize, name: &str) -> Self {
        Load::paced(address, clients, name, Duration::ZERO)
    }

    /// The same, each waiting for `pause` after an answer.
    pub fn paced(address: SocketAddr, clients: usize, name: &str, pause: Duration) -> Self {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients = (0..clients).map(|number| {
            let (stop, answers) = (Arc::clone(&stop), Arc::clone(&answers));
            let name = format!("{}-{number}", name.replace(' ', "-"));
            std::thread::spawn(move || call_on(address, &name, pause, &stop, &answers))
        });
        let clients = clients.collect();
        Load { stop, answers, clients }
    }

    /// Answers so far.
    pub fn answers(&self) -> usize {
        self.answers.load(Ordering::Relaxed)
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
    pause: Duration,
    stop: &AtomicBool,
    answers: &AtomicUsize,
) -> Vec<Answered> {
    let mut answered = Vec::new();
    let mut client = Client::connect(address);
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let id = format!("{name}-{n}");
        let call = Call::new("GET /").header("X-Request-Id", &id);
        let begun = Instant::now();
        let Ok(response) = client.try_send(call.bytes()).and_then(|()| client.try_receive("GET"))
        else {
            break;
        };
        if response.ending == Ending::Truncated {
            break;
        }
        answered.push(Answered { id, status: response.status, took: begun.elapsed() });
        answers.fetch_add(1, Ordering::Relaxed);
        pass(pause);
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
