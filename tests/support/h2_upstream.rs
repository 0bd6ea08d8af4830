//! A scripted upstream of HTTP/2, with prior knowledge: it keeps what it is sent and answers
//! as its script says; when the script is used up, `200 ok`.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::h2_client::{RUNTIME, wait};
use super::wait::eventually;

/// Any free port.
const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Stops when dropped.
pub struct H2Upstream {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// Whether answers that are held may go out.
    released: watch::Sender<bool>,
    listener: JoinHandle<()>,
}

/// One request as it arrived.
#[derive(Clone, Debug, Default)]
pub struct H2Received {
    /// Which of the upstream's connections, from 0.
    pub connection: usize,
    pub method: String,
    pub path: String,
    pub authority: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// The body arrived to its end.
    pub complete: bool,
    /// The gateway reset the stream.
    pub cancelled: bool,
}

/// One answer, in pieces.
#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<Bytes>,
    trailers: Vec<(&'static str, String)>,
    manner: Manner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Whole, after the request's body.
    Proper,
    /// The head at once, then every piece of the request as it comes, then the trailers.
    Echo,
    /// As `Proper`, once the upstream is released.
    Held,
    /// Never.
    Hang,
    /// The head and the first piece; nothing after them.
    Stall,
    /// The stream is reset, untouched.
    Reset(Reason),
    /// The head and the body, then the stream is reset.
    Break,
}

#[derive(Default)]
struct State {
    script: VecDeque<Reply>,
    afterwards: Option<Reply>,
    received: Vec<H2Received>,
    pings: usize,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        let body = if status == 200 { "ok" } else { "upstream error" };
        Reply {
            status,
            headers: Vec::new(),
            body: vec![Bytes::from_static(body.as_bytes())],
            trailers: Vec::new(),
            manner: Manner::Proper,
        }
    }

    /// gRPC: this message, then this status in real trailers.
    pub fn grpc(message: &[u8], status: u8) -> Self {
        let body = if message.is_empty() { vec![] } else { vec![Bytes::from(frame(message))] };
        Reply { body, ..Reply::status(200) }
            .header("content-type", "application/grpc")
            .trailer("grpc-status", &status.to_string())
    }

    /// gRPC: a status in the head, and nothing else.
    pub fn trailers_only(status: u8) -> Self {
        Reply { body: vec![], ..Reply::status(200) }
            .header("content-type", "application/grpc")
            .header("grpc-status", &status.to_string())
    }

    pub fn echo() -> Self {
        Reply { body: vec![], ..Reply::status(200) }.manner(Manner::Echo)
    }

    pub fn hang() -> Self {
        Reply::status(200).manner(Manner::Hang)
    }

    pub fn stall() -> Self {
        Reply::status(200).manner(Manner::Stall)
    }

    /// Once the request is complete: where it is still being written, the gateway may not learn the
    /// reason, see `attempt::is_refused`.
    pub fn reset(reason: Reason) -> Self {
        Reply::status(200).manner(Manner::Reset(reason))
    }

    pub fn break_off() -> Self {
        Reply::status(200).manner(Manner::Break)
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub fn trailer(mut self, name: &'static str, value: &str) -> Self {
        self.trailers.push((name, value.to_owned()));
        self
    }

    pub fn body(mut self, body: &[u8]) -> Self {
        self.body = vec![Bytes::copy_from_slice(body)];
        self
    }

    /// Not before [`H2Upstream::release`].
    pub fn held(self) -> Self {
        self.manner(Manner::Held)
    }

    fn manner(mut self, manner: Manner) -> Self {
        self.manner = manner;
        self
    }

    fn head(&self) -> Response<()> {
        let mut head = Response::builder().status(self.status);
        for (name, value) in &self.headers {
            head = head.header(*name, value);
        }
        head.body(()).expect("a head")
    }

    fn trailer_map(&self) -> Option<HeaderMap> {
        let fields = self.trailers.iter().map(|(name, value)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
        });
        (!self.trailers.is_empty()).then(|| fields.collect())
    }
}

/// Changes what is known of a request.
type Update = dyn Fn(&dyn Fn(&mut H2Received)) + Send + Sync;

/// A message as gRPC and Connect's streams frame it.
pub fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a small message");
    [&[0], &length.to_be_bytes()[..], message].concat()
}

impl H2Upstream {
    pub fn always(reply: Reply) -> Self {
        H2Upstream::start(ANY, [], Some(reply))
    }

    /// The same at an address of the test's choice.
    pub fn listen(address: SocketAddr, reply: Reply) -> Self {
        H2Upstream::start(address, [], Some(reply))
    }

    pub fn script(replies: impl IntoIterator<Item = Reply>) -> Self {
        H2Upstream::start(ANY, replies, None)
    }

    fn start(
        address: SocketAddr,
        replies: impl IntoIterator<Item = Reply>,
        afterwards: Option<Reply>,
    ) -> Self {
        let state = State { script: replies.into_iter().collect(), afterwards, ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let listener = wait("a listener", TcpListener::bind(address)).expect("a port");
        let address = listener.local_addr().expect("its address");
        let shared = state.clone();
        let (released, release) = watch::channel(false);
        let listener = RUNTIME.spawn(async move {
            // Dropped with this task, and their streams with them.
            let mut connections = tokio::task::JoinSet::new();
            for number in 0.. {
                let Ok((stream, _)) = listener.accept().await else { continue };
                connections.spawn(serve(stream, number, shared.clone(), release.clone()));
            }
        });
        H2Upstream { address, state, released, listener }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Let the answers go that are held, and those to come.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    pub fn requests(&self) -> Vec<H2Received> {
        self.state.lock().expect("the state").received.clone()
    }

    /// How often it was asked whether it is still there.
    pub fn pings(&self) -> usize {
        self.state.lock().expect("the state").pings
    }

    pub fn count(&self) -> usize {
        self.requests().len()
    }

    #[track_caller]
    pub fn only(&self) -> H2Received {
        let mut all = self.requests();
        assert_eq!(all.len(), 1, "the upstream was to see exactly one request: {all:#?}");
        all.remove(0)
    }

    #[track_caller]
    pub fn wait_for(&self, count: usize) -> Vec<H2Received> {
        eventually(&format!("{count} requests"), || {
            Some(self.requests()).filter(|all| all.len() >= count)
        })
    }

    #[track_caller]
    pub fn wait_cancelled(&self, count: usize) {
        eventually(&format!("{count} cancelled streams"), || {
            (self.requests().iter().filter(|r| r.cancelled).count() >= count).then_some(())
        });
    }
}

impl Drop for H2Upstream {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn serve<S>(
    stream: S,
    number: usize,
    state: Arc<Mutex<State>>,
    release: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // What is no HTTP/2 shows itself as a request that never arrives.
    let stream = Watched { inner: stream, state: state.clone(), frames: Frames::default() };
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let mut streams = tokio::task::JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (index, reply) = note(&state, number, &request);
        let (state, mut release) = (state.clone(), release.clone());
        streams.spawn(async move {
            let update = move |change: &dyn Fn(&mut H2Received)| {
                change(&mut state.lock().expect("the state").received[index]);
            };
            if answer(request, respond, &reply, &update, &mut release).await.is_err() {
                update(&|r| r.cancelled = true);
            }
        });
    }
}

fn note(
    state: &Mutex<State>,
    connection: usize,
    request: &Request<h2::RecvStream>,
) -> (usize, Reply) {
    let mut state = state.lock().expect("the state");
    state.received.push(H2Received {
        connection,
        method: request.method().to_string(),
        path: request.uri().path_and_query().map(ToString::to_string).unwrap_or_default(),
        authority: request.uri().authority().map(ToString::to_string).unwrap_or_default(),
        headers: request.headers().clone(),
        ..H2Received::default()
    });
    let reply = state.script.pop_front().or_else(|| state.afterwards.clone());
    (state.received.len() - 1, reply.unwrap_or_else(|| Reply::status(200)))
}

/// An error where the gateway has reset the stream.
async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    reply: &Reply,
    update: &Update,
    release: &mut watch::Receiver<bool>,
) -> Result<(), h2::Error> {
    let mut body = request.into_body();
    let mut echo = match reply.manner {
        Manner::Echo => Some(respond.send_response(reply.head(), false)?),
        _ => None,
    };
    while let Some(data) = body.data().await {
        let data = data?;
        let _ = body.flow_control().release_capacity(data.len());
        update(&|r| r.body.extend_from_slice(&data));
        if let Some(echo) = &mut echo {
            echo.send_data(data, false)?;
        }
    }
    update(&|r| r.complete = true);
    if let Manner::Reset(reason) = reply.manner {
        respond.send_reset(reason);
        return Ok(());
    }
    if let Some(mut echo) = echo {
        return match reply.trailer_map() {
            Some(trailers) => echo.send_trailers(trailers),
            None => echo.send_data(Bytes::new(), true),
        };
    }
    if reply.manner == Manner::Held {
        release.wait_for(|released| *released).await.ok();
    }
    if reply.manner == Manner::Hang {
        return until_reset(std::future::poll_fn(|cx| respond.poll_reset(cx))).await;
    }
    let trailers = reply.trailer_map();
    let bare = reply.body.is_empty() && trailers.is_none();
    let mut send = respond.send_response(reply.head(), bare)?;
    for (index, piece) in reply.body.iter().enumerate() {
        let last = index + 1 == reply.body.len() && trailers.is_none();
        let goes_on = matches!(reply.manner, Manner::Stall | Manner::Break);
        send.send_data(piece.clone(), last && !goes_on)?;
    }
    match reply.manner {
        Manner::Stall => until_reset(std::future::poll_fn(|cx| send.poll_reset(cx))).await,
        Manner::Break => {
            // What was sent is to arrive first: a reset throws away what waits.
            tokio::time::sleep(Duration::from_millis(50)).await;
            send.send_reset(Reason::INTERNAL_ERROR);
            Ok(())
        }
        _ => trailers.map_or(Ok(()), |trailers| send.send_trailers(trailers)),
    }
}

async fn until_reset(
    reset: impl Future<Output = Result<Reason, h2::Error>>,
) -> Result<(), h2::Error> {
    Err(reset.await?.into())
}

/// A connection whose incoming frames are looked at: the h2 crate answers pings by itself, and tells
/// nothing of them.
struct Watched<S> {
    inner: S,
    state: Arc<Mutex<State>>,
    frames: Frames,
}

/// Where in the stream of frames the next byte belongs.
struct Frames {
    /// Bytes to pass over: the preface, then payloads.
    skip: usize,
    head: Vec<u8>,
}

impl Default for Frames {
    fn default() -> Self {
        Frames { skip: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len(), head: Vec::new() }
    }
}

impl Frames {
    /// The pings that begin in `bytes` and are no answers.
    fn pings(&mut self, mut bytes: &[u8]) -> usize {
        let mut pings = 0;
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let Some((byte, rest)) = bytes.split_first() else { return pings };
            bytes = rest;
            self.head.push(*byte);
            if let [high, middle, low, kind, flags, _, _, _, _] = self.head[..] {
                self.skip = u32::from_be_bytes([0, high, middle, low]) as usize;
                pings += usize::from(kind == 6 && flags & 1 == 0);
                self.head.clear();
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
        let pings = self.frames.pings(&buffer.filled()[before..]);
        self.state.lock().expect("the state").pings += pings;
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
