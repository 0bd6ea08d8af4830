//! Clients that call without a pause and count what fails; they do what a client may do when a
//! connection is closed in good order, and nothing more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::io::{AsyncRead, AsyncWrite};

use super::client::{Call, Client, Ending};
use super::h2_client::{RUNTIME, request};
use super::tls::{Authority, connect_tls};
use super::wait::{DEADLINE, pass};

/// What its clients have seen.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Seen {
    pub served: usize,
    /// What went wrong, in words.
    pub failed: Vec<String>,
}

/// Clients at work.
pub struct Steady {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    clients: Vec<(&'static str, JoinHandle<Seen>)>,
}

impl Steady {
    pub fn new() -> Self {
        Steady { stop: Arc::default(), served: Arc::default(), clients: Vec::new() }
    }

    fn add(
        &mut self,
        kind: &'static str,
        call: impl Fn(&mut Seen, &AtomicBool, &AtomicUsize) + Send + 'static,
    ) {
        let (stop, served) = (self.stop.clone(), self.served.clone());
        let work = move || {
            let mut seen = Seen::default();
            while !stop.load(Ordering::Relaxed) {
                call(&mut seen, &stop, &served);
            }
            seen
        };
        self.clients.push((kind, std::thread::spawn(work)));
    }

    /// One request after the other on a connection of HTTP/1; a new one after `Connection: close`. Each
    /// waits a little, so that a connection is idle most of the time.
    pub fn http1(mut self, address: SocketAddr, clients: usize, pause: Duration) -> Self {
        for _ in 0..clients {
            self.add("HTTP/1", move |seen, stop, served| {
                let Some(mut client) = Client::try_connect(address) else {
                    return seen.failed.push("HTTP/1: cannot connect".to_owned());
                };
                while !stop.load(Ordering::Relaxed) {
                    pass(pause);
                    let call = Call::new("GET /");
                    let sent = client.try_send(call.bytes());
                    match sent.and_then(|()| client.try_receive("GET")) {
                        Ok(answer) if answer.status == 200 && answer.ending == Ending::Complete => {
                            seen.served += 1;
                            served.fetch_add(1, Ordering::Relaxed);
                            let closes = |value: &str| value.eq_ignore_ascii_case("close");
                            if answer.header("connection").is_some_and(closes) {
                                return;
                            }
                        }
                        other => return seen.failed.push(format!("HTTP/1: {other:?}")),
                    }
                }
            });
        }
        self
    }

    /// Several requests at a time on a connection of HTTP/2 without TLS; a new one after GOAWAY.
    pub fn h2c(mut self, address: SocketAddr, clients: usize) -> Self {
        for _ in 0..clients {
            self.add("h2c", move |seen, stop, served| {
                RUNTIME.block_on(async {
                    match tokio::net::TcpStream::connect(address).await {
                        Ok(stream) => h2_calls(stream, usize::MAX, seen, stop, served).await,
                        Err(error) => seen.failed.push(format!("h2c: {error}")),
                    }
                });
            });
        }
        self
    }

    /// The same over TLS, with a connection for every few requests.
    pub fn tls(
        mut self,
        address: SocketAddr,
        name: &'static str,
        authority: &Arc<Authority>,
        clients: usize,
    ) -> Self {
        for _ in 0..clients {
            let authority = authority.clone();
            self.add("TLS", move |seen, stop, served| {
                match connect_tls(address, name, &authority, None, "h2") {
                    Ok(stream) => RUNTIME.block_on(h2_calls(stream, 5, seen, stop, served)),
                    Err(error) => seen.failed.push(format!("TLS: {error}")),
                }
            });
        }
        self
    }

    /// An upload that takes `long`, again and again.
    pub fn uploads(mut self, address: SocketAddr, clients: usize, long: Duration) -> Self {
        for _ in 0..clients {
            self.add("upload", move |seen, _, served| {
                let Some(mut client) = Client::try_connect(address) else {
                    return seen.failed.push("upload: cannot connect".to_owned());
                };
                let pieces = 60;
                let head = format!(
                    "POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: {}\r\n\r\n",
                    pieces * 1000
                );
                let mut sent = client.try_send(head);
                for _ in 0..pieces {
                    pass(long / pieces);
                    sent = sent.and_then(|()| client.try_send([b'x'; 1000]));
                }
                match sent.and_then(|()| client.try_receive("POST")) {
                    Ok(answer) if answer.status == 200 => {
                        seen.served += 1;
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                    other => seen.failed.push(format!("upload: {other:?}")),
                }
            });
        }
        self
    }

    /// Requests served so far.
    pub fn served(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }

    /// No more requests; what each kind of client has seen.
    pub fn finish(self) -> Vec<(&'static str, Seen)> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all: Vec<(&'static str, Seen)> = Vec::new();
        for (kind, client) in self.clients {
            let seen = client.join().expect("a client");
            match all.last_mut() {
                Some((last, sum)) if *last == kind => {
                    sum.served += seen.served;
                    sum.failed.extend(seen.failed);
                }
                _ => all.push((kind, seen)),
            }
        }
        all
    }
}

/// Pairs of requests over one connection, until it takes no more of them or `most` have been made.
async fn h2_calls(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    most: usize,
    seen: &mut Seen,
    stop: &AtomicBool,
    served: &AtomicUsize,
) {
    let (send, connection) = match h2::client::handshake(stream).await {
        Ok(both) => both,
        Err(error) => return seen.failed.push(format!("HTTP/2: {error}")),
    };
    let driver = tokio::spawn(connection);
    let mut made = 0;
    while !stop.load(Ordering::Relaxed) && made < most {
        let (one, other) = tokio::join!(h2_call(send.clone()), h2_call(send.clone()));
        let mut over = false;
        for outcome in [one, other] {
            match outcome {
                Ok(Some(())) => {
                    seen.served += 1;
                    served.fetch_add(1, Ordering::Relaxed);
                }
                // It was not sent.
                Ok(None) => over = true,
                Err(error) => {
                    seen.failed.push(format!("HTTP/2: {error}"));
                    over = true;
                }
            }
        }
        if over {
            break;
        }
        made += 2;
    }
    drop(send);
    let _ = tokio::time::timeout(DEADLINE, driver).await;
}

/// `None`: the connection takes no more requests.
async fn h2_call(send: SendRequest<Bytes>) -> Result<Option<()>, String> {
    let Ok(mut ready) = send.ready().await else { return Ok(None) };
    let head = request("GET", "/").body(()).expect("a request");
    let Ok((answer, _)) = ready.send_request(head, true) else { return Ok(None) };
    let answer = tokio::time::timeout(DEADLINE, answer).await.map_err(|_| "no answer")?;
    let answer = match answer {
        Ok(answer) => answer,
        // The gateway says that it has not looked at it, and another connection may be tried: RFC 9113,
        // sections 6.8 and 8.7. The client's own library sends what crosses with a GOAWAY.
        Err(error) if error.reason() == Some(h2::Reason::REFUSED_STREAM) => return Ok(None),
        Err(error)
            if error.is_go_away()
                && error.is_remote()
                && error.reason() == Some(h2::Reason::NO_ERROR) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error.to_string()),
    };
    let status = answer.status();
    let mut body = answer.into_body();
    while let Some(data) = body.data().await {
        let data = data.map_err(|error| format!("a body: {error}"))?;
        let _ = body.flow_control().release_capacity(data.len());
    }
    if status == 200 { Ok(Some(())) } else { Err(status.to_string()) }
}
