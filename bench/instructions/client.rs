//! Makes one request after the other, and makes sure that each got the right answer.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, StatusCode, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::upstream;

/// Of whichever protocol, one connection.
pub enum Client {
    Http1 { connection: TcpStream, request: Vec<u8>, answer: Answer, received: Vec<u8> },
    Grpc { send: SendRequest<Bytes>, request: Request<()> },
}

/// How the right one begins and ends.
#[derive(Clone, Copy)]
pub struct Answer {
    head: &'static [u8],
    end: &'static [u8],
}

const OK: Answer = Answer { head: b"HTTP/1.1 200 ", end: upstream::BODY };
const REFUSAL: Answer = Answer { head: b"HTTP/1.1 429 ", end: b"}" };
/// A message whose field 1 is "World", framed.
const MESSAGE: Bytes = Bytes::from_static(b"\0\0\0\0\x07\x0a\x05World");

impl Client {
    pub async fn connect(to: SocketAddr, protocol: &str, token: Option<&str>) -> Self {
        let connection = TcpStream::connect(to).await.expect("a listener");
        connection.set_nodelay(true).expect("a socket that is open");
        if protocol == "http1" {
            let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
            let authorization = authorization.unwrap_or_default();
            let request =
                format!("GET /bench/1 HTTP/1.1\r\nHost: gateway.example\r\n{authorization}\r\n");
            let (request, received) = (request.into_bytes(), Vec::with_capacity(4096));
            return Client::Http1 { connection, request, answer: OK, received };
        }
        let (send, connection) = h2::client::handshake(connection).await.expect("HTTP/2");
        tokio::spawn(connection);
        let mut request = Request::post("http://gateway.example/bench/Say")
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        Client::Grpc { send, request: request.body(()).expect("a valid request") }
    }

    /// From now on the right answer is a 429.
    pub fn expect_refusals(&mut self) {
        match self {
            Client::Http1 { answer, .. } => *answer = REFUSAL,
            Client::Grpc { .. } => panic!("a refusal of gRPC is not measured"),
        }
    }

    pub async fn ask(&mut self, times: usize) {
        for _ in 0..times {
            match self {
                Client::Http1 { connection, request, answer, received } => {
                    ask_http1(connection, request, *answer, received).await;
                }
                Client::Grpc { send, request } => ask_grpc(send, request).await,
            }
        }
    }
}

async fn ask_http1(
    connection: &mut TcpStream,
    request: &[u8],
    answer: Answer,
    received: &mut Vec<u8>,
) {
    connection.write_all(request).await.expect("a connection that stays open");
    received.clear();
    while !received.ends_with(answer.end) {
        let read = connection.read_buf(received).await.expect("a connection that stays open");
        assert!(read > 0, "the connection was closed after {}", received.escape_ascii());
    }
    assert!(received.starts_with(answer.head), "{}", received.escape_ascii());
}

async fn ask_grpc(send: &mut SendRequest<Bytes>, request: &Request<()>) {
    let mut ready = send.clone().ready().await.expect("room for a stream");
    let (response, mut upload) = ready.send_request(request.clone(), false).expect("a stream");
    upload.send_data(MESSAGE, true).expect("an open stream");
    let response = response.await.expect("a response");
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body();
    let mut length = 0;
    while let Some(chunk) = body.data().await {
        let chunk = chunk.expect("a message");
        length += chunk.len();
        body.flow_control().release_capacity(chunk.len()).expect("what was received");
    }
    // A refusal is a 200, too, but has no message.
    assert_eq!(length, upstream::MESSAGE.len());
    let trailers = body.trailers().await.expect("an end").expect("trailers");
    assert_eq!(trailers.get(upstream::STATUS).map(|status| status.as_bytes()), Some(&b"0"[..]));
}
