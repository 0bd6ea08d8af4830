//! A client's connection: its protocol, its time, its bytes.
//!
//! ```text
//! accepted ──> handshake, sniff ──> idle ──first byte──> receiving a head ──complete──> in a request
//!    │ no place    │ late            │ ^                      │ late                    │    │ 101
//!    v             v                 │ └── `Guard::rest` ─────┼─────────────────────────┘    v
//!  closed        closed              │ idle for too long,     v                            tunnel
//!                                    v drain, end of file   closed                           │ silent for
//!                                  closed                                                    v too long
//! HTTP/2, after the handshake:                                                             closed
//! serving streams ──drain, idle for too long, certificate expired──> GOAWAY, last streams ──> closed
//!        └── too many malformed requests ──> closed
//! ```
//!
//! In each state, reads and writes fail once the deadline of the [`guard::Guard`] has passed. In a request
//! that is the attempt's deadline or the request's, and the request path decides what follows.
//!
//! | file | what it is for |
//! |---|---|
//! | [`connection`] | what each request knows of its connection |
//! | [`guard`] | the one deadline of a connection, moved by the request path |
//! | [`client_time`] | how long a request has waited for its client |
//! | [`pace`] | how fast a client must send and read |
//! | [`alarm`] | waiting for that deadline with few timers |
//! | [`changed`] | waiting for a change that concerns every connection |
//! | [`detachment`] | requests that go on without their client, and writes that are held back |
//! | [`address`] | the client's address, behind trusted proxies |
//! | [`proxy_header`] | whose connection a load balancer relays |
//! | [`limits`] | what a listener allows of a head |
//! | [`sniff`] | HTTP/1 or HTTP/2, by the first bytes |
//! | [`turnover`] | when a connection gives way to a new one |
//! | [`secure`] | a connection over TLS, as Pingora's traits have it |
//! | [`http1`] | the I/O of HTTP/1: one request at a time for Pingora |
//! | [`head`] | heads of HTTP/1, checked before Pingora parses them |
//! | [`legible`] | what can be read of a head that is refused |
//! | [`framing`] | where the body of a request of HTTP/1 ends |
//! | [`date`] | the upstream's `Date`, kept over Pingora's |
//! | [`http2`] | a connection of HTTP/2: its streams, its idle time, its end |
//! | [`http2_frames`] | control frames, counted against what the client asks for |
//! | [`http2_stream`] | one stream: its request and its response |
//! | [`http2_session`] | one stream as Pingora's request path sees it |
//! | [`http2_timers`] | reads and writes of a stream within its deadline |
//! | [`orders`] | what the request path says about the response on a stream |

pub mod address;
pub mod alarm;
pub mod changed;
pub mod client_time;
pub mod connection;
pub mod date;
pub mod detachment;
pub mod framing;
pub mod guard;
pub mod head;
pub mod http1;
pub mod http2;
pub mod http2_frames;
pub mod http2_session;
pub mod http2_stream;
pub mod http2_timers;
pub mod legible;
pub mod limits;
pub mod orders;
pub mod pace;
pub mod proxy_header;
pub mod secure;
pub mod sniff;
pub mod turnover;
