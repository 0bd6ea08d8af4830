//! A private Redis for a test: its own port, nothing on disk, gone with the value.
//!
//! Only std, tempfile and the ports beside it, so that the unit tests of the script include this file too.

#![allow(dead_code, reason = "each user needs a part of it")]

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ports::Port;

#[allow(clippy::duplicate_mod, reason = "unit tests include this file, and it")]
#[path = "ports.rs"]
mod ports;

const DEADLINE: Duration = Duration::from_secs(10);
/// A process outside the tests may take a port between our finding it and the server's listening on it.
const PORTS_TRIED: usize = 5;

/// A running server; killed on drop.
pub struct Redis {
    program: PathBuf,
    directory: tempfile::TempDir,
    /// Kept while the server is stopped, too.
    port: Port,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Redis {
    /// Starts a server. `None`, said loudly, if the machine has no Redis; in CI that is a failure.
    pub fn start() -> Option<Self> {
        Redis::with(&[])
    }

    /// Starts one that asks for this password.
    pub fn with_password(password: &str) -> Option<Self> {
        Redis::with(&["--requirepass", password])
    }

    /// Starts one that speaks TLS alone, with this certificate and key, both PEM.
    pub fn with_tls(certificate: &str, key: &str) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let [certificate, key] =
            [("cert.pem", certificate), ("key.pem", key)].map(|(name, pem)| {
                let path = directory.path().join(name);
                std::fs::write(&path, pem).expect("a file");
                path.to_string_lossy().into_owned()
            });
        let tls = ["--tls-auth-clients", "no", "--tls-cert-file", &certificate];
        let more = ["--tls-key-file", &key, "--tls-ca-cert-file", &certificate];
        Redis::launch_in(directory, &[&tls[..], &more].concat())
    }

    fn with(arguments: &[&str]) -> Option<Self> {
        Redis::launch_in(tempfile::tempdir().expect("a temporary directory"), arguments)
    }

    fn launch_in(directory: tempfile::TempDir, arguments: &[&str]) -> Option<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        let places = env::split_paths(&path).flat_map(|directory| {
            ["redis-server", "valkey-server"].map(|program| directory.join(program))
        });
        let Some(program) = places.into_iter().find(|program| program.exists()) else {
            let missing = "neither redis-server nor valkey-server is in PATH";
            assert!(env::var("CI").as_deref() != Ok("true"), "{missing}");
            eprintln!("SKIPPED: a test that needs Redis: {missing}");
            return None;
        };
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut server =
            Redis { program, directory, port: Port::reserve(), arguments, child: None };
        for _ in 0..PORTS_TRIED {
            if server.launch() {
                return Some(server);
            }
            server.port = Port::reserve();
        }
        panic!("Redis did not start");
    }

    pub fn url(&self) -> String {
        let scheme = if self.speaks_tls() { "rediss" } else { "redis" };
        format!("{scheme}://{}", self.port.address())
    }

    fn speaks_tls(&self) -> bool {
        self.arguments.iter().any(|argument| argument.starts_with("--tls"))
    }

    pub fn port(&self) -> u16 {
        self.port.number
    }

    /// Ends the server; open connections are cut, and all it knew is gone.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a child of ours");
            child.wait().expect("a child of ours");
        }
    }

    /// Starts the stopped server again, empty, on its old port.
    pub fn restart(&mut self) {
        assert!(self.launch(), "Redis did not start again");
    }

    /// `STOP`: it holds still, and its connections stay open. `CONT`: it goes on.
    pub fn signal(&self, name: &str) {
        let child = self.child.as_ref().expect("a running server");
        let arguments = [format!("-{name}"), child.id().to_string()];
        assert!(Command::new("kill").args(arguments).status().expect("kill").success());
    }

    /// What it answers to a command, simple types and lists of them as lines.
    pub fn command(&self, parts: &[&str]) -> Vec<String> {
        let mut stream = TcpStream::connect(self.port.address()).expect("a connection");
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket option");
        stream.write_all(&packed(parts)).expect("the server reads");
        let mut lines = Vec::new();
        read_reply(&mut BufReader::new(stream), &mut lines).expect("a reply");
        lines
    }

    pub fn keys(&self) -> Vec<String> {
        self.command(&["KEYS", "*"])
    }

    fn launch(&mut self) -> bool {
        let child = Command::new(&self.program)
            .current_dir(self.directory.path())
            .args(["--bind", "127.0.0.1"])
            .args(if self.speaks_tls() { &["--port", "0", "--tls-port"][..] } else { &["--port"] })
            .arg(self.port.number.to_string())
            .args(["--save", "", "--appendonly", "no"])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server is started");
        self.child = Some(child);
        let started = Instant::now();
        while started.elapsed() < DEADLINE {
            let child = self.child.as_mut().expect("just started");
            if child.try_wait().expect("a child of ours").is_some() {
                return false;
            }
            if self.answers() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    /// It answers, if only that it wants a password, or by closing a connection without TLS.
    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(self.port.address()) else { return false };
        let timeout = stream.set_read_timeout(Some(DEADLINE));
        let sent = timeout.and_then(|()| stream.write_all(b"PING\r\n"));
        let answer = sent.and_then(|()| stream.read_exact(&mut [0]));
        answer.is_ok() || self.speaks_tls()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
    }
}

fn packed(parts: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", parts.len());
    for part in parts {
        bytes += &format!("${}\r\n{part}\r\n", part.len());
    }
    bytes.into_bytes()
}

fn read_reply(from: &mut impl BufRead, lines: &mut Vec<String>) -> std::io::Result<()> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let line = line.trim_end();
    let (kind, rest) = line.split_at(line.len().min(1));
    match (kind, rest.parse::<usize>()) {
        ("*", Ok(count)) => (0..count).try_for_each(|_| read_reply(from, lines)),
        ("$", Ok(length)) => {
            let mut bytes = vec![0; length + 2];
            from.read_exact(&mut bytes)?;
            lines.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
            Ok(())
        }
        ("$" | "*", Err(_)) => Ok(()),
        _ => {
            lines.push(rest.to_owned());
            Ok(())
        }
    }
}
