//! What is counted: the gateway, put together as the process does it, and a bare Pingora beside it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::prelude::{HttpPeer, ProxyHttp, Session};
use pingora_core::apps::{HttpServerOptions, ServerApp};
use pingora_core::protocols::ALPN;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::server::configuration::ServerConf;
use pingora_core::services::Service;
use pingora_proxy::http_proxy;
use portcullis::config::{Config, Environment};
use portcullis::observe::access_log::AccessLog;
use portcullis::observe::metrics::Metrics;
use portcullis::runtime::descriptors::Descriptors;
use portcullis::runtime::reload;
use portcullis::runtime::server;
use portcullis::runtime::shared::Shared;
use portcullis::time::Clock;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::token::Issuer;

/// As many as Portcullis shares a connection among.
const MAX_STREAMS: usize = 100;

/// The gateway by the configuration in `file`, without a store; returns where it listens.
pub async fn gateway(
    file: &str,
    upstream: SocketAddr,
    protocol: &str,
    limit: u32,
    issuer: Option<&Issuer>,
) -> SocketAddr {
    let address = free_address().await;
    let environment = Environment::fixed([
        ("PORT", address.port().to_string()),
        ("ADMIN_ADDRESS", "127.0.0.1:0".to_owned()),
        // Neither is used: there is no store, and keys are put in place.
        ("PORTCULLIS_DATA", "data".to_owned()),
        ("JWKS_URL", "http://127.0.0.1:9/".to_owned()),
        ("BENCH_UPSTREAM", format!("http://{upstream}")),
        ("BENCH_PROTOCOL", protocol.to_owned()),
        ("BENCH_LIMIT", limit.to_string()),
        ("BENCH_LIMIT_PER", "1h".to_owned()),
    ]);
    let metrics = Arc::new(Metrics::new().expect("names that are right"));
    let (config, sources) =
        Config::load(Path::new(file), &environment).expect("a valid configuration");
    let (snapshot, _) = reload::compile(config, &sources, &environment, None, &metrics)
        .expect("a valid configuration");
    for authority in snapshot.authorities.values() {
        let (config, keyring) = authority.verifier.remote_keys().expect("a key set");
        let keys = issuer.expect("an issuer").keys();
        keyring.publish(&keys, Clock::now(), *config.max_stale).expect("a key set");
    }
    let descriptors = Descriptors::current();
    let log = AccessLog::default();
    let shared = Shared::new(snapshot, metrics, descriptors, None, None, log);
    let mut acceptors = server::proxy(&Arc::new(conf()), &Arc::new(shared));
    tokio::spawn(async move { acceptors.start_service(None, running(), 1).await });
    until_listening(address).await;
    address
}

/// The least a Pingora proxy can do, as in examples/bare_proxy.rs.
pub async fn bare(upstream: SocketAddr, protocol: &str) -> SocketAddr {
    let h2c = protocol == "h2c";
    let mut proxy = http_proxy(&Arc::new(conf()), Bare { upstream, h2c });
    if h2c {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        proxy.server_options = Some(options);
    }
    let proxy = Arc::new(proxy);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.expect("a connection");
            connection.set_nodelay(true).expect("a socket that is open");
            let proxy = proxy.clone();
            tokio::spawn(async move {
                let mut stream = Some(Box::new(Stream::from(connection)) as _);
                while let Some(next) = stream {
                    stream = proxy.process_new(next, &running()).await;
                }
            });
        }
    });
    address
}

struct Bare {
    upstream: SocketAddr,
    h2c: bool,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> pingora::Result<Box<HttpPeer>> {
        let mut peer = HttpPeer::new(self.upstream, false, String::new());
        if self.h2c {
            peer.options.alpn = ALPN::H2;
            peer.options.max_h2_streams = MAX_STREAMS;
        }
        Ok(Box::new(peer))
    }
}

fn conf() -> ServerConf {
    ServerConf { max_retries: 64, ..ServerConf::default() }
}

/// For a process that goes on until it is ended.
fn running() -> watch::Receiver<bool> {
    let (stop, running) = watch::channel(false);
    std::mem::forget(stop);
    running
}

async fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    listener.local_addr().expect("an address")
}

async fn until_listening(address: SocketAddr) {
    while TcpStream::connect(address).await.is_err() {
        tokio::task::yield_now().await;
    }
}
