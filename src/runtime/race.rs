//! Connecting to an endpoint that has an address of each family: "Happy Eyeballs" (RFC 8305).
//!
//! The address that answered last time is tried first, IPv6 before anything is known. The other one
//! follows 250 ms later, or at once if the first fails. The connection that is there first is used,
//! and the other one given up: it is no failure, and no attempt of its own. Pingora makes one attempt
//! at one address, so this takes the place of its connecting; the connect timeout covers it as a whole.

use std::fmt;
use std::net;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::connectors::l4::Connect;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::{Error, ErrorType, OrErr, Result};
use tokio::net::{TcpSocket, TcpStream};

use super::socket_check::SocketCheck;
use crate::upstream::Endpoint;
use crate::upstream::endpoint::Pair;

/// The head start of the first address, the "Connection Attempt Delay" of RFC 8305, section 5.
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to one endpoint.
pub(super) struct Race {
    pair: Pair,
    endpoint: Arc<Endpoint>,
    check: SocketCheck,
}

impl Race {
    /// For an endpoint with both addresses of `pair`. `check` is called before each connection.
    pub(super) fn new(pair: Pair, endpoint: &Arc<Endpoint>, check: &SocketCheck) -> Self {
        Race { pair, endpoint: endpoint.clone(), check: check.clone() }
    }

    async fn connect_to(&self, address: net::SocketAddr) -> Result<TcpStream> {
        let socket = match address {
            net::SocketAddr::V4(_) => TcpSocket::new_v4(),
            net::SocketAddr::V6(_) => TcpSocket::new_v6(),
        };
        // The gateway's own fault, as Pingora has it.
        let socket = socket.or_err(ErrorType::InternalError, "no socket can be made")?;
        (self.check)(&socket)?;
        socket.connect(address).await.map_err(|error| failed(error, address))
    }
}

#[async_trait]
impl Connect for Race {
    async fn connect(&self, _: &SocketAddr) -> Result<Stream> {
        let order = self.endpoint.in_order(&self.pair);
        let (stream, winner) = race(order, |address| self.connect_to(address)).await?;
        self.endpoint.answered_at(winner);
        Ok(stream.into())
    }
}

/// Connects to the two addresses, and returns the connection that is there first, and where to. If there
/// is none, the error is that of the address that failed last, or of the first if it failed at once.
async fn race<S, F>(
    [first, other]: [net::SocketAddr; 2],
    connect: impl Fn(net::SocketAddr) -> F,
) -> Result<(S, net::SocketAddr)>
where
    F: Future<Output = Result<S>>,
{
    let one = connect(first);
    tokio::pin!(one);
    tokio::select! {
        stream = &mut one => return match stream {
            Ok(stream) => Ok((stream, first)),
            Err(error) => connect(other).await.map(|stream| (stream, other)).map_err(|_| error),
        },
        () = tokio::time::sleep(HEAD_START) => {}
    }
    let second = connect(other);
    tokio::pin!(second);
    tokio::select! {
        stream = &mut one => match stream {
            Ok(stream) => Ok((stream, first)),
            Err(_) => second.await.map(|stream| (stream, other)),
        },
        stream = &mut second => match stream {
            Ok(stream) => Ok((stream, other)),
            Err(_) => one.await.map(|stream| (stream, first)),
        },
    }
}

/// The error as Pingora has it for its own connecting.
fn failed(error: std::io::Error, address: net::SocketAddr) -> Box<Error> {
    use std::io::ErrorKind;

    let kind = match error.kind() {
        ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
        ErrorKind::TimedOut => ErrorType::ConnectTimedout,
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => ErrorType::ConnectNoRoute,
        _ => ErrorType::ConnectError,
    };
    Error::because(kind, format!("Fail to connect to {address}"), error)
}

impl fmt::Debug for Race {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Race").field("pair", &self.pair).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: net::SocketAddr =
        net::SocketAddr::new(net::IpAddr::V6(net::Ipv6Addr::LOCALHOST), 1);
    const OTHER: net::SocketAddr =
        net::SocketAddr::new(net::IpAddr::V4(net::Ipv4Addr::LOCALHOST), 1);

    /// After how many milliseconds an address answers, and whether with a connection.
    type Answer = (u64, bool);

    /// Who won, or whose error it is, and after how many milliseconds.
    async fn raced(first: Answer, other: Answer) -> (Result<net::SocketAddr, String>, u128) {
        let begun = tokio::time::Instant::now();
        let raced = race([FIRST, OTHER], |address| async move {
            let (after, good) = if address == FIRST { first } else { other };
            tokio::time::sleep(Duration::from_millis(after)).await;
            let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
            good.then_some(()).ok_or_else(|| failed(refused, address))
        });
        let winner = raced.await.map(|((), winner)| winner).map_err(|error| error.to_string());
        (winner, begun.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_address_has_a_head_start() {
        assert_eq!(raced((200, true), (0, true)).await, (Ok(FIRST), 200));
        assert_eq!(raced((260, true), (50, true)).await, (Ok(FIRST), 260));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_is_silent_delays_the_other_by_250_milliseconds() {
        assert_eq!(raced((60_000, true), (5, true)).await, (Ok(OTHER), 255));
        assert_eq!(raced((5, true), (60_000, true)).await, (Ok(FIRST), 5));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_refuses_costs_no_time() {
        assert_eq!(raced((1, false), (5, true)).await, (Ok(OTHER), 6));
        assert_eq!(raced((300, true), (5, false)).await, (Ok(FIRST), 300));
        assert_eq!(raced((300, false), (100, true)).await, (Ok(OTHER), 350));
    }

    #[tokio::test(start_paused = true)]
    async fn if_both_fail_the_error_says_where() {
        let (error, took) = raced((1, false), (5, false)).await;
        let error = error.expect_err("both failed");
        assert!(error.contains("ConnectRefused") && error.contains("[::1]:1"), "{error}");
        assert_eq!(took, 6);
        assert!(raced((300, false), (500, false)).await.0.is_err());
    }
}
