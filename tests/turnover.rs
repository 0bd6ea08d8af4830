//! Connections that give way to new ones: nothing that is under way is cut for it.

use std::process::Command;
use std::time::Duration;

use crate::support::websocket::{self, echo, echoes};
use crate::support::{
    Answer, Call, Client, Gateway, H2Client, Plan, Upstream, eventually, pass, request,
};

fn start(upstream: &Upstream, settings: &str, route: &str) -> Gateway {
    let address = "address: '127.0.0.1:${PORT}'";
    let section = format!("listeners: {{public: {{{address}, {settings}}}}}");
    Plan::route(route).section(&section).upstream(upstream).start()
}

#[test]
fn the_last_response_says_that_the_connection_closes() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, "max_requests_per_connection: 3", "");
    let mut client = gateway.connect();
    let call = Call::new("POST /").body("some");
    for _ in 0..2 {
        let response = client.call(&call);
        assert_eq!((response.status, response.header("connection")), (200, Some("keep-alive")));
    }
    let last = client.call(&call);
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert!(client.is_closed());
    assert_eq!(gateway.connect().call(&call).status, 200, "a new one begins anew");
    assert_eq!(upstream.count(), 4);
}

#[test]
fn streams_that_are_open_finish_after_the_last_one() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, "max_requests_per_connection: 3", "");
    let h2 = H2Client::connect(gateway.address);
    let mut upload = h2.open(request("POST", "/upload").body(()).expect("a head"), false);
    upload.send(b"begun ", false);
    assert_eq!(h2.get("/two").status, 200);
    assert_eq!(h2.get("/three").status, 200, "the last one");
    h2.is_told_to_go();
    upload.send(b"and ended", true);
    assert_eq!(upload.finish().status, 200);
    h2.wait_closed();
    let uploads = upstream.requests().into_iter().filter(|seen| seen.target == "/upload");
    assert_eq!(uploads.map(|seen| seen.text()).collect::<Vec<_>>(), ["begun and ended"]);
}

#[test]
fn the_first_request_after_the_age_is_the_last_over_either_protocol() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, "max_connection_age: 500ms", "");
    let (mut client, h2) = (gateway.connect(), H2Client::connect(gateway.address));
    let call = Call::new("GET /");
    assert_eq!(h2.get("/").status, 200);
    let last = eventually("a response that closes the connection", || {
        let response = client.call(&call);
        assert_eq!(response.status, 200);
        (response.header("connection") == Some("close")).then_some(response)
    });
    assert_eq!(last.text(), "ok");
    assert!(client.is_closed());
    pass(Duration::from_millis(500));
    assert_eq!(h2.get("/").status, 200, "idle for longer than that");
    h2.is_told_to_go();
    h2.wait_closed();
}

#[test]
fn a_websocket_outlives_the_age_and_the_last_request_may_open_one() {
    let (upstream, _) = echo();
    let settings = "max_connection_age: 300ms, max_requests_per_connection: 1";
    let section = format!(
        "listeners: {{public: {{address: '127.0.0.1:${{PORT}}', {settings}}}}}\n\
         upstreams: {{service: {{endpoints: ['http://{upstream}']}}}}"
    );
    let gateway = Plan::route("websocket: {}").section(&section).start();
    let mut stream = websocket::open(gateway.address, "/");
    for _ in 0..5 {
        pass(Duration::from_millis(100));
        assert!(echoes(&mut stream, "still here"));
    }
}

/// As HTTP/1 clients do: a new connection once the gateway has said that it closes the last one.
fn call_on(gateway: &Gateway, calls: usize) -> usize {
    let mut client = gateway.connect();
    let mut connections = 1;
    for n in 0..calls {
        let response = client.call(&Call::new(&format!("POST /{n}")).body("some"));
        assert_eq!(response.status, 200, "{n}");
        if response.header("connection") == Some("close") {
            client = Client::connect(gateway.address);
            connections += 1;
        }
    }
    connections
}

#[test]
fn thousands_of_requests_and_none_fails_for_it() {
    let upstream = Upstream::always(Answer::ok());
    let gateway = start(&upstream, "max_requests_per_connection: 20", "");
    let connections: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| call_on(&gateway, 1000))).collect();
        clients.into_iter().map(|client| client.join().expect("no failure")).sum()
    });
    assert_eq!(connections, 4 * (1000 / 20 + 1));
    // Of HTTP/2, several at a time, as the library's clients do it: a stream that the gateway has not taken is
    // opened again on a new connection.
    let mut served = 0;
    while served < 1000 {
        let h2 = H2Client::connect(gateway.address);
        for n in 0..20 {
            assert_eq!(h2.get(&format!("/{n}")).status, 200);
            served += 1;
        }
        h2.is_told_to_go();
    }
    assert_eq!(upstream.count(), 5000);
}

#[test]
fn a_balancer_with_nghttp2_loses_no_request() {
    if Command::new("h2load").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "h2load is missing: scripts/setup.sh --bench");
        eprintln!("SKIPPED: h2load is not here");
        return;
    }
    let upstream = Upstream::always(Answer::ok());
    // Each connection has as many requests as it may have, 20 of them at a time.
    let gateway = start(&upstream, "max_requests_per_connection: 1000", "");
    let url = format!("http://{}/", gateway.address);
    let arguments = ["-n", "4000", "-c", "4", "-m", "20", &url];
    let output = Command::new("h2load").args(arguments).output().expect("h2load");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("4000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
    assert_eq!(upstream.count(), 4000);
}
