//! A new process takes over from a running one, and no connection is refused or cut for it.
//!
//! ```text
//!  old process                               new process
//!     │ serves                                  │ loads and checks its configuration
//!     │ <───────────────── take ─────────────── │ connects to `server.upgrade_socket`
//!     │ ─── sockets, with their descriptors ──> │ starts, accepts nothing yet
//!     │ <──────────────── ready ─────────────── │
//!     │ ────────────────── go ────────────────> │ accepts
//!     │ <─────────────── serving ────────────── │ tells the service manager who it is
//!     │ drains, ends                            │
//! ```
//!
//! Wherever this stops before the last line, the old process serves on: the new one has accepted
//! nothing until `go`, and ends if it does not come. A connection that neither has accepted waits in
//! the socket, which both have.
//!
//! `wire` has the messages, `offer` the old process's part, `takeover` and `begin` the
//! new one's, `launch` starts
//! the new process on SIGUSR2, `activation` takes sockets that systemd has opened.

pub mod activation;
pub(super) mod begin;
pub(super) mod launch;
pub(super) mod offer;
pub(super) mod takeover;
mod wire;

/// Whether the other end of a Unix socket may be handed sockets, or hand them over: a process of this
/// user, or of root.
fn is_trusted(user: u32) -> bool {
    user == 0 || user == rustix::process::geteuid().as_raw()
}
