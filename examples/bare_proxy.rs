//! The yardstick of `bench/`: the least a Pingora proxy can do, with the gateway's allocator.
//!
//! `bare_proxy LISTEN UPSTREAM THREADS`. No policy, no header, no record: what Portcullis costs is
//! what it costs more than this.

use std::error::Error;
use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::prelude::{HttpPeer, ProxyHttp, Server, Session, http_proxy_service};
use pingora_core::server::configuration::ServerConf;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Bare(SocketAddr);

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.0, false, String::new())))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstream, threads] = arguments.as_slice() else {
        return Err("usage: bare_proxy LISTEN UPSTREAM THREADS".into());
    };
    let conf = ServerConf { threads: threads.parse()?, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut proxy = http_proxy_service(&server.configuration, Bare(upstream.parse()?));
    proxy.add_tcp(listen);
    server.add_service(proxy);
    server.run_forever()
}
