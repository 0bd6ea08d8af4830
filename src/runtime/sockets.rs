//! The sockets that clients connect to: inherited from what started or preceded this process, or
//! bound by itself.
//!
//! A socket has two owners: what accepts from it, and this table, which can hand it on. It closes only
//! when both have let go of it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::net::TcpSocket;

/// Connections that wait to be accepted; the kernel may allow fewer.
const BACKLOG: u32 = 65_535;
/// Bytes that the system takes of a response before it has sent those before them.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 128 * 1024;

/// Where a socket listens, as configured.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Name {
    /// TCP.
    Address(SocketAddr),
    /// A Unix socket.
    Path(PathBuf),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Address(address) => address.fmt(f),
            Name::Path(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Who removes the file of a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum File {
    /// This process, at its end; or the one that it hands the socket on to.
    Own,
    /// The service manager, which has made it. There is none for TCP either.
    NotOwn,
}

/// The listening sockets of this process, by the address as configured.
#[derive(Debug, Default)]
pub struct Sockets {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// Not used yet.
    inherited: BTreeMap<Name, (OwnedFd, File)>,
    /// Connections are accepted from them.
    open: BTreeMap<Name, (OwnedFd, File)>,
}

impl Sockets {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Each change is one insertion or removal.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a socket that another process has bound, until [`Self::listen`] or
    /// [`Self::listen_at`] is asked for its name.
    pub fn inherit(&self, name: Name, socket: OwnedFd, file: File) {
        self.table().inherited.insert(name, (socket, file));
    }

    /// Closes the inherited sockets that are not among `wanted`, and returns their names.
    pub fn keep_only(&self, wanted: &[Name]) -> Vec<Name> {
        let mut table = self.table();
        let closed = |name: &&Name| !wanted.contains(name);
        let names: Vec<Name> = table.inherited.keys().filter(closed).cloned().collect();
        table.inherited.retain(|name, _| wanted.contains(name));
        names
    }

    /// Whether the socket has been inherited and is not used yet.
    pub fn has_inherited(&self, name: &Name) -> bool {
        self.table().inherited.contains_key(name)
    }

    /// Checks that no other process listens on `address`, unless its socket was inherited.
    ///
    /// # Errors
    /// The error of binding the address.
    pub fn check_free(&self, address: SocketAddr) -> io::Result<()> {
        if self.has_inherited(&Name::Address(address)) {
            return Ok(());
        }
        TcpListener::bind(address).map(drop)
    }

    /// The socket for `address`: the inherited one if there is one, else a new one. Must be called
    /// inside a runtime.
    ///
    /// # Errors
    /// The error of the system, such as that the address is in use.
    pub fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let name = Name::Address(address);
        let inherited = self.table().inherited.remove(&name);
        let inherited = inherited.map(|(socket, _)| TcpListener::from(socket));
        let socket = inherited.map_or_else(|| bind(address), Ok)?;
        prepare(&socket)?;
        let kept = socket.try_clone()?;
        self.table().open.insert(name, (kept.into(), File::NotOwn));
        Ok(socket)
    }

    /// Sockets for all of `addresses`, or for none of them. Must be called inside a runtime.
    ///
    /// # Errors
    /// Each address for which there is none, with the error of the system.
    pub fn listen_all(
        &self,
        addresses: impl IntoIterator<Item = SocketAddr>,
    ) -> Result<BTreeMap<SocketAddr, TcpListener>, Vec<(SocketAddr, io::Error)>> {
        let (mut sockets, mut failed) = (BTreeMap::new(), Vec::new());
        for address in addresses {
            match self.listen(address) {
                Ok(socket) => drop(sockets.insert(address, socket)),
                Err(error) => failed.push((address, error)),
            }
        }
        if failed.is_empty() {
            return Ok(sockets);
        }
        sockets.keys().for_each(|address| self.close(*address));
        Err(failed)
    }

    /// The inherited socket at `path`, if there is one, and whose its file is.
    pub fn take_inherited(&self, path: &Path) -> Option<(UnixListener, File)> {
        let inherited = self.table().inherited.remove(&Name::Path(path.to_owned()));
        inherited.map(|(socket, file)| (socket.into(), file))
    }

    /// Keeps a duplicate of the socket that listens at `path`.
    ///
    /// # Errors
    /// There is no descriptor for it, or it cannot be made non-blocking.
    pub fn listen_at(&self, path: &Path, socket: &UnixListener, file: File) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let kept = socket.try_clone()?;
        self.table().open.insert(Name::Path(path.to_owned()), (kept.into(), file));
        Ok(())
    }

    /// Lets go of the socket for `address`.
    pub fn close(&self, address: SocketAddr) {
        self.table().open.remove(&Name::Address(address));
    }

    /// Lets go of the socket at `path`.
    pub fn close_at(&self, path: &Path) {
        self.table().open.remove(&Name::Path(path.to_owned()));
    }

    /// Lets go of all sockets: what accepts from them has its own descriptors.
    pub fn close_all(&self) {
        self.table().open.clear();
    }

    /// Duplicates of all sockets that are in use, to be handed on.
    ///
    /// # Errors
    /// There are no descriptors for them.
    pub fn duplicates(&self) -> io::Result<Vec<(Name, File, OwnedFd)>> {
        let table = self.table();
        let duplicate = |(name, (socket, file)): (&Name, &(OwnedFd, File))| {
            Ok((name.clone(), *file, socket.try_clone()?))
        };
        table.open.iter().map(duplicate).collect()
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of a previous process that are still closing must not keep the port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

fn prepare(socket: &TcpListener) -> io::Result<()> {
    // A blocking socket would block the runtime.
    socket.set_nonblocking(true)?;
    // Connections inherit it. The system would take megabytes that are not sent yet, and then none for as long as
    // it takes to send a third of them: a client that reads steadily would seem not to read (`min_download_rate`).
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(socket).set_tcp_notsent_lowat(UNSENT)?;
    Ok(())
}
