//! The messages of a handover, and how they travel.
//!
//! A message is eight bytes, which are `PCU`, the version and the length, and then JSON. Descriptors
//! travel with its first byte.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::runtime::sockets::{File, Name};

/// Changes with what the messages mean. [`Message::Refused`] stays as it is in every version.
const VERSION: u8 = 1;
const MAGIC: [u8; 3] = *b"PCU";
const HEAD: usize = 8;
/// The longest JSON.
const LONGEST: usize = 64 * 1024;
/// The most descriptors with one message; the kernel takes 253.
pub(super) const DESCRIPTORS: usize = 200;

/// What the processes say to each other.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Message {
    /// The new process asks for the sockets.
    Take {
        /// Of the gateway, for the log.
        version: String,
    },
    /// The sockets, in the order of the descriptors.
    Sockets {
        /// The number of the old process: the system names the one that has made the upgrade socket.
        process: u32,
        /// Where each listens, and whose its file is.
        sockets: Vec<(Name, File)>,
        /// Another such message follows.
        more: bool,
    },
    /// The new process can serve, and these files of Unix sockets are its own from now on.
    Ready {
        /// Their paths.
        files: Vec<PathBuf>,
    },
    /// The new process may accept connections.
    Go,
    /// It does.
    Serving,
    /// It comes to nothing.
    Refused {
        /// In words, for the log.
        why: String,
    },
}

/// Why a message was not understood, or did not come.
#[derive(Debug)]
pub(super) enum Fault {
    /// The other process has closed the connection, or has ended.
    Ended,
    /// It speaks another version.
    Version(u8),
    /// It is not a gateway.
    Strange(&'static str),
    /// It says no.
    Refused(String),
    /// This process says no.
    Unwilling(String),
    /// What the system said.
    Io(io::Error),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Ended => f.write_str("the other process has ended, or given up"),
            Fault::Version(version) => write!(
                f,
                "the other process speaks version {version} of the handover, this one version \
                 {VERSION}; replace this gateway by a restart"
            ),
            Fault::Strange(what) => {
                write!(f, "the other process does not speak like a gateway: {what}")
            }
            Fault::Refused(why) => write!(f, "the other process refuses: {why}"),
            Fault::Unwilling(why) => f.write_str(why),
            Fault::Io(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        match error.kind() {
            BrokenPipe | ConnectionReset | UnexpectedEof => Fault::Ended,
            _ => Fault::Io(error),
        }
    }
}

/// Sends a message with at most [`DESCRIPTORS`] descriptors.
pub(super) async fn send(
    stream: &UnixStream,
    message: &Message,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Fault> {
    let body = serde_json::to_vec(message).map_err(io::Error::from)?;
    if body.len() > LONGEST || descriptors.len() > DESCRIPTORS {
        return Err(Fault::Io(io::Error::other("a message of the handover is too long")));
    }
    let mut bytes = Vec::with_capacity(HEAD + body.len());
    bytes.extend(MAGIC);
    bytes.push(VERSION);
    // At most `LONGEST`.
    bytes.extend((body.len() as u32).to_be_bytes());
    bytes.extend(body);
    let (mut rest, mut descriptors) = (&bytes[..], descriptors);
    while !rest.is_empty() {
        let sent = stream.async_io(Interest::WRITABLE, || send_some(stream, rest, descriptors));
        rest = &rest[sent.await?..];
        descriptors = &[];
    }
    Ok(())
}

fn send_some(
    stream: &UnixStream,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    let bytes = [IoSlice::new(bytes)];
    Ok(sendmsg(stream.as_fd(), &bytes, &mut control, SendFlags::NOSIGNAL)?)
}

/// The next message, with its descriptors.
pub(super) async fn receive(stream: &UnixStream) -> Result<(Message, Vec<OwnedFd>), Fault> {
    let mut descriptors = Vec::new();
    let mut head = [0; HEAD];
    fill(stream, &mut head, &mut descriptors).await?;
    let [a, b, c, version, length @ ..] = head;
    if [a, b, c] != MAGIC {
        return Err(Fault::Strange("a message has another beginning"));
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > LONGEST {
        return Err(Fault::Strange("a message is too long"));
    }
    let mut body = vec![0; length];
    fill(stream, &mut body, &mut descriptors).await?;
    match serde_json::from_slice(&body) {
        Ok(Message::Refused { why }) => Err(Fault::Refused(why)),
        _ if version != VERSION => Err(Fault::Version(version)),
        Ok(message) => Ok((message, descriptors)),
        Err(_) => Err(Fault::Strange("a message is not one of those of its version")),
    }
}

async fn fill(
    stream: &UnixStream,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> Result<(), Fault> {
    let mut filled = 0;
    while filled < buffer.len() {
        let rest = &mut buffer[filled..];
        let received =
            stream.async_io(Interest::READABLE, || receive_some(stream, rest, descriptors)).await?;
        if received == 0 {
            return Err(Fault::Ended);
        }
        filled += received;
    }
    Ok(())
}

fn receive_some(
    stream: &UnixStream,
    bytes: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [IoSliceMut::new(bytes)];
    let received = recvmsg(stream.as_fd(), &mut bytes, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) || descriptors.len() > DESCRIPTORS {
        return Err(io::Error::other("not all descriptors of a message could be received"));
    }
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};

    use tokio::io::AsyncWriteExt;

    use super::*;

    fn take() -> Message {
        Message::Take { version: "1".to_owned() }
    }

    #[tokio::test]
    async fn descriptors_arrive_in_their_order_with_the_message_they_were_sent_with() {
        let (old, new) = UnixStream::pair().expect("a pair");
        let listeners: Vec<TcpListener> =
            (0..3).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port")).collect();
        let addresses: Vec<SocketAddr> =
            listeners.iter().map(|l| l.local_addr().expect("an address")).collect();
        let descriptors: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
        send(&old, &Message::Go, &descriptors[..2]).await.expect("sent");
        send(&old, &Message::Serving, &descriptors[2..]).await.expect("sent");
        let mut seen = Vec::new();
        for (wanted, count) in [(Message::Go, 2), (Message::Serving, 1)] {
            let (message, received) = receive(&new).await.expect("received");
            assert_eq!((message, received.len()), (wanted, count));
            let address = |fd| TcpListener::from(fd).local_addr().expect("an address");
            seen.extend(received.into_iter().map(address));
        }
        assert_eq!(seen, addresses);
    }

    #[tokio::test]
    async fn a_long_message_arrives_in_one_piece() {
        let (old, new) = UnixStream::pair().expect("a pair");
        let path = |n| Name::Path(format!("/{}{n}", "a".repeat(100)).into());
        let sockets: Vec<_> = (0..DESCRIPTORS).map(|n| (path(n), File::Own)).collect();
        let message = Message::Sockets { process: 1, sockets, more: true };
        let (sent, received) = tokio::join!(send(&old, &message, &[]), receive(&new));
        sent.expect("sent");
        assert_eq!(received.expect("received").0, message);
    }

    #[tokio::test]
    async fn what_is_no_message_is_told_apart() {
        async fn seen(bytes: &[u8]) -> Fault {
            let (mut other, ours) = UnixStream::pair().expect("a pair");
            other.write_all(bytes).await.expect("written");
            drop(other);
            receive(&ours).await.expect_err("no message")
        }
        assert!(matches!(seen(b"").await, Fault::Ended));
        assert!(matches!(seen(b"PCU\x01\0\0\0\x09\"go").await, Fault::Ended));
        assert!(matches!(seen(b"GET / HTTP/1.1\r\n\r\n").await, Fault::Strange(_)));
        assert!(matches!(seen(b"PCU\x01\0\x01\0\x01").await, Fault::Strange(_)), "too long");
        assert!(matches!(seen(b"PCU\x01\0\0\0\x05\"fly\"").await, Fault::Strange(_)));
        assert!(matches!(seen(b"PCU\x02\0\0\0\x04\"go\"").await, Fault::Version(2)));
        let refused = seen(b"PCU\x02\0\0\0\x18{\"refused\":{\"why\":\"no\"}}").await;
        assert!(matches!(refused, Fault::Refused(why) if why == "no"), "in any version");
    }

    #[tokio::test]
    async fn too_many_descriptors_are_not_sent() {
        let (old, _new) = UnixStream::pair().expect("a pair");
        let descriptors = vec![old.as_fd(); DESCRIPTORS + 1];
        assert!(send(&old, &take(), &descriptors).await.is_err());
        assert!(send(&old, &take(), &descriptors[1..]).await.is_ok());
    }
}
