//! The new process's part: it asks for the sockets of the one that runs, and says when it can serve.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::is_trusted;
use super::wire::{Fault, Message, receive, send};
use crate::runtime::sockets::Sockets;

/// Limit on each answer of the process that runs.
const ANSWER: Duration = Duration::from_secs(10);

/// The connection to the process that serves until this one can.
pub(in crate::runtime) struct Takeover {
    stream: UnixStream,
    process: u32,
    /// Whether the files of the sockets are this process's: the other one has said that it may serve.
    ours: Arc<AtomicBool>,
}

impl Takeover {
    /// Gets the sockets of the gateway that answers at `path`; `None` if there is no gateway.
    ///
    /// # Errors
    /// One line that says why they cannot be had.
    pub(in crate::runtime) fn begin(
        path: &Path,
        sockets: &Sockets,
        runtime: &Runtime,
    ) -> Result<Option<Self>, String> {
        let begun = runtime.block_on(async {
            let stream = match UnixStream::connect(path).await {
                Ok(stream) => stream,
                // No process listens there, or has left the file behind.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::NotFound | ErrorKind::ConnectionRefused
                    ) =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(Fault::Io(error)),
            };
            let peer = stream.peer_cred()?;
            if !is_trusted(peer.uid()) {
                let why = format!("user {} listens there, which is not this gateway's", peer.uid());
                return Err(Fault::Unwilling(why));
            }
            let process = take(&stream, sockets).await?;
            Ok(Some(Takeover { stream, process, ours: Arc::default() }))
        });
        begun.map_err(|fault| {
            format!("server.upgrade_socket: cannot take over at {}: {fault}", path.display())
        })
    }

    /// Becomes true once the files of the sockets that were handed over are this process's to remove.
    pub(in crate::runtime) fn files_are_ours(&self) -> Arc<AtomicBool> {
        self.ours.clone()
    }

    /// Which process has served until now.
    pub(in crate::runtime) fn process(&self) -> u32 {
        self.process
    }

    /// Waits until the other process gives up, and says why.
    pub(in crate::runtime) async fn given_up(&self) -> String {
        match receive(&self.stream).await {
            Ok(_) => Fault::Strange("it says something before this process is ready"),
            Err(fault) => fault,
        }
        .to_string()
    }

    /// Says that this process can serve, and waits until it may. `files` are those of its Unix sockets.
    ///
    /// # Errors
    /// One line that says why it must not serve.
    pub(in crate::runtime) async fn ready(&self, files: Vec<PathBuf>) -> Result<(), String> {
        let asked = async {
            send(&self.stream, &Message::Ready { files }, &[]).await?;
            match answer(&self.stream).await?.0 {
                Message::Go => {
                    self.ours.store(true, Ordering::Release);
                    Ok(())
                }
                _ => Err(Fault::Strange("it does not say that this process may serve")),
            }
        };
        asked.await.map_err(|fault: Fault| fault.to_string())
    }

    /// Says that this process serves: the other one drains from now on.
    pub(in crate::runtime) async fn serving(self) {
        if let Err(fault) = send(&self.stream, &Message::Serving, &[]).await {
            log::warn!("upgrade: process {} cannot be told to end: {fault}", self.process);
        }
    }
}

/// Puts the other process's sockets in, and returns its number.
async fn take(stream: &UnixStream, sockets: &Sockets) -> Result<u32, Fault> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    send(stream, &Message::Take { version }, &[]).await?;
    loop {
        let (message, descriptors) = answer(stream).await?;
        let Message::Sockets { process, sockets: names, more } = message else {
            return Err(Fault::Strange("it does not answer with its sockets"));
        };
        if names.len() != descriptors.len() {
            return Err(Fault::Strange("a socket has no descriptor"));
        }
        for ((name, file), socket) in names.into_iter().zip(descriptors) {
            sockets.inherit(name, socket, file);
        }
        if !more {
            return Ok(process);
        }
    }
}

async fn answer(stream: &UnixStream) -> Result<(Message, Vec<OwnedFd>), Fault> {
    let silent = || Fault::Unwilling("the gateway there does not answer in time".to_owned());
    timeout(ANSWER, receive(stream)).await.map_err(|_| silent())?
}
