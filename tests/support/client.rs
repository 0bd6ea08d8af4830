//! A small HTTP/1.1 client that says exactly what it is told and hides nothing of what it
//! hears: not the order of headers, not how the connection ended.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::wait::DEADLINE;

/// How much of a body is kept; of the rest only the length.
const KEPT: usize = 1 << 20;

/// One connection.
pub struct Client {
    reader: BufReader<TcpStream>,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    /// At most the first MiB.
    pub body: Vec<u8>,
    pub body_length: u64,
    pub ending: Ending,
}

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Whole by its own framing.
    Complete,
    /// The connection ended before the response did.
    Truncated,
}

/// A request in the making.
#[derive(Clone, Debug)]
pub struct Call {
    line: String,
    headers: Vec<String>,
    body: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Client::try_connect(address).expect("the gateway accepts")
    }

    /// For a gateway that may be gone.
    pub fn try_connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect_timeout(&address, DEADLINE).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).ok()?;
        stream.set_write_timeout(Some(DEADLINE)).ok()?;
        Some(Client { reader: BufReader::new(stream) })
    }

    /// Its own end of the connection.
    pub fn local_address(&self) -> SocketAddr {
        self.reader.get_ref().local_addr().expect("its own address")
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the gateway reads");
    }

    /// For bytes that the gateway may refuse to read to their end.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes.as_ref())
    }

    /// Send a request and read the answer to it.
    #[track_caller]
    pub fn call(&mut self, call: &Call) -> Response {
        self.send(call.bytes());
        self.receive_to(call.method())
    }

    /// The next response; interim ones are skipped.
    #[track_caller]
    pub fn receive(&mut self) -> Response {
        self.receive_to("GET")
    }

    /// The next response, read as one to `method`: that to HEAD has no body.
    #[track_caller]
    pub fn receive_to(&mut self, method: &str) -> Response {
        self.try_receive(method).expect("a response")
    }

    /// An error where the connection ends, or nothing comes, before a whole head.
    pub fn try_receive(&mut self, method: &str) -> io::Result<Response> {
        loop {
            let mut response = self.read_head()?;
            if response.status >= 200 {
                self.read_body(method, &mut response)?;
                return Ok(response);
            }
        }
    }

    /// Read the head of a response and leave its body where it is.
    #[track_caller]
    pub fn receive_head(&mut self) -> Response {
        self.read_head().expect("a response's head")
    }

    /// Read the body that goes with a head read before.
    #[track_caller]
    pub fn receive_rest(&mut self, mut head: Response) -> Response {
        self.read_body("GET", &mut head).expect("a response's body");
        head
    }

    /// The next bytes as they are.
    #[track_caller]
    pub fn read_exact<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes).expect("bytes");
        bytes
    }

    /// The same where the connection may end first.
    pub fn try_read(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.reader.read_exact(bytes)
    }

    /// Whether the gateway closes the connection, and sends nothing more before it does.
    pub fn is_closed(&mut self) -> bool {
        match self.reader.read(&mut [0]) {
            Ok(read) => read == 0,
            // A reset is an end too; only silence is none.
            Err(e) => !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
        }
    }

    /// Whether the gateway has neither closed the connection so far, nor sent anything more.
    pub fn is_open(&self) -> bool {
        let socket = self.reader.get_ref();
        socket.set_nonblocking(true).expect("a socket option");
        let seen = socket.peek(&mut [0]);
        socket.set_nonblocking(false).expect("a socket option");
        seen.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Leave without a word: the connection is reset.
    pub fn vanish(self) {
        let socket = socket2::SockRef::from(self.reader.get_ref());
        socket.set_linger(Some(Duration::ZERO)).expect("a socket option");
    }

    fn read_head(&mut self) -> io::Result<Response> {
        let line = self.read_line()?;
        let status = line.split(' ').nth(1).and_then(|s| s.parse().ok());
        let Some(status) = status.filter(|_| line.starts_with("HTTP/1.")) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("no status: {line:?}")));
        };
        let mut headers = Vec::new();
        loop {
            let line = self.read_line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        let body = Vec::new();
        Ok(Response { status, headers, body, body_length: 0, ending: Ending::Complete })
    }

    fn read_line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\r\n") {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.len() - 2);
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    fn read_body(&mut self, method: &str, response: &mut Response) -> io::Result<()> {
        if method == "HEAD" || matches!(response.status, 204 | 304) {
            return Ok(());
        }
        let read = if response.header("transfer-encoding").is_some() {
            self.read_chunks(response)
        } else if let Some(length) = response.header("content-length") {
            let length = length.parse().map_err(|_| io::ErrorKind::InvalidData)?;
            self.read_part(length, response)
        } else {
            self.read_part(u64::MAX, response).or(Ok(()))
        };
        let silent =
            |e: &io::Error| matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        match read {
            Err(e) if silent(&e) => Err(e),
            Err(_) => {
                response.ending = Ending::Truncated;
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn read_chunks(&mut self, response: &mut Response) -> io::Result<()> {
        loop {
            let line = self.read_line()?;
            let size = u64::from_str_radix(line.split(';').next().unwrap_or_default(), 16)
                .map_err(|_| io::ErrorKind::InvalidData)?;
            if size == 0 {
                while !self.read_line()?.is_empty() {}
                return Ok(());
            }
            self.read_part(size, response)?;
            self.read_line()?;
        }
    }

    fn read_part(&mut self, mut left: u64, response: &mut Response) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        while left > 0 {
            let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = self.reader.read(&mut buffer[..want])?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= read as u64;
            response.body_length += read as u64;
            let room = KEPT.saturating_sub(response.body.len()).min(read);
            response.body.extend_from_slice(&buffer[..room]);
        }
        Ok(())
    }
}

impl Response {
    /// The value of a header that is there at most once.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let same = |n: &&(String, String)| n.0.eq_ignore_ascii_case(name);
        let all: Vec<_> = self.headers.iter().filter(same).collect();
        assert!(all.len() <= 1, "{name} came {} times: {all:?}", all.len());
        all.first().map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("not JSON ({e}): {}", self.text()))
    }

    /// The `code` of a refusal, in either dialect.
    #[track_caller]
    pub fn code(&self) -> String {
        self.json()["code"].as_str().expect("a refusal carries its code").to_owned()
    }

    /// `Retry-After` in whole seconds.
    #[track_caller]
    pub fn retry_after(&self) -> u64 {
        let value = self.header("retry-after").expect("Retry-After");
        value.parse().expect("Retry-After is a whole number of seconds")
    }
}

impl Call {
    /// `line` is method and target: `POST /orders`.
    pub fn new(line: &str) -> Self {
        Call { line: line.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push(format!("{name}: {value}"));
        self
    }

    /// With this `Host`, unless it has one.
    pub fn to(self, host: &str) -> Self {
        let given = self.headers.iter().any(|h| h.to_lowercase().starts_with("host:"));
        if given { self } else { self.header("Host", host) }
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    pub fn json(self, body: &str) -> Self {
        self.header("Content-Type", "application/json").body(body)
    }

    fn method(&self) -> &str {
        self.line.split(' ').next().unwrap_or_default()
    }

    /// On the wire. A `Host` and, with a body, a `Content-Length` are added unless given.
    pub fn bytes(&self) -> Vec<u8> {
        let given = |name: &str| self.headers.iter().any(|h| h.to_lowercase().starts_with(name));
        let mut head = format!("{} HTTP/1.1\r\n", self.line);
        if !given("host:") {
            head += "Host: gateway.test\r\n";
        }
        for header in &self.headers {
            head += &format!("{header}\r\n");
        }
        if !self.body.is_empty() && !given("content-length:") && !given("transfer-encoding:") {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        head += "\r\n";
        [head.as_bytes(), &self.body].concat()
    }
}

impl From<&str> for Call {
    fn from(line: &str) -> Self {
        Call::new(line)
    }
}
