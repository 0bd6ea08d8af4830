//! Tells the service manager when the gateway serves, reloads and stops, by the protocol of `sd_notify(3)`:
//! systemd's `Type=notify`. Without `NOTIFY_SOCKET` it tells nothing.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How long a message may wait for a manager that does not read. Losing one is better than stopping here.
const PATIENCE: Duration = Duration::from_secs(1);

/// The socket of the service manager.
#[derive(Debug, Default)]
pub struct Notify(Option<UnixDatagram>);

impl Notify {
    /// As the environment says.
    pub fn from_environment() -> Self {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Notify::default() };
        match connect(name.as_bytes()) {
            Ok(socket) => Notify(Some(socket)),
            Err(error) => {
                log::error!(
                    "NOTIFY_SOCKET: {} cannot be used: {error}; the service manager is told nothing",
                    name.display()
                );
                Notify::default()
            }
        }
    }

    /// Every listener accepts connections.
    pub fn ready(&self, generation: u64) {
        self.tell(&format!("READY=1\nSTATUS=serving, generation {generation}"));
    }

    /// The same, and the service's main process is this one from now on: it has taken over from the one that
    /// was.
    pub fn took_over(&self, generation: u64) {
        let process = std::process::id();
        self.tell(&format!("MAINPID={process}\nREADY=1\nSTATUS=serving, generation {generation}"));
    }

    /// A reload begins. [`Self::reloaded`] or [`Self::refused`] follows.
    pub fn reloading(&self) {
        // Lets the manager tell this reload from one before its own request.
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reloading"));
    }

    /// The reload took the files.
    pub fn reloaded(&self, generation: u64) {
        self.ready(generation);
    }

    /// The reload refused the files.
    pub fn refused(&self, generation: u64) {
        self.tell(&format!(
            "READY=1\nSTATUS=serving, generation {generation}; the last reload was refused, see the log"
        ));
    }

    /// The drain begins, and takes at most `longest`: the manager does not kill the gateway before that,
    /// even if its own limit is shorter.
    pub fn stopping(&self, longest: Duration) {
        let micros = longest.as_micros();
        self.tell(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={micros}\nSTATUS=draining"));
    }

    fn tell(&self, message: &str) {
        let Some(socket) = &self.0 else { return };
        if let Err(error) = socket.send(message.as_bytes()) {
            log::warn!(
                "the service manager cannot be told `{}`: {error}",
                message.replace('\n', " ")
            );
        }
    }
}

/// `name` is a path or, after an `@`, an abstract name.
fn connect(name: &[u8]) -> io::Result<UnixDatagram> {
    let address = match name {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
        _ => return Err(io::Error::other("neither a path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}
