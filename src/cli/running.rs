//! A request to the admin listener of a running gateway, for the commands that ask it something.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use crate::config::admin::Admin;
use crate::files::text::text_of;

const LIMIT: Duration = Duration::from_secs(2);
/// The most that is read of a response.
const MOST: u64 = 16 * 1024 * 1024;
/// Holds the token, so that it stands in no list of processes.
const TOKEN: &str = "ADMIN_TOKEN";

/// Where the running gateway is, and what lets this command in.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// The gateway's admin address; default: `admin.address` of the configuration, else 127.0.0.1:9901
    #[arg(long, env = "ADMIN_ADDRESS", value_name = "ADDRESS", value_parser = address)]
    address: Option<Reach>,
    /// The gateway's admin socket; goes before the address
    #[arg(long, env = "ADMIN_SOCKET", value_name = "PATH")]
    socket: Option<PathBuf>,
    /// A file with the admin token. Default: the variable ADMIN_TOKEN, else `admin.token` of the
    /// configuration
    #[arg(long, env = "ADMIN_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// `--address`, which the variable of a gateway without an address sets to `off`.
#[derive(Debug, Clone, Copy)]
enum Reach {
    At(SocketAddr),
    Off,
}

fn address(text: &str) -> Result<Reach, String> {
    match text {
        "off" => Ok(Reach::Off),
        text => text
            .parse()
            .map(Reach::At)
            .map_err(|_| "expected an IP address and a port, such as 127.0.0.1:9901".to_owned()),
    }
}

/// A gateway that can be asked.
pub(super) struct Running {
    at: At,
    token: Option<String>,
}

enum At {
    Address(SocketAddr),
    Socket(PathBuf),
}

/// What it says.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Place {
    /// Whether the command line says where the gateway is.
    pub(super) fn is_named(&self) -> bool {
        self.socket.is_some() || matches!(self.address, Some(Reach::At(_)))
    }

    /// What the command line does not say is taken from `config`, if there is one.
    pub(super) fn running(&self, config: Option<&Admin>) -> Result<Running, String> {
        let configured = || match config {
            Some(Admin { socket: Some(socket), .. }) => At::Socket(socket.clone()),
            Some(Admin { address: Some(address), .. }) => At::Address(*address),
            Some(_) | None => At::Address(SocketAddr::from(([127, 0, 0, 1], 9901))),
        };
        let at = match (&self.socket, self.address) {
            (Some(socket), _) => At::Socket(socket.clone()),
            (None, Some(Reach::At(address))) => At::Address(address),
            (None, Some(Reach::Off) | None) => configured(),
        };
        let token = match (&self.token_file, std::env::var(TOKEN)) {
            (Some(file), _) => Some(in_file(file)?),
            (None, Ok(token)) if !token.is_empty() => Some(token),
            (None, Ok(_) | Err(_)) => {
                let first = config.and_then(|admin| admin.token.first());
                first.map(|token| token.expose().to_owned())
            }
        };
        if token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err("the admin token is not visible ASCII without spaces".to_owned());
        }
        Ok(Running { at, token })
    }
}

/// The token in `file`, without a byte order mark and without white space at its ends.
fn in_file(file: &Path) -> Result<String, String> {
    let name = file.display();
    let bytes = std::fs::read(file).map_err(|error| format!("{name} cannot be read: {error}"))?;
    let text = text_of(&bytes).map_err(|error| format!("{name} {}", error.reason))?;
    Ok(text.trim().to_owned())
}

impl Running {
    /// What it is shown to be let in.
    pub(super) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Sends a request and reads the response. `target` is a path, encoded, with its query.
    pub(super) fn ask(&self, method: &str, target: &str) -> Result<Answer, String> {
        let answer = match &self.at {
            At::Address(address) => TcpStream::connect_timeout(address, LIMIT).and_then(|stream| {
                stream.set_read_timeout(Some(LIMIT))?;
                stream.set_write_timeout(Some(LIMIT))?;
                self.exchange(stream, &address.to_string(), method, target)
            }),
            At::Socket(path) => UnixStream::connect(path).and_then(|stream| {
                stream.set_read_timeout(Some(LIMIT))?;
                stream.set_write_timeout(Some(LIMIT))?;
                self.exchange(stream, "localhost", method, target)
            }),
        };
        let answer =
            answer.map_err(|error| format!("the gateway at {self} cannot be asked: {error}"))?;
        match answer.status {
            401 => Err(format!(
                "the gateway at {self} wants another token: set {TOKEN}, or --token-file"
            )),
            _ => Ok(answer),
        }
    }

    fn exchange(
        &self,
        mut stream: impl Read + Write,
        host: &str,
        method: &str,
        target: &str,
    ) -> io::Result<Answer> {
        let token = self.token.as_deref();
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
        // HTTP/1.0: the body ends with the connection.
        write!(
            stream,
            "{method} {target} HTTP/1.0\r\nHost: {host}\r\n{}Content-Length: 0\r\n\r\n",
            token.unwrap_or_default()
        )?;
        let mut answer = Vec::new();
        stream.take(MOST).read_to_end(&mut answer)?;
        let no_http = || io::Error::other("the answer is not HTTP");
        let head = memchr::memmem::find(&answer, b"\r\n\r\n").ok_or_else(no_http)?;
        // `HTTP/1.0 200`
        let status = answer.get(9..12).and_then(|status| std::str::from_utf8(status).ok());
        let status = status.and_then(|status| status.parse().ok()).ok_or_else(no_http)?;
        Ok(Answer { status, body: answer.split_off(head + 4) })
    }
}

/// Where it is.
impl std::fmt::Display for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.at {
            At::Address(address) => address.fmt(f),
            At::Socket(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `text` as a part of a path or a query.
pub(super) fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_token() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        std::fs::write(&path, "\u{feff}hunter2\r\n").expect("written");
        assert_eq!(in_file(&path), Ok("hunter2".to_owned()));
    }
}
