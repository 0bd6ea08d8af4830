//! The sockets and files that a start takes before anything is served: where clients wait from then on,
//! and which are handed on in an upgrade.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::runtime::Runtime;

use super::socket_file::{Claim, SocketFile};
use super::sockets::{File, Name, Sockets};
use super::start_error::StartError;
use super::upgrade::activation::Activated;
use super::upgrade::takeover::Takeover;
use crate::config::Config;

/// What the configuration's addresses and paths have become.
pub(super) struct Claims {
    /// Listens at `admin.address`.
    pub(super) admin_address: Option<TcpListener>,
    /// Listens at `admin.socket`.
    pub(super) admin_socket: Option<UnixListener>,
    /// Listens at `server.upgrade_socket`.
    pub(super) upgrade: Option<UnixListener>,
    /// Removed at the end, unless another process takes over.
    pub(super) files: Vec<SocketFile>,
    /// The process to take over from, which serves until this one can.
    pub(super) takeover: Option<Takeover>,
}

impl Claims {
    /// Takes what `activated` brings, what a running gateway hands over, and binds the rest: the
    /// addresses of `listeners` are only checked to be free.
    pub(super) fn take(
        config: &Config,
        activated: Activated,
        sockets: &Sockets,
        runtime: &Runtime,
    ) -> Result<Self, StartError> {
        let passed = activated.put_into(sockets);
        let mut wanted =
            config.listeners.values().map(|l| Name::Address(l.address)).collect::<Vec<_>>();
        wanted.extend(config.admin.address.map(Name::Address));
        wanted.extend(config.admin.socket.clone().map(Name::Path));
        for name in sockets.keep_only(&wanted) {
            log::warn!(
                "LISTEN_FDS: the service manager listens on {name}, which is neither a listener's address nor \
                 the admin listener's; it is not served"
            );
        }
        if passed > 0 {
            log::info!("LISTEN_FDS: {passed} sockets of the service manager");
        }
        let upgrade = config.server.upgrade_socket.as_deref();
        wanted.extend(upgrade.map(|path| Name::Path(path.to_owned())));
        let takeover = upgrade.map(|path| Takeover::begin(path, sockets, runtime)).transpose();
        let takeover = takeover.map_err(StartError::Other)?.flatten();
        if let Some(takeover) = &takeover {
            log::info!("upgrade: takes over from process {}", takeover.process());
        }
        // The other process serves them until it has drained.
        for name in sockets.keep_only(&wanted) {
            log::info!("upgrade: {name} is not listened on any more");
        }
        check_addresses(config, sockets)?;
        let _inside = runtime.enter();
        let mut files = Vec::new();
        let ours = takeover.as_ref().map(Takeover::files_are_ours);
        let mut at = |key: &str, path: Option<&Path>| {
            let listening = path.map(|path| listen_at(path, sockets, &mut files, ours.as_ref()));
            let listening = listening.transpose();
            listening.map_err(|source| {
                let address = path.unwrap_or(Path::new("")).display().to_string();
                StartError::Listen { name: key.to_owned(), address, source }
            })
        };
        let admin_socket = at("admin.socket", config.admin.socket.as_deref())?;
        let upgrade = at("server.upgrade_socket", upgrade)?;
        let admin_address = config.admin.address.map(|address| {
            sockets.listen(address).map_err(|source| {
                let (name, address) = ("admin.address".to_owned(), address.to_string());
                StartError::Listen { name, address, source }
            })
        });
        let admin_address = admin_address.transpose()?;
        Ok(Claims { admin_address, admin_socket, upgrade, files, takeover })
    }

    /// The paths of [`Self::files`].
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.files.iter().map(|file| file.path().to_owned()).collect()
    }
}

/// Listens at `path`: at the socket that was inherited, or at a new one. Its file is added to `files`
/// if this process is to remove it; one that was handed over, once `ours` says that it is this process's.
fn listen_at(
    path: &Path,
    sockets: &Sockets,
    files: &mut Vec<SocketFile>,
    ours: Option<&Arc<AtomicBool>>,
) -> std::io::Result<UnixListener> {
    let (socket, whose) = match sockets.take_inherited(path) {
        Some((socket, whose)) => {
            let file = SocketFile::at(path)?;
            if !file.is_private()? {
                file.leave();
                return Err(std::io::Error::other(
                    "others than its owner may open the socket that was passed; set SocketMode=0600 for it",
                ));
            }
            match whose {
                File::Own => files.push(match ours {
                    Some(ours) => file.once(ours.clone()),
                    None => file,
                }),
                File::NotOwn => file.leave(),
            }
            (socket, whose)
        }
        None => {
            let (socket, file) = Claim::take(path)?.parts();
            files.push(file);
            (socket, File::Own)
        }
    };
    sockets.listen_at(path, &socket, whose)?;
    Ok(socket)
}

/// Checks that all addresses are free, before any is taken.
fn check_addresses(config: &Config, sockets: &Sockets) -> Result<(), StartError> {
    let listeners = config.listeners.iter();
    let named = listeners.map(|(name, l)| (format!("listeners.{name}.address"), l.address));
    let admin = config.admin.address.map(|address| ("admin.address".to_owned(), address));
    for (name, address) in named.chain(admin) {
        sockets.check_free(address).map_err(|source| {
            let address = address.to_string();
            StartError::Listen { name, address, source }
        })?;
    }
    Ok(())
}
