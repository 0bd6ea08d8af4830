//! The clients of `bench/connections.sh`: many connections at once, from one thread.
//!
//! ```sh
//! crowd ADDRESS silent COUNT          # connect, and say nothing
//! crowd ADDRESS kept COUNT            # one request each, then silence
//! crowd ADDRESS preface COUNT         # begin to speak HTTP/2, then silence
//! crowd ADDRESS half COUNT            # half the head of a request
//! crowd ADDRESS slow COUNT            # read an answer, 64 KiB a second
//! crowd ADDRESS busy COUNT ROUNDS     # in each round one request of every client, all at once
//! ```
//!
//! It says `open` once all have done their part. Except for `busy`, they stay until its input ends.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

const REQUEST: &[u8] = b"GET /bench/1 HTTP/1.1\r\nHost: bench\r\n\r\n";
const HALF: &[u8] = b"GET /bench/1 HTTP/1.1\r\nHost: bench\r\nUser-Agent: cro";
/// The preface of HTTP/2, and settings as the client's defaults are.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// What a slow client reads at a time.
const SIP: usize = 64 * 1024;
const PARTY: usize = 500;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, kind, count, rest @ ..] = &arguments[..] else {
        return Err("crowd ADDRESS KIND COUNT [ROUNDS]".into());
    };
    let (address, count) = (address.parse::<SocketAddr>()?, count.parse::<usize>()?);
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        clients.push(TcpStream::connect(address)?);
    }
    match kind.as_str() {
        "silent" => {}
        // In parties: what many requests at once need is not theirs.
        "kept" => clients.chunks_mut(PARTY).try_for_each(round)?,
        "preface" => {
            say(&mut clients, PREFACE)?;
            // Its settings, as a sign that it has understood.
            clients.iter_mut().try_for_each(|client| client.read_exact(&mut [0; 9]))?;
        }
        "half" => say(&mut clients, HALF)?,
        "slow" => say(&mut clients, REQUEST)?,
        "busy" => {
            let rounds = rest.first().ok_or("how many rounds?")?.parse::<usize>()?;
            for _ in 0..rounds {
                round(&mut clients)?;
            }
            println!("open");
            return Ok(());
        }
        other => return Err(format!("there is no kind `{other}`").into()),
    }
    println!("open");
    stay(&mut clients, kind == "slow")?;
    Ok(())
}

fn say(clients: &mut [TcpStream], words: &[u8]) -> std::io::Result<()> {
    clients.iter_mut().try_for_each(|client| client.write_all(words))
}

/// All ask before the first of them reads.
fn round(clients: &mut [TcpStream]) -> Result<(), Box<dyn Error>> {
    say(clients, REQUEST)?;
    clients.iter_mut().try_for_each(receive)
}

/// One answer that is framed by its length.
fn receive(client: &mut TcpStream) -> Result<(), Box<dyn Error>> {
    let (mut received, mut room) = (Vec::new(), [0; 4096]);
    loop {
        let read = client.read(&mut room)?;
        if read == 0 {
            return Err("closed before the end of an answer".into());
        }
        received.extend_from_slice(&room[..read]);
        let Some(end) = received.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&received[..end])?.to_ascii_lowercase();
        if !head.starts_with("http/1.1 200 ") {
            return Err(head.into());
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.ok_or("no length")?.trim().parse()?;
        if received.len() >= end + 4 + length {
            return Ok(());
        }
    }
}

/// Until the end of the input.
fn stay(clients: &mut [TcpStream], sip: bool) -> std::io::Result<()> {
    let (stays, ends) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        // Whatever its end looks like.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        drop(stays);
    });
    let mut room = vec![0; SIP];
    while let Err(RecvTimeoutError::Timeout) = ends.recv_timeout(Duration::from_secs(1)) {
        for client in clients.iter_mut().filter(|_| sip) {
            let _read = client.read(&mut room)?;
        }
    }
    Ok(())
}
