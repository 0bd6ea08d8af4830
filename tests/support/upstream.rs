//! A scripted upstream on bare sockets: it keeps what it is sent, byte for byte, and
//! answers as its script says; when the script is used up, `200 ok`.
//!
//! It knows nothing of HTTP libraries, so that what it saw is what was on the wire.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use socket2::SockRef;

use super::answer::Answer;
use super::connection::Connection;
use super::wait::{DEADLINE, eventually};

/// Stops listening and closes its connections when dropped.
pub struct Upstream {
    address: SocketAddr,
    state: Arc<State>,
}

/// One request as it arrived.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// Which of the upstream's connections, from 0.
    pub connection: usize,
    pub method: String,
    pub target: String,
    pub version: String,
    /// In order, names as they were written.
    pub headers: Vec<(String, String)>,
    /// At most the first MiB.
    pub body: Vec<u8>,
    pub body_length: u64,
    /// The body arrived to its end.
    pub complete: bool,
    /// The gateway closed the connection before it had the whole answer.
    pub cancelled: bool,
}

/// What the upstream's connections share.
#[derive(Default)]
pub(super) struct State {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    script: VecDeque<Answer>,
    afterwards: Option<Answer>,
    received: Vec<Received>,
    /// By number, to be shut down with the upstream.
    connections: BTreeMap<usize, TcpStream>,
    released: bool,
    /// Where health checks are answered, apart from everything else.
    checked_at: Option<&'static str>,
    stopped: bool,
}

impl Upstream {
    /// Answers `200 ok`.
    pub fn start() -> Self {
        Upstream::listen(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0))
    }

    /// Answers these one after the other, whichever connection asks; then `200 ok`.
    pub fn script<A: Into<Answer>>(answers: impl IntoIterator<Item = A>) -> Self {
        let upstream = Upstream::start();
        upstream.state.lock().script.extend(answers.into_iter().map(Into::into));
        upstream
    }

    /// Answers this every time.
    pub fn always(answer: impl Into<Answer>) -> Self {
        let upstream = Upstream::start();
        upstream.answer_always(answer);
        upstream
    }

    /// On every address that `localhost` may mean.
    pub fn on_localhost() -> Self {
        match TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)) {
            Ok(listener) => Upstream::serve(listener),
            Err(_) => Upstream::start(),
        }
    }

    /// At an address chosen before, say that of an upstream that was stopped.
    ///
    /// A process that another test starts just now has a copy of each listener, until its program runs.
    pub fn listen(address: SocketAddr) -> Self {
        let free = format!("{address}, which an upstream is to have");
        Upstream::serve(eventually(&free, || TcpListener::bind(address).ok()))
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.address.port())
    }

    /// From now on, when the script is used up.
    pub fn answer_always(&self, answer: impl Into<Answer>) {
        self.state.lock().afterwards = Some(answer.into());
    }

    /// Requests for this path are health checks: they pass, and are not kept.
    pub fn checked_at(self, path: &'static str) -> Self {
        self.state.lock().checked_at = Some(path);
        self
    }

    /// Let go of every answer that is held, and hold none any more.
    pub fn release(&self) {
        self.state.change(|inner| inner.released = true);
    }

    /// Everything that has arrived, in order of arrival.
    pub fn requests(&self) -> Vec<Received> {
        self.state.lock().received.clone()
    }

    pub fn count(&self) -> usize {
        self.state.lock().received.len()
    }

    /// The only request there was.
    #[track_caller]
    pub fn only(&self) -> Received {
        let mut all = self.requests();
        assert_eq!(all.len(), 1, "the upstream was to see exactly one request: {all:#?}");
        all.remove(0)
    }

    /// Wait until `count` requests have arrived.
    #[track_caller]
    pub fn wait_for(&self, count: usize) -> Vec<Received> {
        self.wait_until(&format!("{count} requests"), |received| received.len() >= count)
    }

    /// Wait until `count` of the requests were cancelled.
    #[track_caller]
    pub fn wait_cancelled(&self, count: usize) -> Vec<Received> {
        self.wait_until(&format!("{count} cancelled requests"), |received| {
            received.iter().filter(|r| r.cancelled).count() >= count
        })
    }

    /// Wait until the bodies of `count` requests have arrived whole.
    #[track_caller]
    pub fn wait_complete(&self, count: usize) -> Vec<Received> {
        self.wait_until(&format!("{count} complete requests"), |received| {
            received.iter().filter(|r| r.complete).count() >= count
        })
    }

    #[track_caller]
    fn wait_until(&self, what: &str, reached: impl Fn(&[Received]) -> bool) -> Vec<Received> {
        let (inner, timeout) = self
            .state
            .changed
            .wait_timeout_while(self.state.lock(), DEADLINE, |inner| !reached(&inner.received))
            .expect("the upstream's state");
        let received = inner.received.clone();
        // A panic that held it would poison it, and the drop of the upstream would panic as well.
        drop(inner);
        assert!(!timeout.timed_out(), "waited for {what}, saw {received:#?}");
        received
    }

    fn serve(listener: TcpListener) -> Self {
        // The standard library's backlog is 128: beyond it connects of a crowd wait a second, and time out.
        SockRef::from(&listener).listen(4096).expect("a listener");
        let address = listener.local_addr().expect("its own address");
        let state = Arc::new(State::default());
        let shared = state.clone();
        std::thread::spawn(move || accept(listener, &shared));
        Upstream { address, state }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.state.change(|inner| {
            inner.stopped = true;
            for connection in inner.connections.values() {
                let _ = connection.shutdown(Shutdown::Both);
            }
        });
        // The accepting thread looks at `stopped` when a connection comes; it ends this
        // one last, so that afterwards nothing listens.
        if let Ok(mut last) = TcpStream::connect(("127.0.0.1", self.address.port())) {
            let _ = last.set_read_timeout(Some(DEADLINE));
            let _ = last.read(&mut [0]);
        }
    }
}

impl Received {
    /// The value of a header that is there at most once.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} came {} times: {all:?}", all.len());
        all.first().copied()
    }

    /// All values of a header, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = |n: &&(String, String)| n.0.eq_ignore_ascii_case(name);
        self.headers.iter().filter(same).map(|(_, value)| value.as_str()).collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl State {
    /// Keep the request and take the answer to it, in one step.
    pub(super) fn note(&self, request: Received) -> (usize, Answer) {
        let mut inner = self.lock();
        inner.received.push(request);
        let index = inner.received.len() - 1;
        let answer = inner.script.pop_front().or_else(|| inner.afterwards.clone());
        self.changed.notify_all();
        (index, answer.unwrap_or_else(Answer::ok))
    }

    pub(super) fn is_check(&self, request: &Received) -> bool {
        self.lock().checked_at.is_some_and(|path| request.target == path)
    }

    pub(super) fn is_released(&self) -> bool {
        self.lock().released
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("the upstream's state")
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    pub(super) fn update(&self, index: usize, change: impl FnOnce(&mut Received)) {
        self.change(|inner| change(&mut inner.received[index]));
    }
}

fn accept(listener: TcpListener, state: &Arc<State>) {
    for number in 0.. {
        let Ok((stream, _)) = listener.accept() else { continue };
        let mut inner = state.lock();
        if inner.stopped {
            // Before `stream`, which somebody waits for the end of.
            drop(listener);
            return;
        }
        inner.connections.extend(stream.try_clone().map(|clone| (number, clone)));
        drop(inner);
        let state = state.clone();
        std::thread::spawn(move || {
            // Every error here is the gateway's leaving, and was noted where it matters.
            let shared = state.clone();
            let _ = Connection::new(stream, number, state).serve();
            shared.lock().connections.remove(&number);
        });
    }
}
