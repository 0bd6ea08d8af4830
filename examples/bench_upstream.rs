//! The upstream of `bench/`: one fixed answer, as cheaply as tokio can give it.
//!
//! Every request, whatever it asks, gets the same answer on a connection that stays open: a 200 at
//! once, or the status and after the milliseconds of the command line. It knows just enough
//! HTTP/1.1 to find where a request ends: the blank line, then `Content-Length` bytes. What the
//! load generator and the proxy leave of the machine must not go here.
//!
//! ```sh
//! bench_upstream [STATUS [MILLISECONDS]]
//! ```

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const BODY: &str = "{\"message\":\"Hello, World!\"}";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let status: u16 = arguments.next().map_or(Ok(200), |status| status.parse())?;
    let millis = arguments.next().map_or(Ok(0), |millis| millis.parse())?;
    let head = format!(
        "HTTP/1.1 {status} As Asked\r\nContent-Type: application/json\r\nContent-Length: {}",
        BODY.len()
    );
    let answer: Arc<[u8]> = format!("{head}\r\n\r\n{BODY}").into_bytes().into();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
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
