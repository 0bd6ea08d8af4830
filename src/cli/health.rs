//! `portcullis health`: a health check for images without a shell.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

const LIMIT: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The gateway's admin address
    #[arg(long, env = "ADMIN_ADDRESS", default_value = "127.0.0.1:9901")]
    address: SocketAddr,
    /// What to ask for
    #[arg(long, default_value = "/livez")]
    path: String,
}

pub(super) fn health(options: &Options) -> ExitCode {
    match status_of(options) {
        Ok(200) => ExitCode::SUCCESS,
        Ok(status) => {
            eprintln!("portcullis: {} answered {status}", options.path);
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("portcullis: {}: {error}", options.address);
            ExitCode::FAILURE
        }
    }
}

fn status_of(options: &Options) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&options.address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let (path, host) = (&options.path, options.address);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    // `HTTP/1.1 200`: the first twelve bytes of the status line are enough.
    let mut line = [0; 12];
    stream.read_exact(&mut line)?;
    let status = std::str::from_utf8(&line[9..]).ok().and_then(|text| text.parse().ok());
    status.ok_or_else(|| std::io::Error::other("the answer is not HTTP"))
}
