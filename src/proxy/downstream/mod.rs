//! A client's connection: its protocol, its time, its bytes.

pub mod address;
pub mod alarm;
pub mod connection;
pub mod date;
pub mod detachment;
pub mod framing;
pub mod guard;
pub mod head;
pub mod http1;
pub mod http2;
pub mod http2_session;
pub mod http2_stream;
pub mod http2_timers;
pub mod limits;
pub mod orders;
pub mod sniff;
