//! A server that answers each request with one document, possibly after a while: what registries of our
//! own are made of.

use std::io::{BufRead, BufReader, Error, Read, Result, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use percent_encoding::percent_decode_str;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::tls::Leaf;

/// A request as it was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub path: String,
    pub query: Vec<(String, String)>,
    pub headers: Vec<(String, String)>,
}

impl Asked {
    /// A parameter of its query, or nothing.
    pub fn parameter(&self, name: &str) -> &str {
        self.query.iter().find(|(one, _)| one == name).map_or("", |(_, value)| value)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(one, _)| one.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub enum Reply {
    /// The connection is closed instead.
    Close,
    /// Status, headers, body.
    Whole(u16, Vec<(&'static str, String)>, String),
    /// A body that does not end.
    Endless,
}

impl Reply {
    pub fn of(status: u16, body: &str) -> Self {
        Reply::Whole(status, Vec::new(), body.to_owned())
    }
}

/// Ends when dropped.
pub struct Documents {
    address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
}

struct Shared {
    answer: Box<dyn Fn(Asked) -> Reply + Send + Sync>,
    connections: AtomicUsize,
    stopped: AtomicBool,
}

impl Documents {
    pub fn serve(
        leaf: Option<&Leaf>,
        answer: impl Fn(Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its own address");
        let shared = Arc::new(Shared {
            answer: Box::new(answer),
            connections: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        });
        let tls = leaf.map(|leaf| Arc::new(leaf.server_config()));
        let scheme = if tls.is_some() { "https" } else { "http" };
        let accepting = shared.clone();
        std::thread::spawn(move || accept(&listener, tls.as_ref(), &accepting));
        Documents { address, scheme, shared }
    }

    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn authority(&self) -> String {
        self.address.to_string()
    }

    /// How many connections came so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Documents {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn accept(listener: &TcpListener, tls: Option<&Arc<ServerConfig>>, shared: &Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept() else { continue };
        if shared.stopped.load(Ordering::SeqCst) {
            return;
        }
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let (tls, shared) = (tls.cloned(), shared.clone());
        std::thread::spawn(move || {
            // Every error here is the gateway's leaving.
            let _ = match tls {
                None => answer_all(stream, &shared),
                Some(config) => ServerConnection::new(config)
                    .map_err(Error::other)
                    .and_then(|tls| answer_all(StreamOwned::new(tls, stream), &shared)),
            };
        });
    }
}

fn answer_all(stream: impl Read + Write, shared: &Shared) -> Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim_end() {
                "" => break,
                text => lines.push(text.to_owned()),
            }
        }
        let (path, query) = target(&lines[0]);
        let headers = lines[1..].iter().filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let reply = (shared.answer)(Asked { path, query, headers });
        let to = stream.get_mut();
        match reply {
            Reply::Close => return Ok(()),
            Reply::Whole(status, headers, body) => {
                let mut head =
                    format!("HTTP/1.1 {status} It\r\ncontent-length: {}\r\n", body.len());
                for (name, value) in headers {
                    head += &format!("{name}: {value}\r\n");
                }
                to.write_all(format!("{head}\r\n{body}").as_bytes())?;
                to.flush()?;
            }
            Reply::Endless => {
                to.write_all(b"HTTP/1.1 200 It\r\nx-consul-index: 1\r\n\r\n[")?;
                loop {
                    to.write_all(&[b' '; 64 * 1024])?;
                }
            }
        }
    }
}

/// The path and the query of a request's first line, decoded.
fn target(line: &str) -> (String, Vec<(String, String)>) {
    let target = line.split(' ').nth(1).unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    (decoded(path), pairs.map(|(name, value)| (decoded(name), decoded(value))).collect())
}
