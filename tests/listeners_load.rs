//! Listeners that change under load: clients of those that stay lose nothing. `make soak` runs it at full
//! length.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::{
    Authority, Client, Ending, Gateway, H2Client, Plan, Port, Returning, Upstream, connect_tls,
    eventually, from_environment, wait,
};

const MIB: u64 = 1024 * 1024;

/// A public listener that stays, one with TLS whose settings change each time, and one that comes and goes.
fn plan(n: usize, secure: SocketAddr, other: SocketAddr) -> Plan {
    let tls = "tls: {certificates: [{certificate: one.pem, key: one.key}]}";
    let settings = format!("idle_timeout: {}s, max_path_bytes: {}B, {tls}", 60 + n % 7, 1000 + n);
    let mut entries = vec![
        "public: {address: '127.0.0.1:${PORT}'}".to_owned(),
        format!("secure{}: {{address: '{secure}', {settings}}}", n % 3 / 2),
    ];
    if n % 2 == 1 {
        entries.push(format!("other: {{address: '{other}'}}"));
    }
    Plan::route("").section(&format!("listeners: {{{}}}", entries.join(", ")))
}

/// Over a connection that goes on.
async fn ask(stream: &mut TlsStream<TcpStream>) -> std::io::Result<bool> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: one.test\r\n\r\n").await?;
    let (mut seen, mut bytes) = (Vec::new(), [0; 4096]);
    while !seen.ends_with(b"ok") {
        match stream.read(&mut bytes).await? {
            0 => return Ok(false),
            read => seen.extend_from_slice(&bytes[..read]),
        }
    }
    let seen = String::from_utf8_lossy(&seen).into_owned();
    Ok(seen.starts_with("HTTP/1.1 200") && seen.contains("keep-alive"))
}

/// What clients have had.
#[derive(Default)]
struct Tally {
    done: AtomicBool,
    served: AtomicUsize,
    failed: AtomicUsize,
}

impl Tally {
    /// Repeats `request`, which says whether it was served, until all is done.
    fn repeat(&self, mut request: impl FnMut() -> bool) {
        // Relaxed: nothing is published with the flag and the counts.
        while !self.done.load(Ordering::Relaxed) {
            let counter = if request() { &self.served } else { &self.failed };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Stops the clients also where an assertion fails.
struct Stop<'a>(&'a Tally);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.done.store(true, Ordering::Relaxed);
    }
}

fn memory(gateway: &Gateway) -> u64 {
    gateway.memory("VmRSS")
}

#[test]
fn reloads_that_change_listeners_fail_no_request_and_leave_nothing_behind() {
    let reloads = from_environment("LISTENERS_RELOADS", 30_usize);
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let (secure, other) = (Port::reserve(), Port::reserve());
    let (secure, other) = (secure.address(), other.address());
    let one = authority.sign("one.test");
    let gateway = plan(0, secure, other)
        .beside("one.pem", &one.pem())
        .beside("one.key", &one.key_pem())
        .upstream(&upstream)
        .start();
    let tally = Tally::default();
    std::thread::scope(|scope| {
        let stop = Stop(&tally);
        scope.spawn(|| {
            let mut client = gateway.connect();
            tally.repeat(|| {
                let response = client.call(&"GET /".into());
                response.status == 200 && response.header("connection") == Some("keep-alive")
            });
        });
        scope.spawn(|| {
            tally.repeat(|| {
                let response = gateway.get("/");
                response.status == 200 && response.ending == Ending::Complete
            });
        });
        scope.spawn(|| {
            let client = H2Client::connect(gateway.address);
            tally.repeat(|| {
                let response = client.get("/");
                response.status == 200 && response.reset.is_none()
            });
        });
        scope.spawn(|| {
            let mut stream =
                connect_tls(secure, "one.test", &authority, None, "http/1.1").expect("TLS");
            tally.repeat(|| wait("a response", ask(&mut stream)).unwrap_or(false));
        });
        scope.spawn(|| {
            let client = H2Client::over(async {
                // The handshake blocks, which a thread of the runtime must not.
                let connected = std::thread::scope(|scope| {
                    let connect = || connect_tls(secure, "one.test", &authority, None, "h2");
                    scope.spawn(connect).join().expect("no panic")
                });
                connected.expect("TLS")
            });
            tally.repeat(|| client.get("/").status == 200);
        });
        scope.spawn(|| {
            let client = Returning::new(&authority, None, &rustls::version::TLS13);
            tally.repeat(|| client.visit(secure).is_ok());
        });
        let change = |n: usize| {
            let taken = gateway.reload_plan(&plan(n, secure, other));
            assert!(taken, "reload {n}:\n{}", gateway.log());
            let reached = Client::try_connect(other).map(|mut client| {
                client.send(b"GET / HTTP/1.1\r\nHost: gateway.test\r\n\r\n");
                client.receive().status
            });
            assert_eq!(reached, (n % 2 == 1).then_some(200), "reload {n}");
        };
        // What the first ones need, the later ones use again.
        let first = 11;
        (1..first).for_each(change);
        let (memory_before, files_before) = (memory(&gateway), gateway.descriptors());
        let started = Instant::now();
        (first..first + reloads).for_each(change);
        let took = started.elapsed();
        let (memory_after, files_after) = (memory(&gateway), gateway.descriptors());
        drop(stop);
        let (served, failed) =
            (tally.served.load(Ordering::Relaxed), tally.failed.load(Ordering::Relaxed));
        println!(
            "{reloads} reloads in {:.1} s: {served} requests, {failed} failed; resident memory {} KiB \
             before, {} KiB after; {files_before} descriptors before, {files_after} after",
            took.as_secs_f64(),
            memory_before >> 10,
            memory_after >> 10,
        );
        assert_eq!(failed, 0);
        assert!(served > reloads, "{served} requests");
        assert!(memory_after < memory_before + 24 * MIB, "{memory_before} became {memory_after}");
    });
    let files = gateway.descriptors();
    eventually("the descriptors of idle clients only", || {
        (gateway.descriptors() <= files).then_some(())
    });
}
