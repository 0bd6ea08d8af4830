//! The clients of `bench/resumption.sh`: each visits a gateway over TLS, comes back, and comes back once
//! more after a reload; how many take up their sessions again, and what a visit costs the gateway.
//!
//! A visit is a connection with one request. What it costs is the processor time of the gateway's
//! process, as the kernel counts it.
//!
//! ```sh
//! returning_clients ADDRESS PLAIN ADMIN PID FOLDER CLIENTS     # the folder holds ca.pem
//! ```

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Visits at a time.
const AT_ONCE: usize = 16;
/// Before anything is measured.
const WARM_UP: usize = 500;
/// What the kernel counts processor time in, for every process on Linux.
const MICROS_PER_TICK: f64 = 10_000.0;
/// Of clients that return.
const TO_REACH: f64 = 0.95;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [address, plain, admin, pid, folder, clients] => {
            let gateway = Gateway { address, plain, admin, pid };
            measure(&gateway, Path::new(folder), clients.parse()?).await
        }
        _ => Err("returning_clients ADDRESS PLAIN ADMIN PID FOLDER CLIENTS".into()),
    }
}

/// Addresses, and the process.
struct Gateway<'a> {
    address: &'a str,
    plain: &'a str,
    admin: &'a str,
    pid: &'a str,
}

/// `None`: without TLS.
type Client = Option<Arc<ClientConfig>>;

async fn measure(gateway: &Gateway<'_>, folder: &Path, count: usize) -> Result<()> {
    println!("| TLS | visit | resumed | CPU µs/visit | more than without TLS |");
    println!("|---|---|---|---|---|");
    let anonymous: Vec<Client> = vec![None; count];
    gateway.visits(&anonymous[..WARM_UP.min(count)]).await?;
    let (_, plain) = gateway.visits(&anonymous).await?;
    println!("| none | | - | {plain:.0} | - |");
    let mut missed = Vec::new();
    for (name, version) in [("1.3", &TLS13), ("1.2", &TLS12)] {
        gateway.visits(&clients(folder, version, WARM_UP)?).await?;
        let clients = clients(folder, version, count)?;
        for visit in ["first", "second", "after a reload"] {
            if visit == "after a reload" {
                gateway.reload().await?;
            }
            let (resumed, cost) = gateway.visits(&clients).await?;
            let share = resumed as f64 / count as f64;
            let more = cost - plain;
            println!("| {name} | {visit} | {:.1} % | {cost:.0} | {more:.0} |", share * 100.0);
            if visit != "first" && share < TO_REACH {
                missed.push(format!("{name}, {visit}: {resumed} of {count} resumed"));
            }
        }
    }
    if missed.is_empty() { Ok(()) } else { Err(missed.join("; ").into()) }
}

/// Clients that trust the folder's authority, each with a memory of its own.
fn clients(
    folder: &Path,
    version: &'static SupportedProtocolVersion,
    count: usize,
) -> Result<Vec<Client>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.pem"))?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = || {
        let mut config = config.clone();
        config.resumption = Resumption::in_memory_sessions(4);
        Some(Arc::new(config))
    };
    Ok(std::iter::repeat_with(client).take(count).collect())
}

impl Gateway<'_> {
    /// One by each of the clients: how many of them took up a session again, and the processor time
    /// that each took, in microseconds.
    async fn visits(&self, clients: &[Client]) -> Result<(usize, f64)> {
        let before = self.cpu()?;
        let mut tasks = Vec::new();
        for some in clients.chunks(clients.len().div_ceil(AT_ONCE)) {
            let (some, address, plain) =
                (some.to_vec(), self.address.to_owned(), self.plain.to_owned());
            tasks.push(tokio::spawn(async move {
                let mut resumed = 0;
                for client in some {
                    resumed += usize::from(visit(&client, &address, &plain).await?);
                }
                Result::Ok(resumed)
            }));
        }
        let mut resumed = 0;
        for task in tasks {
            resumed += task.await??;
        }
        Ok((resumed, (self.cpu()? - before) / clients.len() as f64))
    }

    /// `utime` and `stime` of proc(5), the 12th and 13th fields after the command.
    fn cpu(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let (_, fields) = stat.rsplit_once(')').ok_or("a process without a command")?;
        let times = fields.split_whitespace().skip(11).take(2);
        let ticks: Vec<u64> = times.map(str::parse).collect::<std::result::Result<_, _>>()?;
        Ok(ticks.iter().sum::<u64>() as f64 * MICROS_PER_TICK)
    }

    async fn reload(&self) -> Result<()> {
        let before = self.generation().await?;
        Command::new("kill").args(["-HUP", self.pid]).status()?;
        for _ in 0..1000 {
            if self.generation().await? > before {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err("the gateway does not reload".into())
    }

    async fn generation(&self) -> Result<u64> {
        let answer = ask(TcpStream::connect(self.admin).await?, self.admin, "/metrics").await?.1;
        let line = answer.lines().find_map(|l| l.strip_prefix("portcullis_config_generation "));
        Ok(line.ok_or("no generation")?.trim().parse()?)
    }
}

/// Whether it took up a session again.
async fn visit(client: &Client, address: &str, plain: &str) -> Result<bool> {
    let Some(config) = client else {
        ask(TcpStream::connect(plain).await?, "localhost", "/").await?;
        return Ok(false);
    };
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost")?;
    let stream = TlsConnector::from(config.clone()).connect(name, stream).await?;
    let (stream, _) = ask(stream, "localhost", "/").await?;
    Ok(stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed))
}

/// One request, and its response to the end of the connection: tickets come before it.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    host: &str,
    path: &str,
) -> Result<(S, String)> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    match answer.starts_with("HTTP/1.1 200") {
        true => Ok((stream, answer)),
        false => Err(answer.into()),
    }
}
