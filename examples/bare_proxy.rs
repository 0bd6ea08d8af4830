//! The yardstick of `bench/`: the least a Pingora proxy can do, with the gateway's allocator.
//!
//! `bare_proxy LISTEN UPSTREAM THREADS [h2c]`. No policy, no header, no record: what Portcullis costs
//! is what it costs more than this. With `h2c`, both sides may, or shall, speak HTTP/2.

use std::error::Error;
use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::prelude::{HttpPeer, ProxyHttp, Server, Session, http_proxy_service};
use pingora_core::apps::HttpServerOptions;
use pingora_core::protocols::ALPN;
use pingora_core::server::configuration::ServerConf;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As many as Portcullis shares a connection among.
const MAX_STREAMS: usize = 100;

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

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (listen, upstream, threads, h2c) = match arguments.as_slice() {
        [listen, upstream, threads] => (listen, upstream, threads, false),
        [listen, upstream, threads, last] if last == "h2c" => (listen, upstream, threads, true),
        _ => return Err("usage: bare_proxy LISTEN UPSTREAM THREADS [h2c]".into()),
    };
    let conf = ServerConf { threads: threads.parse()?, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let bare = Bare { upstream: upstream.parse()?, h2c };
    let mut proxy = http_proxy_service(&server.configuration, bare);
    if h2c && let Some(app) = proxy.app_logic_mut() {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        app.server_options = Some(options);
    }
    proxy.add_tcp(listen);
    server.add_service(proxy);
    server.run_forever()
}
