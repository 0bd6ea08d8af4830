//! One request over HTTP/2, as Pingora's request path sees it.
//!
//! Wraps the stream and obeys a [`super::guard::Guard`], as [`super::http1::GuardedIo`] does for an
//! HTTP/1 connection: nothing else wakes a request that waits for its upstream while its stream is
//! silent. It also ends a response without a body in its head; the request path would send an empty
//! frame after it, and to HEAD even a full one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use pingora_core::Result;
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::HttpTask;
use pingora_core::protocols::http::custom::CustomMessageWrite;
use pingora_core::protocols::http::custom::server::Session;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_http::{RequestHeader, ResponseHeader};

use crate::proxy::downstream::connection::Connection;
use crate::proxy::downstream::guard::Guard;
use crate::proxy::downstream::head::Fault;
use crate::proxy::downstream::http2_stream::H2Stream;
use crate::proxy::downstream::http2_timers::{let_go, read_in_time, unless_alone, written_in_time};
use crate::proxy::downstream::legible::Legible;

/// A stream that obeys its guard.
pub struct GuardedStream {
    inner: H2Stream,
    connection: Arc<Connection>,
    /// The request is HEAD: no response to it has a body.
    head_only: bool,
    /// A head that is held back by order of the request path.
    held: Option<HttpTask>,
}

impl GuardedStream {
    /// `connection` is that of this stream alone, with its guard and orders.
    pub fn new(mut inner: H2Stream, connection: Arc<Connection>) -> Self {
        let head_only = inner.req_header().method == Method::HEAD;
        if let Some(fault) = inner.fault() {
            refuse(inner.req_header_mut(), &connection.guard, fault);
        }
        GuardedStream { inner, connection, head_only, held: None }
    }

    /// Whether to hold a head back; true once per order.
    fn shall_hold(&self) -> bool {
        let orders = self.connection.orders.as_ref();
        orders.is_some_and(|orders| orders.hold_head.swap(false, Ordering::Relaxed))
    }

    fn replaces_body(&self) -> bool {
        let orders = self.connection.orders.as_ref();
        orders.is_some_and(|orders| orders.replace_body.load(Ordering::Relaxed))
    }

    fn ordered_end(&self) -> Option<&HeaderMap> {
        self.connection.orders.as_ref()?.end()
    }

    /// Puts a held head before `tasks`. If `tasks` are only a head that must be held, keeps it and
    /// returns none.
    fn released(&mut self, mut tasks: Vec<HttpTask>) -> Vec<HttpTask> {
        let begins = matches!(tasks.first(), Some(HttpTask::Header(..)));
        // A held head that another head follows belongs to an abandoned attempt.
        let held = self.held.take().filter(|_| !begins);
        let alone = begins && tasks.len() == 1 && !tasks[0].is_end();
        if alone && self.shall_hold() {
            self.held = tasks.pop();
        } else if let Some(head) = held {
            tasks.insert(0, head);
        }
        tasks
    }

    /// Whether the response ends with this head.
    fn ends_with(&self, head: &ResponseHeader) -> bool {
        if head.status.is_informational() {
            return false;
        }
        self.head_only
            || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || head.headers.get(CONTENT_LENGTH).is_some_and(|length| length == "0")
    }

    /// `task`, without a body for HEAD, and with the trailers that were ordered. A response whose
    /// head was `withheld` from the client is dropped.
    fn adjusted(&self, task: HttpTask, withheld: bool) -> HttpTask {
        match task {
            HttpTask::Header(head, end) => {
                let end = end || self.ends_with(&head);
                HttpTask::Header(head, end)
            }
            HttpTask::Body(None, true) | HttpTask::Done if self.ordered_end().is_some() => {
                HttpTask::Trailer(self.ordered_end().cloned().map(Box::new))
            }
            HttpTask::Body(_, end) if self.head_only => HttpTask::Body(None, end),
            HttpTask::Trailer(_) if self.head_only || withheld => HttpTask::Done,
            other => other,
        }
    }
}

/// Makes the request path refuse the request with this `head`, because of its `fault`.
fn refuse(head: &mut RequestHeader, guard: &Guard, fault: Fault) {
    if fault != Fault::Connect {
        return guard.set_stream_fault(fault);
    }
    // Pingora would refuse this method itself, without a body, before the gateway sees the request.
    let authority = head.uri.authority();
    let host = authority.and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    guard.set_fault(fault, Legible { method: Some(Method::CONNECT), path: None, host });
    head.set_method(Method::POST);
}

/// Counts what has come of the request's body.
fn passed(guard: &Guard, read: &Result<Option<Bytes>>) {
    if let Ok(Some(bytes)) = read {
        guard.pace.pass(bytes.len());
    }
}

#[async_trait]
impl Session for GuardedStream {
    fn req_header(&self) -> &RequestHeader {
        self.inner.req_header()
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        self.inner.req_header_mut()
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        let GuardedStream { inner, connection, .. } = self;
        let read = read_in_time(&connection.guard, true, inner.read_body_bytes()).await;
        passed(&connection.guard, &read);
        read
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        let GuardedStream { inner, connection, .. } = self;
        let of_body = !no_body_expected && !inner.is_body_done();
        let read = inner.read_body_or_idle(no_body_expected);
        let read = read_in_time(&connection.guard, of_body, read).await;
        passed(&connection.guard, &read);
        read
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        let GuardedStream { inner, connection, .. } = self;
        read_in_time(&connection.guard, true, inner.drain_request_body()).await
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        let end = end || self.ends_with(&head);
        self.held = None;
        let_go(&self.connection.guard).await;
        let written = self.inner.write_response_header(head, end);
        unless_alone(&self.connection.guard, written, ())
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.write_response_header(Box::new(head.clone()), end).await
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        if self.head_only {
            return Ok(());
        }
        let GuardedStream { inner, connection, .. } = self;
        let_go(&connection.guard).await;
        let written = written_in_time(&connection.guard, inner.write_body(data, end)).await;
        unless_alone(&connection.guard, written, ())
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        let_go(&self.connection.guard).await;
        let written = self.inner.write_trailers(trailers);
        unless_alone(&self.connection.guard, written, ())
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let tasks = self.released(tasks);
        let begins = |task: &HttpTask| matches!(task, HttpTask::Header(head, _) if !head.status.is_informational());
        let withheld = self.inner.response_written().is_none() && !tasks.iter().any(begins);
        let adjusted = |task| self.adjusted(task, withheld);
        let tasks: Vec<_> = tasks.into_iter().map(adjusted).collect();
        let end = tasks.last().is_some_and(HttpTask::is_end);
        let GuardedStream { inner, connection, .. } = self;
        let_go(&connection.guard).await;
        let work = inner.response_duplex_vec(tasks);
        let written = written_in_time(&connection.guard, work).await;
        unless_alone(&connection.guard, written, end)
    }

    async fn finish(&mut self) -> Result<()> {
        if let Some(HttpTask::Header(head, end)) = self.held.take() {
            self.inner.write_response_header(head, end)?;
        }
        let_go(&self.connection.guard).await;
        let finished = self.inner.finish();
        unless_alone(&self.connection.guard, finished, ())
    }

    async fn shutdown(&mut self, _: u32, _: &str) {
        self.inner.shutdown();
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.inner.response_written()
    }

    fn is_body_done(&mut self) -> bool {
        self.inner.is_body_done()
    }

    fn is_body_empty(&mut self) -> bool {
        !self.replaces_body() && self.inner.is_body_empty()
    }

    fn body_bytes_sent(&self) -> usize {
        self.inner.body_bytes_sent()
    }

    fn body_bytes_read(&self) -> usize {
        self.inner.body_bytes_read()
    }

    fn enable_retry_buffering(&mut self) {
        if !self.replaces_body() {
            self.inner.enable_retry_buffering();
        }
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.inner.retry_buffer_truncated()
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        // A placeholder for the body already read; the request body filter replaces it.
        let stand_in = || Some(Bytes::from_static(b"\0"));
        if self.replaces_body() { stand_in() } else { self.inner.get_retry_buffer() }
    }

    fn request_summary(&self) -> String {
        self.inner.request_summary()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.inner.pseudo_raw_h1_request_header()
    }

    fn digest(&self) -> Option<&Digest> {
        Some(self.inner.digest())
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.inner.digest_mut()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.digest()?.socket_digest.as_ref()?.peer_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.digest()?.socket_digest.as_ref()?.local_addr()
    }

    // The guard bounds reads and writes; there are no other timeouts.

    fn set_read_timeout(&mut self, _: Option<Duration>) {}

    fn get_read_timeout(&self) -> Option<Duration> {
        None
    }

    fn set_write_timeout(&mut self, _: Option<Duration>) {}

    fn get_write_timeout(&self) -> Option<Duration> {
        None
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.inner.set_total_drain_timeout(timeout);
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.inner.get_total_drain_timeout()
    }

    // Custom messages beside the body: HTTP/2 has none.

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _: Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}
