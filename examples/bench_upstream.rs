//! The upstream of `bench/`: one fixed answer, as cheaply as tokio can give it.
//!
//! Every request, whatever it asks, gets the same 200 on a connection that stays open. It knows
//! just enough HTTP/1.1 to find where a request ends: the blank line, then `Content-Length`
//! bytes. What the load generator and the proxy leave of the machine must not go here.

use std::error::Error;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Content-Type: application/json\r\n\
    Content-Length: 27\r\n\
    \r\n\
    {\"message\":\"Hello, World!\"}";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    loop {
        let (connection, _) = listener.accept().await?;
        connection.set_nodelay(true)?;
        // A peer that leaves is no news.
        tokio::spawn(async move { answer(connection).await.ok() });
    }
}

async fn answer(mut connection: TcpStream) -> std::io::Result<()> {
    let mut received = Vec::with_capacity(16 * 1024);
    loop {
        while let Some(length) = request_length(&received) {
            received.drain(..length);
            connection.write_all(ANSWER).await?;
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
