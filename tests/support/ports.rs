//! Addresses on which nothing listens: free ones, refusing ones, silent ones.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// Below the range from which the system takes ports for outgoing connections.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A TCP port on which nothing listens, and that no other test takes while this lives.
///
/// The lock is the UDP port of the same number: it holds between processes too, so that
/// a suite that runs beside this one is never mistaken for its gateways.
pub struct Port {
    pub number: u16,
    _lock: UdpSocket,
}

impl Port {
    pub fn reserve() -> Self {
        let salt = (std::process::id() % 97) as u16 * 120;
        for _ in 0..COUNT {
            // Relaxed: only the uniqueness of the number matters.
            let offset = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = FIRST + salt.wrapping_add(offset) % COUNT;
            let Ok(lock) = UdpSocket::bind(("127.0.0.1", number)) else { continue };
            if TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Port { number, _lock: lock };
            }
        }
        panic!("no free port between {FIRST} and {}", FIRST + COUNT);
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.number))
    }
}

/// An address that answers every connection with a reset, as long as the tests run.
pub fn refused_address() -> SocketAddr {
    static KEPT: Mutex<Vec<Port>> = Mutex::new(Vec::new());
    let port = Port::reserve();
    let address = port.address();
    KEPT.lock().expect("the ports").push(port);
    address
}

/// A listener whose queue is full: a connection to it is neither accepted nor refused.
pub struct Blackhole {
    address: SocketAddr,
    _listener: Socket,
    _queue: Vec<TcpStream>,
}

impl Blackhole {
    pub fn start() -> Self {
        Blackhole::at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// At a port of this address that the system chooses.
    pub fn at(any: SocketAddr) -> Self {
        let listener = Socket::new(Domain::for_address(any), Type::STREAM, None).expect("a socket");
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

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}
