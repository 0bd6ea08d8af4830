//! Addresses with nobody behind them: free ones, refusing ones, silent ones.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// Below the range from which the system takes ports for outgoing connections.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port nobody listens on. Processes start at different places of the range, so that
/// two suites at once rarely meet; whoever takes the port must still expect to be late.
pub fn free_port() -> u16 {
    let salt = (std::process::id() % 97) as u16 * 120;
    for _ in 0..COUNT {
        // Relaxed: only the uniqueness of the number matters.
        let offset = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + salt.wrapping_add(offset) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}

/// An address that answers every connection with a reset.
pub fn refused_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

/// A listener whose queue is full: a connection to it is neither accepted nor refused.
pub struct Blackhole {
    address: SocketAddr,
    _listener: Socket,
    _queue: Vec<TcpStream>,
}

impl Blackhole {
    pub fn start() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let any: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 0));
        listener.bind(&any.into()).expect("a port");
        listener.listen(0).expect("a listener");
        let address =
            listener.local_addr().ok().and_then(|a| a.as_socket()).expect("its own address");
        let mut queue = Vec::new();
        // The kernel lets a few more in than it was asked to.
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
            queue.push(stream);
            assert!(queue.len() < 64, "the queue of {address} does not fill");
        }
        Blackhole { address, _listener: listener, _queue: queue }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}
