//! Accepts from one socket, for whichever listener has it.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora_core::protocols::l4::listener::Listener as Socket;
use pingora_core::protocols::l4::stream::Stream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::place::Place;
use crate::condition::{Condition, Spell};
use crate::proxy::listener::{Listener, Listeners};
use crate::time::Clock;

/// Pause between two attempts to listen on an address.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);
/// Pause after a failure to accept that will not pass at once, such as running out of descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// The most clients that are still taken out of the queue of a socket that closes.
const QUEUE: usize = 65_535;
/// So many of them are accepted before the first of them are served.
const TURN: usize = 32;

/// A socket, and the task that accepts from it.
pub(super) struct Accepting {
    /// Whose connections they are.
    listener: Arc<ArcSwap<Listener>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Accepting {
    /// Accepts for `listener` from `socket`. `None`: it is bound first, which the start of the process
    /// waits for.
    pub(super) fn start(
        listeners: &Arc<Listeners>,
        listener: Arc<Listener>,
        socket: Option<std::net::TcpListener>,
    ) -> Self {
        let listener = Arc::new(ArcSwap::new(listener));
        let (stop, stopped) = oneshot::channel();
        let acceptor = Acceptor {
            listeners: listeners.clone(),
            listener: listener.clone(),
            failed: Spell::default(),
        };
        Accepting { listener, stop, task: tokio::spawn(acceptor.run(socket, stopped)) }
    }

    /// Whose connections they are now.
    pub(super) fn listener(&self) -> Arc<Listener> {
        self.listener.load_full()
    }

    /// From the next connection on they are `listener`'s, which has the same address.
    pub(super) fn for_listener(self, listener: Arc<Listener>) -> Self {
        self.listener.store(listener);
        self
    }

    /// Closes the socket. Those who wait in its queue are connected already, and served.
    pub(super) fn stop(self) -> JoinHandle<()> {
        // It fails if the task has ended by itself.
        let _ = self.stop.send(());
        self.task
    }
}

struct Acceptor {
    listeners: Arc<Listeners>,
    listener: Arc<ArcSwap<Listener>>,
    failed: Spell,
}

impl Acceptor {
    async fn run(self, socket: Option<std::net::TcpListener>, mut stopped: oneshot::Receiver<()>) {
        let shared = self.listeners.shared.clone();
        let address = self.listener.load().config.address;
        let bound = socket.and_then(|socket| tokio::net::TcpListener::from_std(socket).ok());
        let socket = match bound {
            Some(socket) => Some(socket),
            None => {
                let socket = tokio::select! {
                    socket = self.listen() => Some(socket),
                    _ = &mut stopped => None,
                };
                // One that is gone is not waited for, either.
                shared.lifecycle.listens();
                socket
            }
        };
        let Some(socket) = socket.map(Socket::from) else { return };
        shared.lifecycle.opened();
        self.accept(&socket, &mut stopped).await;
        // Otherwise clients would go on to connect, and wait.
        shared.sockets.close(address);
        // Also where another process has the socket: it need not have use for it.
        self.empty_queue(&socket).await;
        drop(socket);
        shared.lifecycle.closed();
    }

    /// Accepts connections until it is `stopped`.
    async fn accept(&self, socket: &Socket, stopped: &mut oneshot::Receiver<()>) {
        tokio::select! {
            () = self.listeners.shared.lifecycle.until_accepting() => {}
            _ = &mut *stopped => return,
        }
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                _ = &mut *stopped => return,
            };
            match accepted {
                Ok(stream) => self.take(stream),
                Err(error) => tokio::select! {
                    () = self.recover(&error) => {}
                    _ = &mut *stopped => return,
                },
            }
        }
    }

    /// Takes those who are connected already.
    async fn empty_queue(&self, socket: &Socket) {
        // The runtime looks at the socket once more.
        tokio::task::yield_now().await;
        for taken in 1..QUEUE {
            let mut waiting = pin!(tokio::task::unconstrained(socket.accept()));
            let next = std::future::poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx))).await;
            let Poll::Ready(Ok(stream)) = next else { return };
            self.take(stream);
            if taken % TURN == 0 {
                // The drain must see that there is something to wait for.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Retries for ever: the address was free when the process started, so another process has
    /// taken it since, and may end.
    async fn listen(&self) -> tokio::net::TcpListener {
        let mut failing = Condition::default();
        let sockets = &self.listeners.shared.sockets;
        loop {
            // It may have become another listener's meanwhile.
            let listener = self.listener.load_full();
            let (key, address) =
                (format!("listeners.{}.address", listener.name), listener.config.address);
            let socket = sockets.listen(address).and_then(|socket| {
                // Otherwise the table would keep the address from the next try.
                let accepts = tokio::net::TcpListener::from_std(socket);
                accepts.inspect_err(|_| sockets.close(address))
            });
            match socket {
                Ok(socket) => {
                    if let Some(over) = failing.over(Clock::now()) {
                        log::info!("{key}: listening on {address} {over}");
                    }
                    return socket;
                }
                Err(error) if failing.met(Clock::now()) => {
                    log::error!("{key}: cannot listen on {address}, trying on: {error}");
                }
                Err(_) => {}
            }
            tokio::time::sleep(LISTEN_AGAIN).await;
        }
    }

    fn take(&self, mut stream: Stream) {
        let listener = self.listener.load_full();
        let place = match Place::take(&self.listeners, &listener, &stream) {
            Ok(place) => place,
            Err(full) => return self.listeners.refused(&listener, full),
        };
        let arrival = match self.listeners.arrival(&listener, &stream) {
            Ok(arrival) => arrival,
            Err(full) => return self.listeners.refused(&listener, full),
        };
        // Fails if the client has already disconnected.
        if stream.set_nodelay().is_err() {
            return;
        }
        let listeners = self.listeners.clone();
        tokio::spawn(async move {
            let _place = place;
            listeners.serve(Box::new(stream), arrival, &listener).await;
        });
    }

    async fn recover(&self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
        // Concerns one connection only, whose client has left.
        if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
            return;
        }
        if let Some(begun) = self.failed.met() {
            let name = self.listener.load().name.clone();
            log::error!("listener {name}: cannot accept connections: {error}");
            begun
                .until(move |over| log::info!("listener {name}: accepts connections again {over}"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
