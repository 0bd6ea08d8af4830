//! The old process's part: it gives its sockets to a new one, and ends once that one serves.

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::is_trusted;
use super::wire::{DESCRIPTORS, Fault, Message, receive, send};
use crate::runtime::lifecycle::Successor;
use crate::runtime::shared::Shared;

/// Limit on a single message, and pause after a failure to accept.
const MESSAGE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

/// Answers new processes at the upgrade socket from when this one is ready until it drains.
pub(in crate::runtime) fn offer(
    runtime: &Runtime,
    shared: Arc<Shared>,
    socket: UnixListener,
) -> std::io::Result<()> {
    let _inside = runtime.enter();
    let listener = tokio::net::UnixListener::from_std(socket)?;
    runtime.spawn(async move {
        shared.lifecycle.until_ready().await;
        let lifecycle = shared.lifecycle.clone();
        tokio::select! {
            () = answer(&listener, shared) => {}
            () = lifecycle.until_draining() => {}
        }
    });
    Ok(())
}

async fn answer(listener: &tokio::net::UnixListener, shared: Arc<Shared>) {
    // Held by the one process that is taking over.
    let turn = Arc::new(Mutex::new(()));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                log::error!("server.upgrade_socket: cannot accept connections: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (shared, turn) = (shared.clone(), turn.clone());
        tokio::spawn(async move {
            let process = stream.peer_cred().ok().and_then(|peer| peer.pid()).unwrap_or(0);
            let outcome = match turn.try_lock() {
                Ok(_held) => hand_over(&stream, &shared, process).await,
                Err(_) => Err(Fault::Unwilling("another process is taking over".to_owned())),
            };
            let Err(fault) = outcome else { return };
            log::warn!(
                "upgrade: process {process} has not taken over: {fault}; this gateway goes on"
            );
            let refused = Message::Refused { why: fault.to_string() };
            // It may be gone.
            let _ = timeout(MESSAGE, send(&stream, &refused, &[])).await;
        });
    }
}

/// Hands the sockets to the other process, and waits until it serves.
async fn hand_over(stream: &UnixStream, shared: &Shared, process: i32) -> Result<(), Fault> {
    let user = stream.peer_cred()?.uid();
    if !is_trusted(user) {
        return Err(Fault::Unwilling(format!("it belongs to user {user}, not to this gateway's")));
    }
    let patience = *shared.snapshot.load().config.server.upgrade_timeout;
    let until = tokio::time::Instant::now() + patience;
    let late = || {
        let patience = patience.as_secs_f32();
        Fault::Unwilling(format!(
            "it did not become ready within {patience} s (server.upgrade_timeout)"
        ))
    };
    let generation = shared.snapshot.load().generation;
    let lifecycle = &shared.lifecycle;
    let readied = async {
        let Message::Take { version } = receive(stream).await?.0 else {
            return Err(Fault::Strange("it does not begin by asking for sockets"));
        };
        let sockets = shared.sockets.duplicates()?;
        log::info!(
            "upgrade: process {process}, version {version}, gets {} listening sockets",
            sockets.len()
        );
        let mut portions = sockets.chunks(DESCRIPTORS).peekable();
        while let Some(portion) = portions.next() {
            let names = portion.iter().map(|(name, file, _)| (name.clone(), *file)).collect();
            let (process, more) = (std::process::id(), portions.peek().is_some());
            let message = Message::Sockets { process, sockets: names, more };
            let descriptors: Vec<_> = portion.iter().map(|(.., socket)| socket.as_fd()).collect();
            send(stream, &message, &descriptors).await?;
        }
        drop(sockets);
        match receive(stream).await?.0 {
            Message::Ready { files } => Ok(files),
            _ => Err(Fault::Strange("it does not say that it is ready")),
        }
    };
    let files = tokio::select! {
        files = tokio::time::timeout_at(until, readied) => files.map_err(|_| late())??,
        () = lifecycle.until_draining() => {
            return Err(Fault::Unwilling("this gateway has been told to end".to_owned()));
        }
    };
    if shared.snapshot.load().generation != generation {
        return Err(Fault::Unwilling(
            "the configuration was reloaded meanwhile, which the new process may not have read; start it again"
                .to_owned(),
        ));
    }
    // Told to end from here on, this process waits until the other one serves or has failed.
    let _decided = lifecycle.hand_over();
    timeout(MESSAGE, send(stream, &Message::Go, &[])).await.map_err(|_| late())??;
    // Without a limit: it has been told to serve, and says that it does unless it ends, which ends this
    // connection.
    match receive(stream).await?.0 {
        Message::Serving => lifecycle.succeed(Successor { process, files }),
        _ => return Err(Fault::Strange("it does not say that it serves")),
    }
    Ok(())
}
