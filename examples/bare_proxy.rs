//! The yardstick of `bench/`: the least a Pingora proxy can do, with the gateway's allocator, scheduler and
//! pool, and without huge pages, as the gateway is.
//!
//! `bare_proxy LISTEN UPSTREAM THREADS [h2c | CERTIFICATE KEY]`. No policy, no header, no record: what
//! Portcullis costs is what it costs more than this. With `h2c`, both sides may, or shall, speak HTTP/2;
//! with a certificate, clients come over TLS.

use std::error::Error;
use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::prelude::{HttpPeer, ProxyHttp, Server, Session, http_proxy_service};
use pingora_core::apps::HttpServerOptions;
use pingora_core::protocols::ALPN;
use pingora_core::server::configuration::ServerConf;
use rustix::thread::disable_transparent_huge_pages;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As many as Portcullis shares a connection among.
const MAX_STREAMS: usize = 100;
/// Idle connections to the upstream that are kept.
const POOL: usize = 1024;

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
    // Before there is much memory, which would keep its pages as they are.
    disable_transparent_huge_pages(true)?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstream, threads, more @ ..] = arguments.as_slice() else { return usage() };
    let (h2c, tls) = match more {
        [] => (false, None),
        [word] if word == "h2c" => (true, None),
        [certificate, key] => (false, Some((certificate, key))),
        _ => return usage(),
    };
    let threads: usize = threads.parse()?;
    let conf = ServerConf {
        threads,
        work_stealing: threads > 1,
        upstream_keepalive_pool_size: POOL.div_ceil(threads),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let bare = Bare { upstream: upstream.parse()?, h2c };
    let mut proxy = http_proxy_service(&server.configuration, bare);
    if h2c && let Some(app) = proxy.app_logic_mut() {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        app.server_options = Some(options);
    }
    match tls {
        None => proxy.add_tcp(listen),
        Some((certificate, key)) => proxy.add_tls(listen, certificate, key)?,
    }
    server.add_service(proxy);
    server.run_forever()
}

fn usage() -> Result<(), Box<dyn Error>> {
    Err("usage: bare_proxy LISTEN UPSTREAM THREADS [h2c | CERTIFICATE KEY]".into())
}
