//! A client of HTTP/2 that opens streams on one connection and hides nothing of how they end.
//!
//! Its calls block; the connection itself is driven by a runtime that all tests share.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::LazyLock;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::wait::DEADLINE;

/// What drives the connections of all tests.
pub(super) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
});

/// Wait for `work`, but not for ever.
#[track_caller]
pub fn wait<T>(what: &str, work: impl Future<Output = T>) -> T {
    let done = RUNTIME.block_on(async { tokio::time::timeout(DEADLINE, work).await });
    done.unwrap_or_else(|_| panic!("waited {DEADLINE:?} in vain for: {what}"))
}

/// One connection.
pub struct H2Client {
    send: SendRequest<Bytes>,
    driver: JoinHandle<Result<(), h2::Error>>,
}

/// A stream that is open.
pub struct Exchange {
    upload: SendStream<Bytes>,
    answer: Option<ResponseFuture>,
    body: Option<RecvStream>,
}

/// What came back, and how it ended.
#[derive(Debug)]
pub struct H2Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
    /// Why the stream was reset, if it was.
    pub reset: Option<Reason>,
}

impl H2Client {
    /// With prior knowledge, on a port without TLS.
    pub fn connect(address: SocketAddr) -> Self {
        H2Client::over(
            async move { tokio::net::TcpStream::connect(address).await.expect("accepts") },
        )
    }

    pub fn over<S>(connect: impl Future<Output = S>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (send, connection) = wait("an HTTP/2 connection", async {
            h2::client::handshake(connect.await).await.expect("a handshake")
        });
        H2Client { send, driver: RUNTIME.spawn(connection) }
    }

    /// A request and its answer. An answer may come, and close the stream, before the body is
    /// sent: the answer is what counts then.
    #[track_caller]
    pub fn call(&self, request: Request<&[u8]>) -> H2Response {
        let (parts, body) = request.into_parts();
        let head = Request::from_parts(parts, ());
        let mut exchange = self.open(head, body.is_empty());
        if !body.is_empty() {
            let _ = exchange.try_send(body, true);
        }
        exchange.finish()
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> H2Response {
        self.call(request("GET", path).body(&b""[..]).expect("a request"))
    }

    /// Open a stream; `end` where nothing follows its head.
    #[track_caller]
    pub fn open(&self, head: Request<()>, end: bool) -> Exchange {
        let (answer, upload) = wait("room for a stream", async {
            let mut ready = self.send.clone().ready().await.expect("an open connection");
            ready.send_request(head, end).expect("a request")
        });
        Exchange { upload, answer: Some(answer), body: None }
    }

    /// Wait until the gateway has closed the connection.
    #[track_caller]
    pub fn wait_closed(mut self) {
        let _ = wait("the end of the connection", &mut self.driver);
    }

    /// Wait until the gateway takes no more streams.
    #[track_caller]
    pub fn is_told_to_go(&self) {
        super::wait::eventually("a connection that takes no streams", || {
            let refused = RUNTIME.block_on(async { self.send.clone().ready().await.is_err() });
            refused.then_some(())
        });
    }
}

impl Exchange {
    #[track_caller]
    pub fn send(&mut self, data: &[u8], end: bool) {
        self.try_send(data, end).expect("an open stream");
    }

    pub fn try_send(&mut self, data: &[u8], end: bool) -> Result<(), h2::Error> {
        self.upload.send_data(Bytes::copy_from_slice(data), end)
    }

    pub fn reset(&mut self, reason: Reason) {
        self.upload.send_reset(reason);
    }

    /// The head of the answer.
    #[track_caller]
    pub fn head(&mut self) -> Response<()> {
        self.try_head().expect("an answer")
    }

    #[track_caller]
    pub fn try_head(&mut self) -> Result<Response<()>, h2::Error> {
        let answer = self.answer.take().expect("the head is taken once");
        let (parts, body) = wait("an answer's head", answer)?.into_parts();
        self.body = Some(body);
        Ok(Response::from_parts(parts, ()))
    }

    /// The next piece of the answer's body; `None` at its end.
    #[track_caller]
    pub fn data(&mut self) -> Option<Bytes> {
        let body = self.body.as_mut().expect("the head first");
        let data = wait("data", body.data())?.expect("data");
        let _ = body.flow_control().release_capacity(data.len());
        Some(data)
    }

    /// The rest of the answer, however it ends.
    #[track_caller]
    pub fn finish(mut self) -> H2Response {
        let mut response = H2Response {
            status: 0,
            headers: HeaderMap::new(),
            body: Vec::new(),
            trailers: None,
            reset: None,
        };
        if self.answer.is_some() {
            match self.try_head() {
                Ok(head) => {
                    response.status = head.status().as_u16();
                    response.headers = head.headers().clone();
                }
                Err(error) => {
                    response.reset = Some(error.reason().unwrap_or(Reason::INTERNAL_ERROR));
                    return response;
                }
            }
        }
        let mut body = self.body.take().expect("a body");
        let read = wait("the rest of an answer", async {
            while let Some(data) = body.data().await {
                let data = data?;
                let _ = body.flow_control().release_capacity(data.len());
                response.body.extend_from_slice(&data);
            }
            body.trailers().await
        });
        match read {
            Ok(trailers) => response.trailers = trailers,
            Err(error) => response.reset = Some(error.reason().unwrap_or(Reason::INTERNAL_ERROR)),
        }
        response
    }
}

impl H2Response {
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }

    /// A header, or where the answer has none of that name, a trailer.
    #[track_caller]
    pub fn status_field(&self, name: &str) -> Option<&str> {
        let trailers = self.trailers.as_ref().and_then(|trailers| trailers.get(name));
        self.headers.get(name).or(trailers).map(|value| value.to_str().expect("text"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("not JSON ({e}): {}", self.text()))
    }
}

/// A request in the making, to the host all tests name.
pub fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("http://gateway.test{path}"))
}
