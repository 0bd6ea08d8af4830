//! A scripted upstream on bare sockets: it keeps what it is sent, byte for byte, and
//! answers as its script says; when the script is used up, `200 ok`.
//!
//! It knows nothing of HTTP libraries, so that what it saw is what was on the wire.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::answer::{Answer, Manner};
use super::wait::DEADLINE;

/// How much of a body is kept; of the rest only the length.
const KEPT: usize = 1 << 20;
/// How often a waiting answer looks whether anybody still waits for it.
const GLANCE: Duration = Duration::from_millis(5);

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

#[derive(Default)]
struct State {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    script: VecDeque<Answer>,
    afterwards: Option<Answer>,
    received: Vec<Received>,
    connections: Vec<TcpStream>,
    released: bool,
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
    pub fn listen(address: SocketAddr) -> Self {
        Upstream::serve(TcpListener::bind(address).expect("the upstream's address is free"))
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
        assert!(!timeout.timed_out(), "waited for {what}, saw {:#?}", inner.received);
        inner.received.clone()
    }

    fn serve(listener: TcpListener) -> Self {
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
            for connection in inner.connections.drain(..) {
                let _ = connection.shutdown(Shutdown::Both);
            }
        });
        // The accepting thread looks at `stopped` when somebody comes; it ends this
        // connection last, so that afterwards nobody listens.
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
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("the upstream's state")
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn update(&self, index: usize, change: impl FnOnce(&mut Received)) {
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
        inner.connections.extend(stream.try_clone());
        drop(inner);
        let state = state.clone();
        std::thread::spawn(move || {
            // Every error here is the gateway's leaving, and was noted where it matters.
            let _ = Connection { reader: BufReader::new(stream), number, state }.serve();
        });
    }
}

struct Connection {
    reader: BufReader<TcpStream>,
    number: usize,
    state: Arc<State>,
}

impl Connection {
    fn serve(&mut self) -> io::Result<()> {
        self.reader.get_ref().set_nodelay(true)?;
        while let Some(request) = self.read_head()? {
            let (index, answer) = self.note(request.clone());
            if matches!(answer.manner, Manner::Early) {
                self.write(&whole(&answer, &request.method))?;
            }
            self.read_body(index, &request)?;
            let done = self.answer(&answer, &request.method);
            if done.is_err() {
                self.state.update(index, |r| r.cancelled = true);
            }
            if !done? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Keep the request and take the answer to it, in one step.
    fn note(&self, request: Received) -> (usize, Answer) {
        let mut inner = self.state.lock();
        inner.received.push(request);
        let index = inner.received.len() - 1;
        let answer = inner.script.pop_front().or_else(|| inner.afterwards.clone());
        self.state.changed.notify_all();
        (index, answer.unwrap_or_else(Answer::ok))
    }

    /// `None` where the connection ends instead of a request.
    fn read_head(&mut self) -> io::Result<Option<Received>> {
        self.reader.get_ref().set_read_timeout(None)?;
        let line = self.read_line()?;
        let mut words = line.splitn(3, ' ').map(str::to_owned);
        let (Some(method), Some(target), Some(version)) =
            (words.next(), words.next(), words.next())
        else {
            return Ok(None);
        };
        let mut request =
            Received { connection: self.number, method, target, version, ..Received::default() };
        loop {
            let line = self.read_line()?;
            if line.is_empty() {
                return Ok(Some(request));
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            request.headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    fn read_line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line)?;
        let line = String::from_utf8_lossy(&line);
        Ok(line.strip_suffix("\r\n").unwrap_or(&line).to_owned())
    }

    fn read_body(&mut self, index: usize, request: &Received) -> io::Result<()> {
        let chunked = request.all("transfer-encoding").iter().any(|v| v.contains("chunked"));
        if chunked {
            while let size @ 1.. = self.read_chunk_size()? {
                self.read_part(index, size)?;
                self.read_line()?;
            }
            while !self.read_line()?.is_empty() {}
        } else {
            let length = request.all("content-length").first().and_then(|v| v.parse().ok());
            self.read_part(index, length.unwrap_or(0))?;
        }
        self.state.update(index, |r| r.complete = true);
        Ok(())
    }

    fn read_chunk_size(&mut self) -> io::Result<u64> {
        let line = self.read_line()?;
        let digits = line.split(';').next().unwrap_or_default();
        u64::from_str_radix(digits, 16).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    fn read_part(&mut self, index: usize, mut left: u64) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        while left > 0 {
            let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = self.reader.read(&mut buffer[..want])?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= read as u64;
            self.state.update(index, |r| {
                r.body_length += read as u64;
                let room = KEPT.saturating_sub(r.body.len()).min(read);
                r.body.extend_from_slice(&buffer[..room]);
            });
        }
        Ok(())
    }

    /// Whether the connection may serve another request; an error if the gateway left.
    fn answer(&mut self, answer: &Answer, method: &str) -> io::Result<bool> {
        self.watch(answer.delay)?;
        if answer.held {
            self.wait_for_release()?;
        }
        let head = answer.head(answer.body.len());
        match answer.manner {
            Manner::Early => {}
            Manner::Proper => self.write(&whole(answer, method))?,
            Manner::Hang => self.watch(Duration::MAX)?,
            Manner::Reset => {
                socket2::SockRef::from(self.reader.get_ref()).set_linger(Some(Duration::ZERO))?;
                return Ok(false);
            }
            Manner::Close => return self.close(),
            Manner::Verbatim => {
                self.write(&answer.body)?;
                return self.close();
            }
            Manner::Truncate { .. } => {
                self.write(&[&head[..], &answer.body].concat())?;
                return self.close();
            }
            Manner::DripHead(every) => {
                self.drip(&head, every)?;
                self.write(&answer.body)?;
            }
            Manner::DripBody(every) => {
                self.write(&head)?;
                self.drip(&answer.body, every)?;
            }
            Manner::HoldBody => {
                let (first, rest) = answer.body.split_at(1);
                self.write(&[&head[..], first].concat())?;
                self.wait_for_release()?;
                self.write(rest)?;
            }
            Manner::Chunked(size) => {
                self.write(&head)?;
                for chunk in answer.body.chunks(size) {
                    let size = format!("{:x}\r\n", chunk.len());
                    self.write(&[size.as_bytes(), chunk, b"\r\n"].concat())?;
                }
                self.write(b"0\r\n\r\n")?;
            }
            Manner::Stream(bytes) => {
                self.write(&head)?;
                self.stream(bytes)?;
            }
        }
        Ok(true)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    fn drip(&mut self, bytes: &[u8], every: Duration) -> io::Result<()> {
        for byte in bytes {
            self.write(&[*byte])?;
            self.watch(every)?;
        }
        Ok(())
    }

    fn stream(&mut self, mut left: u64) -> io::Result<()> {
        let block = vec![b'x'; 64 * 1024];
        while left > 0 {
            let part = block.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.write(&block[..part])?;
            left -= part as u64;
        }
        Ok(())
    }

    /// An orderly end: what was written arrives.
    fn close(&mut self) -> io::Result<bool> {
        let _ = self.reader.get_ref().shutdown(Shutdown::Both);
        Ok(false)
    }

    fn wait_for_release(&mut self) -> io::Result<()> {
        while !self.state.lock().released {
            self.watch(GLANCE)?;
        }
        Ok(())
    }

    /// Let time pass; an error as soon as the gateway closes the connection.
    fn watch(&mut self, time: Duration) -> io::Result<()> {
        if time.is_zero() {
            return Ok(());
        }
        let stream = self.reader.get_ref();
        // A read that times out is the pause, one that returns is the news.
        stream.set_read_timeout((time < Duration::from_secs(3600)).then_some(time))?;
        match stream.peek(&mut [0]) {
            Ok(0) => Err(io::ErrorKind::ConnectionAborted.into()),
            Ok(_) => Ok(()),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Ok(())
            }
            Err(e) => Err(e),
        }
    }
}

/// Head and body as one; only the head where the method wants no more.
fn whole(answer: &Answer, method: &str) -> Vec<u8> {
    let head = answer.head(answer.body.len());
    let bodiless = method == "HEAD" || answer.status == 204 || answer.status == 304;
    if bodiless { head } else { [head, answer.body.clone()].concat() }
}
