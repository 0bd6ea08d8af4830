//! Sockets that systemd has opened for the gateway (`sd_listen_fds(3)`).

use std::os::fd::{AsFd, OwnedFd};

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;

use crate::runtime::sockets::{File, Name, Sockets};

/// What the process was started with.
#[derive(Debug, Default)]
pub struct Activated {
    sockets: Vec<(Name, OwnedFd)>,
    /// Descriptors that cannot be used, in words.
    unusable: Vec<String>,
}

impl Activated {
    /// As the environment says. The variables are removed, so that no child takes the sockets for its
    /// own: to be called before there are threads.
    pub fn from_environment() -> Self {
        let labels = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut labels = labels.split(':');
        let mut passed = ListenFd::from_env();
        let mut activated = Activated::default();
        for index in 0..passed.len() {
            let label = labels.next().filter(|label| !label.is_empty()).unwrap_or("unknown");
            match named(&mut passed, index) {
                Some(socket) => activated.sockets.push(socket),
                None => activated.unusable.push(format!(
                    "descriptor {} ({label}) is not a socket that listens for streams",
                    index + 3
                )),
            }
        }
        activated
    }

    /// Puts the sockets in, to be used in place of new ones. Returns how many there are.
    pub(in crate::runtime) fn put_into(self, sockets: &Sockets) -> usize {
        for unusable in &self.unusable {
            log::warn!("LISTEN_FDS: {unusable}; it is not used");
        }
        let count = self.sockets.len();
        for (name, socket) in self.sockets {
            sockets.inherit(name, socket, File::NotOwn);
        }
        count
    }
}

fn named(passed: &mut ListenFd, index: usize) -> Option<(Name, OwnedFd)> {
    let (name, socket): (_, OwnedFd) = if let Ok(Some(tcp)) = passed.take_tcp_listener(index) {
        (Name::Address(tcp.local_addr().ok()?), tcp.into())
    } else {
        let unix = passed.take_unix_listener(index).ok()??;
        (Name::Path(unix.local_addr().ok()?.as_pathname()?.to_owned()), unix.into())
    };
    socket_acceptconn(socket.as_fd()).ok()?.then_some((name, socket))
}
