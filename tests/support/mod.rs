//! What a test is made of: a gateway, an upstream, a client, an issuer of tokens, a ledger.

mod answer;
mod client;
mod coding;
mod collector;
mod connection;
pub mod consul;
pub mod discovered;
mod dns;
pub mod documents;
pub mod eureka;
mod gateway;
mod h2_client;
mod h2_upstream;
mod jwt;
pub mod keys;
pub mod kubernetes;
mod ledger;
mod load;
mod plan;
mod ports;
mod postgres;
mod proof;
mod redis;
mod rpc;
mod servers;
mod steady;
mod tls;
mod upstream;
mod wait;
pub mod websocket;

pub use answer::Answer;
pub use client::{Call, Client, Ending, Response};
pub use coding::{compress, decompress, gzip_at};
pub use collector::{counted, pushed, traced_paths, wait_for_spans};
pub use dns::{Dns, OddDns, Question};
pub use gateway::{Finished, Gateway, parsed};
pub use h2_client::{Exchange, H2Client, H2Response, request, wait};
pub use h2_upstream::{H2Received, H2Upstream, Reply, frame};
pub use jwt::{Algorithm, Issuer, Key, expired, unix_now};
pub use ledger::{Row, Store};
pub use load::{Answered, Load, quantile};
pub use plan::{Plan, binary, from_environment};
pub use ports::{Blackhole, Port, refused_address};
pub use postgres::Postgres;
pub use proof::Proof;
pub use redis::Redis;
pub use rpc::{CODES_OF_STATUS, Dialect, INVOKE, message};
pub use servers::{Oha, Server};
pub use steady::Steady;
pub use tls::{
    Authority, Leaf, Returning, client_config, client_hello, connect_tls, connect_tls_after,
    connect_tls_by,
};
pub use upstream::{Received, Upstream};
pub use wait::{
    assert_about, assert_within, assert_within_since, at_once, eventually, eventually_within, pass,
    timed, watched,
};
