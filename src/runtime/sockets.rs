//! The sockets that clients connect to: inherited from whoever started or preceded this process, or
//! bound by itself.
//!
//! A socket has two owners: what accepts from it, and this table, which can hand it on. It closes only
//! when both have let go of it.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::net::TcpSocket;

/// Connections that wait to be accepted; the kernel may allow fewer.
const BACKLOG: u32 = 65_535;
/// Bytes that the system takes of a response before it has sent those before them.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 128 * 1024;

/// The listening sockets of this process, by the address as configured.
#[derive(Debug, Default)]
pub struct Sockets {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// Not used yet.
    inherited: BTreeMap<SocketAddr, TcpListener>,
    /// Connections are accepted from them.
    open: BTreeMap<SocketAddr, TcpListener>,
}

impl Sockets {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Each change is one insertion or removal.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a socket that another process has bound, until [`Self::listen`] is asked for its address.
    pub fn inherit(&self, address: SocketAddr, socket: TcpListener) {
        self.table().inherited.insert(address, socket);
    }

    /// Checks that no other process listens on `address`, unless its socket was inherited.
    ///
    /// # Errors
    /// The error of binding the address.
    pub fn check_free(&self, address: SocketAddr) -> io::Result<()> {
        if self.table().inherited.contains_key(&address) {
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
        let inherited = self.table().inherited.remove(&address);
        let socket = inherited.map_or_else(|| bind(address), Ok)?;
        prepare(&socket)?;
        let kept = socket.try_clone()?;
        self.table().open.insert(address, kept);
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

    /// Lets go of the socket for `address`.
    pub fn close(&self, address: SocketAddr) {
        self.table().open.remove(&address);
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
