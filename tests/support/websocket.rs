//! WebSockets, as far as their handshake: what follows it are bytes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::client::Call;

/// Agrees to every upgrade, then says everything back that it is told; what it was sent first, the
/// heads, arrive at the receiver.
pub fn echo() -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let (heads, received) = channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let heads = heads.clone();
            std::thread::spawn(move || {
                let head = read_head(&mut stream);
                let agreed = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";
                let _ = stream.write_all(agreed.as_bytes());
                // The test may not want to know.
                let _ = heads.send(head);
                let mut buffer = [0; 1024];
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..read]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, received)
}

/// The request that opens one.
pub fn handshake(path: &str) -> Call {
    Call::new(&format!("GET {path}"))
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
}

/// Opens one that [`echo`] answers. One in some hundred ends with its 101, which docs/limitations.md states: it is
/// opened again.
#[track_caller]
pub fn open(address: SocketAddr, path: &str) -> TcpStream {
    for _ in 0..3 {
        let mut stream = agreed(address, path);
        if echoes(&mut stream, "hello") {
            return stream;
        }
    }
    panic!("no WebSocket stays open");
}

#[track_caller]
fn agreed(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("an option");
    stream.write_all(&handshake(path).bytes()).expect("a handshake");
    let head = read_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    stream
}

/// Whether what is said comes back.
pub fn echoes(stream: &mut TcpStream, text: &str) -> bool {
    let mut heard = vec![0; text.len()];
    let said = stream.write_all(text.as_bytes());
    said.and_then(|()| stream.read_exact(&mut heard)).is_ok() && heard == text.as_bytes()
}

/// A head, byte by byte, so that nothing behind it is taken.
pub fn read_head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("text")
}
