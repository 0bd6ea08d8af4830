//! One fixed answer, for as few instructions as tokio and h2 can give it.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub const BODY: &[u8] = b"{\"message\":\"Hello, World!\"}";
/// Field 1 is a text of 13 bytes.
pub const MESSAGE: &[u8] = b"\0\0\0\0\x0f\x0a\x0dHello, World!";
pub const STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Where it listens.
pub async fn start(protocol: &str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ";
    let answer = [head.as_bytes(), BODY.len().to_string().as_bytes(), b"\r\n\r\n", BODY].concat();
    let answer: &'static [u8] = answer.leak();
    let http1 = protocol == "http1";
    tokio::spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.expect("a connection");
            connection.set_nodelay(true).expect("a socket that is open");
            if http1 {
                tokio::spawn(serve(connection, answer));
            } else {
                tokio::spawn(async move { serve_calls(connection).await.ok() });
            }
        }
    });
    address
}

/// Requests have no body: each ends with its head.
async fn serve(mut connection: TcpStream, answer: &[u8]) {
    let mut received = Vec::with_capacity(4096);
    while connection.read_buf(&mut received).await.is_ok_and(|read| read > 0) {
        if received.ends_with(b"\r\n\r\n") {
            received.clear();
            connection.write_all(answer).await.expect("a proxy that listens");
        }
    }
}

async fn serve_calls(connection: TcpStream) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(connection).await?;
    while let Some(call) = connection.accept().await {
        let (request, respond) = call?;
        tokio::spawn(async move { answer_call(request.into_body(), respond).await.ok() });
    }
    Ok(())
}

async fn answer_call(
    mut request: RecvStream,
    mut respond: SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    while let Some(chunk) = request.data().await {
        request.flow_control().release_capacity(chunk?.len())?;
    }
    let mut head = Response::new(());
    let kind = HeaderValue::from_static("application/grpc");
    head.headers_mut().insert(header::CONTENT_TYPE, kind);
    let mut answer = respond.send_response(head, false)?;
    answer.send_data(Bytes::from_static(MESSAGE), false)?;
    answer.send_trailers(HeaderMap::from_iter([(STATUS, HeaderValue::from_static("0"))]))
}
