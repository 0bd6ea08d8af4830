//! The two processes of the demo: started on ports that are free, ended when dropped.

use std::fs::{DirBuilder, File};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::Result;

const CONFIGURATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../conf/gateway-service.yaml");
const POLL: Duration = Duration::from_millis(20);
const READY_WITHIN: Duration = Duration::from_secs(20);
const END_WITHIN: Duration = Duration::from_secs(10);

/// The demo upstream. It ends when its standard input closes, with this process at the latest.
pub struct Upstream {
    pub url: String,
    _process: Process,
}

impl Upstream {
    pub fn start() -> Result<Self> {
        let mut command = Command::new(built("demo_upstream")?);
        command.arg("--with-parent").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::spawn(command)?;
        let output = process.child.stdout.take().ok_or("the demo upstream has no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let url = line.trim().strip_prefix("listening on ").ok_or("the demo upstream failed")?;
        Ok(Upstream { url: url.to_owned(), _process: process })
    }
}

/// The gateway under demonstration, with the shipped profile and the built binary.
pub struct Gateway {
    pub url: String,
    pub admin: String,
    process: Process,
    data: Data,
}

impl Gateway {
    pub fn start(upstream: &str) -> Result<Self> {
        let public = SocketAddr::from(([0, 0, 0, 0], port_or_free(port_wanted()?)?));
        let admin = admin_address()?;
        let data = Data::directory()?;
        let log = File::create(data.log())?;
        let mut command = Command::new(built("portcullis")?);
        command
            .args(["run", "-c", CONFIGURATION])
            .env("PORT", public.port().to_string())
            .env("ADMIN_ADDRESS", admin.to_string())
            .env("PORTCULLIS_DATA", data.path())
            .env("CUSTOM_LANG_BASE_URL", upstream)
            .env("JWKS_URL", format!("{upstream}/.well-known/jwks.json"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(Gateway {
            url: format!("http://127.0.0.1:{}", public.port()),
            admin: format!("http://{admin}"),
            process: Process::spawn(command)?,
            data,
        })
    }

    pub fn data(&self) -> &Path {
        self.data.path()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.log()).unwrap_or_default()
    }

    pub async fn wait_until_ready(&mut self, client: &reqwest::Client) -> Result<()> {
        let url = format!("{}/readyz", self.admin);
        let give_up = Instant::now() + READY_WITHIN;
        while Instant::now() < give_up {
            if let Some(status) = self.process.child.try_wait()? {
                return Err(self.ended(status).into());
            }
            if client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(format!("the gateway was not ready within {READY_WITHIN:?}\n{}", self.log()).into())
    }

    /// Returns only if the gateway ends by itself, which it should not.
    pub async fn wait_for_end(&mut self) -> Box<dyn std::error::Error> {
        loop {
            match self.process.child.try_wait() {
                Ok(None) => tokio::time::sleep(10 * POLL).await,
                Ok(Some(status)) => return self.ended(status).into(),
                Err(error) => return error.into(),
            }
        }
    }

    fn ended(&self, status: ExitStatus) -> String {
        format!("the gateway ended ({status})\n{}", self.log())
    }
}

/// A child in a process group of its own: Ctrl-C reaches the demo alone, which then ends its
/// children in order.
struct Process {
    child: Child,
}

impl Process {
    fn spawn(mut command: Command) -> Result<Self> {
        let child = command.process_group(0).spawn().map_err(|error| {
            format!("cannot start {}: {error}", command.get_program().display())
        })?;
        Ok(Process { child })
    }

    /// Asks the child to end. The standard library can only kill; every shell can ask.
    fn terminate(&self) {
        let _ = Command::new("/bin/sh")
            .args(["-c", "kill -TERM \"$0\""])
            .arg(self.child.id().to_string())
            .status();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Once it has been waited for, its id may be another process's.
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        self.terminate();
        let give_up = Instant::now() + END_WITHIN;
        while Instant::now() < give_up {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the embedded store is: PORTCULLIS_DATA, or a directory that is removed in the end.
enum Data {
    Given(PathBuf),
    Temporary(Temporary),
}

impl Data {
    fn directory() -> Result<Self> {
        let Some(given) = std::env::var_os("PORTCULLIS_DATA").filter(|given| !given.is_empty())
        else {
            return Ok(Data::Temporary(Temporary::create()?));
        };
        std::fs::create_dir_all(&given)?;
        Ok(Data::Given(given.into()))
    }

    fn path(&self) -> &Path {
        match self {
            Data::Given(path) => path,
            Data::Temporary(Temporary(path)) => path,
        }
    }

    fn log(&self) -> PathBuf {
        self.path().join("gateway.log")
    }
}

/// A directory of this process, removed with its content when dropped. Not by tempfile: its features
/// would have some of the gateway's dependencies compiled again.
struct Temporary(PathBuf);

impl Temporary {
    fn create() -> Result<Self> {
        let name = format!("portcullis-demo-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        // Fails if it exists, and lets no other user in.
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| format!("cannot create {}: {error}", path.display()))?;
        Ok(Temporary(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A binary beside this one.
fn built(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if !path.exists() {
        return Err(format!("{} is not built; run: make demo", path.display()).into());
    }
    Ok(path)
}

fn port_wanted() -> Result<u16> {
    match std::env::var("PORT") {
        Ok(port) if !port.is_empty() => {
            Ok(port.parse().map_err(|_| format!("PORT: not a port: {port}"))?)
        }
        Ok(_) | Err(_) => Ok(8082),
    }
}

fn admin_address() -> Result<SocketAddr> {
    let wanted = match std::env::var("ADMIN_ADDRESS") {
        Ok(address) if !address.is_empty() => address,
        Ok(_) | Err(_) => "127.0.0.1:9901".to_owned(),
    };
    let address: SocketAddr = wanted
        .parse()
        .map_err(|_| format!("ADMIN_ADDRESS: expected an address and a port: {wanted}"))?;
    Ok(SocketAddr::new(address.ip(), port_or_free(address.port())?))
}

/// `wanted`, unless that port is taken; then one that is free, and a line that says so.
fn port_or_free(wanted: u16) -> Result<u16> {
    if TcpListener::bind(("0.0.0.0", wanted)).is_ok_and(|_| wanted != 0) {
        return Ok(wanted);
    }
    let free = TcpListener::bind("0.0.0.0:0")?.local_addr()?.port();
    if wanted != 0 {
        println!("port {wanted} is taken; using {free}");
    }
    Ok(free)
}
