//! The upstream of `bench/`: one fixed answer, as cheaply as tokio can give it.
//!
//! Every request, whatever it asks, gets the same answer on a connection that stays open: a 200 at
//! once, or the status, after the milliseconds and with as many bytes as the command line says. It knows just enough
//! HTTP/1.1 to find where a request ends: the blank line, then `Content-Length` bytes. What the
//! load generator and the proxy leave of the machine must not go here. Asked for `grpc`, it answers
//! calls over HTTP/2, with prior knowledge: one fixed message, and the status 0 in trailers.
//!
//! ```sh
//! bench_upstream [STATUS [MILLISECONDS [BYTES]]]
//! bench_upstream grpc
//! ```

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const BODY: &str = "{\"message\":\"Hello, World!\"}";
/// A frame of gRPC: not compressed, 15 bytes, in which field 1 is a text of 13.
const MESSAGE: &[u8] = b"\0\0\0\0\x0f\x0a\x0dHello, World!";
const STATUS: HeaderName = HeaderName::from_static("grpc-status");

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).peekable();
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    // A gateway may connect for thousands of clients at once.
    let listener = socket.listen(65_535)?;
    let address = listener.local_addr()?;
    if arguments.next_if(|first| first == "grpc").is_some() {
        println!("listening on http://{address}");
        loop {
            let (connection, _) = listener.accept().await?;
            connection.set_nodelay(true)?;
            tokio::spawn(async move { serve_calls(connection).await.ok() });
        }
    }
    let status: u16 = arguments.next().map_or(Ok(200), |status| status.parse())?;
    let millis = arguments.next().map_or(Ok(0), |millis| millis.parse())?;
    let length: Option<usize> = arguments.next().map(|length| length.parse()).transpose()?;
    let body = length.map_or(BODY.as_bytes().to_vec(), |length| vec![b'x'; length]);
    let head = format!(
        "HTTP/1.1 {status} As Asked\r\nContent-Type: application/json\r\nContent-Length: {}",
        body.len()
    );
    let answer: Arc<[u8]> = [head.as_bytes(), b"\r\n\r\n", &body].concat().into();
    println!("listening on http://{address}");
    loop {
        let (connection, _) = listener.accept().await?;
        connection.set_nodelay(true)?;
        let (answer, delay) = (Arc::clone(&answer), Duration::from_millis(millis));
        // A peer that leaves is no news.
        tokio::spawn(async move { serve(connection, &answer, delay).await.ok() });
    }
}

async fn serve(mut connection: TcpStream, answer: &[u8], delay: Duration) -> std::io::Result<()> {
    let mut received = Vec::with_capacity(16 * 1024);
    loop {
        while let Some(length) = request_length(&received) {
            received.drain(..length);
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            connection.write_all(answer).await?;
        }
        if connection.read_buf(&mut received).await? == 0 {
            return Ok(());
        }
    }
}

/// The length of the first request in `received`, if it is there to its end.
fn request_length(received: &[u8]) -> Option<usize> {
    let head = received.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let length = head + content_length(&received[..head]);
    (received.len() >= length).then_some(length)
}

fn content_length(head: &[u8]) -> usize {
    const NAME: &[u8] = b"content-length:";
    head.split(|&byte| byte == b'\n')
        .find(|line| line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME))
        .and_then(|line| std::str::from_utf8(&line[NAME.len()..]).ok()?.trim().parse().ok())
        .unwrap_or(0)
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
    head.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    let mut answer = respond.send_response(head, false)?;
    answer.send_data(Bytes::from_static(MESSAGE), false)?;
    answer.send_trailers(HeaderMap::from_iter([(STATUS, HeaderValue::from_static("0"))]))
}
