//! Instructions that the gateway executes for a request, under valgrind: a figure that no other work on the
//! machine changes.
//!
//! `make instructions`, or `bench/instructions.sh`. Client, gateway and upstream are tasks of one thread,
//! which alone is counted, while it makes [`REQUESTS`]: what the threads beside it do (clocks, memory given
//! back) is not. Of each figure, the one of `direct` is what client and upstream take of it.

mod client;
mod proxy;
mod token;
mod upstream;

use std::hint::black_box;

use client::Client;
use gungraun::prelude::*;
use gungraun::{Callgrind, main};
use http::Method;
use portcullis::routing::{Asked, Match, Router};
use tokio::runtime::Runtime;

/// As in the gateway's binary: what it allocates is a part of what is counted.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Counted in each case; bench/instructions.sh divides by it.
const REQUESTS: usize = 200;
/// Before them: connections are made, tokens verified, metrics begun.
const WARM_UP: usize = 100;

/// A limit that is not reached.
const MANY: u32 = 1_000_000;

/// Nothing on the route, and everything.
const PLAIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/instructions/plain.yaml");
const FULL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/full-chain.yaml");

/// What is between client and upstream.
#[derive(Clone, Copy)]
enum Case {
    Direct,
    Bare,
    Plain,
    Full,
    /// The full chain, with a limit that is used up.
    Refused,
}

/// A case and what it runs on, warmed up.
struct Ready {
    runtime: Runtime,
    client: Client,
}

fn http1(case: Case) -> Ready {
    ready(case, "http1")
}

fn grpc(case: Case) -> Ready {
    ready(case, "h2c")
}

fn ready(case: Case, protocol: &str) -> Ready {
    portcullis::init_crypto().expect("the first one");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let client = runtime.block_on(async {
        let upstream = upstream::start(protocol).await;
        let (address, token) = match case {
            Case::Direct => (upstream, None),
            Case::Bare => (proxy::bare(upstream, protocol).await, None),
            Case::Plain => (proxy::gateway(PLAIN, upstream, protocol, MANY, None).await, None),
            Case::Full | Case::Refused => {
                let issuer = token::Issuer::generate();
                let limit = if matches!(case, Case::Refused) { 1 } else { MANY };
                // Or another one to compare with: see bench/instructions.sh.
                let file = std::env::var("CONFIGURATION").unwrap_or(FULL.to_owned());
                let gateway = proxy::gateway(&file, upstream, protocol, limit, Some(&issuer));
                (gateway.await, Some(issuer.token()))
            }
        };
        let mut client = Client::connect(address, protocol, token.as_deref()).await;
        if matches!(case, Case::Refused) {
            client.ask(1).await;
            client.expect_refusals();
        }
        client.ask(WARM_UP).await;
        client
    });
    Ready { runtime, client }
}

#[library_benchmark]
#[bench::direct(args = (Case::Direct), setup = http1)]
#[bench::bare(args = (Case::Bare), setup = http1)]
#[bench::plain(args = (Case::Plain), setup = http1)]
#[bench::full(args = (Case::Full), setup = http1)]
#[bench::refused(args = (Case::Refused), setup = http1)]
#[bench::grpc_direct(args = (Case::Direct), setup = grpc)]
#[bench::grpc_bare(args = (Case::Bare), setup = grpc)]
#[bench::grpc_plain(args = (Case::Plain), setup = grpc)]
#[bench::grpc_full(args = (Case::Full), setup = grpc)]
fn requests(mut ready: Ready) -> Ready {
    ready.runtime.block_on(ready.client.ask(REQUESTS));
    // Taken apart when nothing is counted any longer.
    ready
}

fn routes(count: usize) -> (Router, String) {
    let matches: Vec<(String, Match)> = (0..count)
        .map(|n| {
            let text = format!("{{path: /api/v1/service-{n}/:id, methods: [GET]}}");
            (format!("route-{n}"), serde_yaml::from_str(&text).expect("a valid match"))
        })
        .collect();
    let named = matches.iter().enumerate().map(|(n, (name, m))| (n, name.as_str(), m));
    let router = Router::try_new(named).expect("no conflicts");
    (router, format!("/api/v1/service-{}/42", count / 2))
}

#[library_benchmark]
#[bench::of_10(args = (10), setup = routes)]
#[bench::of_10000(args = (10_000), setup = routes)]
fn route((router, path): (Router, String)) -> Router {
    let asked =
        Asked { method: &Method::GET, headers: None, query: None, scheme: None, certificate: None };
    for _ in 0..REQUESTS {
        let found = router.find("api.example.com", black_box(&path), &asked);
        black_box(found.map(|found| found.route).ok());
    }
    router
}

library_benchmark_group!(name = whole, benchmarks = [requests]);
library_benchmark_group!(name = parts, benchmarks = [route]);
main!(
    config = LibraryBenchmarkConfig::default().tool(Callgrind::with_args(["--cache-sim=no"])),
    library_benchmark_groups = [whole, parts]
);
